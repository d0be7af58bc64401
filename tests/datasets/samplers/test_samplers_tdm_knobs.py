"""Every field of ``tdm_sampler`` changes the nodes, or that there are any."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from test_samplers_tdm import FIELDS, make_tree

from tzrec.datasets.samplers.tdm import TDMSampler
from tzrec.errors import TzrecError
from tzrec.protos.sampler_pb2 import TDMSampler as Config

OTHERS = {
    "item_input_path": "other/node_table.txt",
    "edge_input_path": "other/edge_table.txt",
    "predict_edge_input_path": "other/predict_edge_table.txt",
    "item_id_field": "price",
    "attr_fields": ["item", "price", "cate"],
    "layer_num_sample": [0, 0, 2, 3],
    "attr_delimiter": ";",
    "field_delimiter": ";",
    "num_eval_sample": 5,
    "remain_ratio": 0.5,
    "probability_type": "RECIPROCAL",
    "string_ids": True,
    "weight_field": "weight",
}
# Edges to children are for retrieval; that the other one changes nothing is told.
NO_EFFECT = ("predict_edge_input_path", "num_eval_sample")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("trees")
    make_tree(root, 8)
    make_tree(root / "other", 8, n=3)
    lines = (root / "node_table.txt").read_text().splitlines()[1:]
    rows = [(*line.split("\t")[::2], number) for number, line in enumerate(lines)]
    header = "item,tree_level,cate,price,weight\n"
    text = "".join(
        f"{node},{level},{cate},{price},{1 + number % 7}\n"
        for node, attrs, number in rows
        for level, _, cate, price in [attrs.split(":")]
    )
    (root / "named.csv").write_text(header + text)
    (root / "text").mkdir()
    for path in root.glob("*_table.txt"):
        (root / "text" / path.name).write_text(path.read_text().replace("int64", "string"))
    return root


def nodes(root, named, **changes):
    fields = {
        "item_input_path": "named.csv" if named else "node_table.txt",
        "edge_input_path": "edge_table.txt",
        "predict_edge_input_path": "predict_edge_table.txt",
        "item_id_field": "item",
        "attr_fields": ["item", "cate", "price"],
        "layer_num_sample": [0, 1, 2, 3],
        **({"remain_ratio": 0.5} if "probability_type" in changes else {}),
    } | {k: v for k, v in changes.items() if v is not None}
    for name in fields:
        if name.endswith("path"):
            folder = f"{root}/text" if "string_ids" in changes else root
            fields[name] = f"{folder}/{fields[name]}"
    try:
        sampler = TDMSampler(Config(**fields), FIELDS, is_training=False)
        sampler.build()
        found = [
            sampler.get({"item": pa.array(range(10, 18))}, np.random.default_rng(seed))
            for seed in range(20)
        ]
    except TzrecError as error:
        return str(error)
    return [{n: c.to_pylist() for n, c in rows.columns.items()} for rows in found]


@pytest.mark.parametrize("field", list(Config.DESCRIPTOR.fields_by_name))
def test_a_field_changes_the_nodes(field, root):
    named = field == "weight_field"
    before = nodes(root, named, **{field: None})
    after = nodes(root, named, **{field: OTHERS[field]})
    assert isinstance(before, list) or isinstance(after, list), (before, after)
    assert (before == after) == (field in NO_EFFECT)
    assert before == nodes(root, named, **{field: None})
