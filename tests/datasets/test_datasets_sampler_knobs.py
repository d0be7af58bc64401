"""Every field of a sampler changes what is drawn, or that nothing can be."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf import text_format
from test_datasets_sampler_loader import write_lines, write_tables

from tzrec.datasets.samplers.factory import create_sampler
from tzrec.errors import TzrecError
from tzrec.protos.data_pb2 import DataConfig

SAMPLERS = (
    "negative_sampler",
    "negative_sampler_v2",
    "hard_negative_sampler",
    "hard_negative_sampler_v2",
)
BATCH = {
    "user": pa.array([0, 1, 2, 3]),
    "item": pa.array([0, 1, 2, 3]),
    "guest": pa.array([3, 2, 1, 0]),
    "thing": pa.array([5, 6, 7, 8]),
}
FIELDS = {"item": pa.int64(), "tags": pa.string(), "price": pa.float64()}
BASE = {
    "input_path": '"%(dir)s/items.txt"',
    "item_input_path": '"%(dir)s/items.txt"',
    "user_input_path": '"%(dir)s/users.txt"',
    "pos_edge_input_path": '"%(dir)s/clicks.txt"',
    "hard_neg_edge_input_path": '"%(dir)s/hard.txt"',
    "num_sample": "7",
    "num_hard_sample": "2",
    "attr_fields": '["item", "tags", "price"]',
    "item_id_field": '"item"',
    "user_id_field": '"user"',
}
# Field → its other value.
OTHERS = {
    "input_path": '"%(dir)s/others.txt"',
    "item_input_path": '"%(dir)s/others.txt"',
    "user_input_path": '"%(dir)s/none.txt"',
    "pos_edge_input_path": '"%(dir)s/edges.txt"',
    "hard_neg_edge_input_path": '"%(dir)s/edges.txt"',
    "num_sample": "9",
    "num_hard_sample": "1",
    "num_eval_sample": "3",
    "attr_fields": '["tags", "item", "price"]',
    "item_id_field": '"thing"',
    "user_id_field": '"guest"',
    "attr_delimiter": '"|"',
    "field_delimiter": '","',
    "string_ids": "true",
    "weight_field": '"weight"',
    "item_id_delim": '","',
}
# That they change nothing is told; see tests/config/test_config_samplers.py.
NO_EFFECT = (
    ("negative_sampler", "item_id_delim"),
    ("negative_sampler_v2", "weight_field"),
    ("hard_negative_sampler_v2", "weight_field"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    write_tables(folder)
    lines = (folder / "items.txt").read_text().splitlines()
    write_lines(folder / "others.txt", lines[0], *lines[10:])
    edges = [f"{user}\t{item}\t1" for user in range(4) for item in (4, 5, 6 + user)]
    write_lines(folder / "edges.txt", "userid:int64\titemid:int64\tweight:float", *edges)
    named = [f"{i},{i},0.5,{100 if i < 4 else 1}" for i in range(40)]
    write_lines(folder / "items.csv", "item,tags,price,weight", *named)
    return folder


def config_of(kind, folder, field="", value=""):
    """The config of a sampler with one field written anew."""
    config = DataConfig()
    known = getattr(config, kind).DESCRIPTOR.fields_by_name
    values = {name: text for name, text in BASE.items() if name in known}
    if field == "weight_field":  # of columns with names
        values = {n: t.replace("items.txt", "items.csv") for n, t in values.items()}
    if value:
        values[field] = value
    text = " ".join(f"{name}: {text % {'dir': folder}}" for name, text in values.items())
    return text_format.Parse(f"{kind} {{ {text} }}", config)


def drawn(config, *, is_training=True, batch=BATCH):
    try:
        sampler = create_sampler(config, FIELDS, is_training=is_training)
        sampler.build()
        rows = sampler.get(batch, np.random.default_rng(5))
    except TzrecError as error:
        return str(error)
    indices = None if rows.hard_neg_indices is None else rows.hard_neg_indices.tolist()
    return {name: column.to_pylist() for name, column in rows.columns.items()}, indices


def fields_of(kind):
    known = getattr(DataConfig(), kind).DESCRIPTOR.fields_by_name
    return [(kind, name) for name in known]


@pytest.mark.parametrize(("kind", "field"), [pair for kind in SAMPLERS for pair in fields_of(kind)])
def test_a_field_changes_the_draws(kind, field, folder):
    batch = BATCH
    if field == "string_ids":
        batch = {**BATCH, "item": pa.array(["a", "b", "c", "d"])}
    options = {"is_training": field != "num_eval_sample", "batch": batch}
    before = drawn(config_of(kind, folder, field), **options)
    after = drawn(config_of(kind, folder, field, OTHERS[field]), **options)
    assert isinstance(before, tuple) or isinstance(after, tuple), before
    assert (before == after) == ((kind, field) in NO_EFFECT)
    assert before == drawn(config_of(kind, folder, field), **options)
