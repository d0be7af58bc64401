"""A loader with ``tdm_sampler``: rows become nodes of a tree."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf import text_format

from tzrec.constant import Mode
from tzrec.datasets.dataset import create_dataloader
from tzrec.errors import DataError
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.retrieval.tree_build import Items, build_tree
from tzrec.retrieval.tree_codes import leaf_codes
from tzrec.retrieval.tree_files import write_tree
from tzrec.training.build import build_features

pytestmark = pytest.mark.usefixtures("nothing_left")

CONFIG = """
data_config { dataset_type: ParquetDataset batch_size: 4 label_fields: "label"
    sample_weight_fields: "weight" %(data)s
    tdm_sampler { item_input_path: "%(dir)s/node_table.txt"
        edge_input_path: "%(dir)s/edge_table.txt"
        predict_edge_input_path: "%(dir)s/predict_edge_table.txt" item_id_field: "item"
        attr_fields: ["item", "cate"] attr_delimiter: ":" layer_num_sample: [0, 1, 2, 3] } }
feature_configs { id_feature { feature_name: "user" num_buckets: 99 embedding_dim: 4 } }
feature_configs { id_feature { feature_name: "item" num_buckets: 99 embedding_dim: 4 } }
feature_configs { id_feature { feature_name: "cate" num_buckets: 99 embedding_dim: 4 %(mask)s } }
"""
# Ancestors between root and leaf, and negatives, of a row.
POSITIVES, NEGATIVES = 2, 6


def write_data(folder, items):
    table = {
        "user": list(range(len(items))),
        "item": items,
        "cate": [item % 3 for item in items],
        "label": [1] * len(items),
        "weight": [0.5 + i for i in range(len(items))],
    }
    pq.write_table(pa.table(table), folder / "data.parquet")


@pytest.fixture
def folder(tmp_path):
    ids = np.arange(10, 18)
    tree = build_tree(Items(pa.array(ids), {"cate": pa.array(ids % 3)}, {}), leaf_codes(8, 2), 2)
    write_tree(tree, str(tmp_path), item_id_field="item", attr_delimiter=":")
    write_data(tmp_path, [10, 11, 12, 13, 14, 15])
    return tmp_path


def batches_of(folder, data="loader: THREAD", mask="", mode=Mode.TRAIN):
    filled = {"dir": folder, "data": data, "mask": mask}
    config = text_format.Parse(CONFIG % filled, EasyRecConfig())
    features = build_features(config.data_config, config.feature_configs)
    path = f"{folder}/data.parquet"
    with create_dataloader(config.data_config, features, path, mode=mode) as loader:
        return list(loader), loader


def content(batch):
    return {key: tensor.tolist() for key, tensor in batch.to_dict().items()}


@pytest.mark.parametrize("mode", [Mode.TRAIN, Mode.EVAL])
def test_all_columns_have_the_rows_of_nodes(folder, mode):
    batches, _ = batches_of(folder, mode=mode)
    for batch, rows, first in zip(batches, (4, 2), (0, 4), strict=True):
        joined = rows * (1 + POSITIVES + NEGATIVES)
        ids = batch.sparse_features["__BASE__"]
        assert set(batch.sparse_features) == {"__BASE__"}
        assert ids["item"].values()[:rows].tolist() == list(range(10 + first, 10 + first + rows))
        users = list(range(first, first + rows))
        expected = users + [u for u in users for _ in range(POSITIVES)]
        expected += [u for u in users for _ in range(NEGATIVES)]
        assert ids["user"].values().tolist() == expected
        assert batch.sample_weights["weight"].tolist() == [0.5 + user for user in expected]
        positive = rows * (1 + POSITIVES)
        assert batch.labels["label"].tolist() == [1] * positive + [0] * (joined - positive)


def test_prediction_has_the_rows_of_the_data(folder):
    batches, _ = batches_of(folder, mode=Mode.PREDICT)
    assert sum(len(batch.sparse_features["__BASE__"]["item"].values()) for batch in batches) == 6


def test_only_rows_of_the_data_have_a_place(folder):
    (batch, _), _ = batches_of(folder)
    assert batch.locate(3).endswith("data.parquet: row 3 (counted from 0)")
    assert batch.locate(4) == ""


def test_workers_draw_the_same(folder, workers_as_threads):
    wanted, _ = batches_of(folder)
    found, _ = batches_of(folder, "loader: PROCESS num_workers: 3")
    assert [content(batch) for batch in found] == [content(batch) for batch in wanted]


def test_items_that_the_tree_does_not_have(folder):
    write_data(folder, [10, 11, 77, 13, 14, 15])
    with pytest.raises(DataError, match=r"row 2 \(counted from 0\): item 77 is no leaf"):
        batches_of(folder)
    batches, loader = batches_of(folder, "loader: THREAD max_bad_rows: 1")
    assert loader.num_bad_rows == 1
    assert [len(batch.labels["label"]) for batch in batches] == [27, 18]


def test_masks(folder):
    mask = 'use_mask: true fg_encoded_default_value: "98"'
    data = "loader: THREAD sample_mask_prob: 0.0 negative_sample_mask_prob: 1.0"
    (batch, _), _ = batches_of(folder, data, mask)
    ids = batch.sparse_features["__BASE__"]["cate"].values().tolist()
    assert 98 not in ids[:12]
    assert ids[12:] == [98] * 24
