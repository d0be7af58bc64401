"""Small tables of samplers, and samplers that read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from google.protobuf import text_format

from tzrec.datasets.samplers.factory import create_sampler
from tzrec.protos.data_pb2 import DataConfig

FIELDS = {"item_id": pa.int64(), "cat": pa.string()}
WEIGHTS = {i: float(i) for i in range(1, 11)}
POSITIVE = [(u, i) for u in range(5) for i in range(1, 9) if (u + i) % 3 == 0]
HARD = [(0, 4), (1, 1), (1, 2), (1, 3), (2, 5), (2, 6), (2, 7), (2, 8), (2, 9), (2, 10)]
KINDS = (
    "negative_sampler",
    "negative_sampler_v2",
    "hard_negative_sampler",
    "hard_negative_sampler_v2",
)
NODES, EDGES = "id:int64\tweight:float\tattrs:string", "u:int64\ti:int64\tw:float"


def write_lines(path: Path, header: str, rows) -> Path:
    path.write_text("\n".join([header, *("\t".join(map(str, row)) for row in rows)]) + "\n")
    return path


def write_items(path: Path, weights: dict[int, float]) -> Path:
    return write_lines(path, NODES, [(i, w, f"{i}:c{i}") for i, w in weights.items()])


def write_edges(path: Path, edges) -> Path:
    return write_lines(path, EDGES, [(u, i, 1.0) for u, i in edges])


def config_of(kind: str, text: str) -> DataConfig:
    return text_format.Parse(f"dataset_type: ParquetDataset {kind} {{ {text} }}", DataConfig())


def make_sampler(
    folder: Path,
    kind: str = "negative_sampler",
    *,
    text: str = "",
    num_sample: int = 6,
    attrs=("item_id", "cat"),
    fields=None,
    is_training=True,
    with_log_q=False,
    build=True,
):
    """A sampler of ``items.txt``, ``users.txt``, ``pos.txt`` and ``hard.txt`` in a folder."""
    paths = {
        "input_path": ("items", kind == "negative_sampler"),
        "item_input_path": ("items", kind != "negative_sampler"),
        "user_input_path": ("users", kind != "negative_sampler"),
        "pos_edge_input_path": ("pos", kind.endswith("v2")),
        "hard_neg_edge_input_path": ("hard", kind.startswith("hard")),
    }
    lines = [
        f'{field}: "{folder}/{name}.txt"'
        for field, (name, needed) in paths.items()
        if needed and f"{field}:" not in text
    ]
    if kind != "negative_sampler":
        lines.append('user_id_field: "user_id"')
    if kind.startswith("hard") and "num_hard_sample" not in text:
        lines.append("num_hard_sample: 3")
    lines += [f'attr_fields: "{name}"' for name in attrs]
    if "item_id_field" not in text:
        lines.append('item_id_field: "item_id"')
    lines += [f"num_sample: {num_sample}", text]
    sampler = create_sampler(
        config_of(kind, " ".join(lines)),
        fields or FIELDS,
        is_training=is_training,
        with_log_q=with_log_q,
    )
    if build:
        sampler.build()
    return sampler


def batch_of(items, users=None):
    columns = {"item_id": pa.array(items, pa.int64())}
    if users is not None:
        columns["user_id"] = pa.array(users, pa.int64())
    return columns


def draw(sampler, items, users=None, *, seed=0):
    return sampler.get(batch_of(items, users), np.random.default_rng(seed))


def ids(rows, first=None, last=None):
    return rows.columns["item_id"].to_pylist()[first:last]
