"""The generated rows: what the config's features can read, with the signal that they promise."""

import numpy as np
import pytest
from google.protobuf import text_format
from shape_data import shape_table
from sklearn.metrics import roc_auc_score

from tzrec.datasets.data_parser import DataParser
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.training.build import build_features

CONFIG = r"""
train_input_path: "a" eval_input_path: "b" model_dir: "c"
data_config {
  batch_size: 8 fg_mode: FG_NONE label_fields: ["clk", "buy"] sample_weight_fields: "weight"
  fg_encoded_multival_sep: ","
}
feature_configs { id_feature {
  feature_name: "user" expression: "user:user" embedding_dim: 4 num_buckets: 50 } }
feature_configs { id_feature {
  feature_name: "tags" expression: "item:tags" embedding_dim: 4 num_buckets: 9 pooling: "mean" } }
feature_configs { id_feature {
  feature_name: "words" expression: "item:words" embedding_dim: 4 vocab_list: ["x", "y", "z"]
  weighted: true } }
feature_configs { raw_feature { feature_name: "price" expression: "item:price" } }
feature_configs { raw_feature {
  feature_name: "image" expression: "item:image" value_dim: 3 } }
feature_configs { raw_feature {
  feature_name: "age" expression: "user:age" boundaries: [18, 30] embedding_dim: 4 } }
feature_configs { sequence_raw_feature {
  feature_name: "dwell" expression: "user:dwell" sequence_length: 9 value_dim: 2 } }
feature_configs { sequence_feature {
  sequence_name: "click" sequence_length: 9 sequence_delim: "|"
  features { id_feature {
    feature_name: "item" expression: "item:item" embedding_dim: 4 num_buckets: 20 } }
  features { id_feature {
    feature_name: "tags" expression: "item:tags" embedding_dim: 4 num_buckets: 9
    value_dim: 0 pooling: "mean" } }
  features { raw_feature { feature_name: "price" expression: "item:price" } }
} }
"""


@pytest.fixture
def config():
    return text_format.Parse(CONFIG, EasyRecConfig())


def parse(config, table):
    data = config.data_config
    features = build_features(data, config.feature_configs)
    parser = DataParser(features, list(data.label_fields), list(data.sample_weight_fields))
    columns = {n: table[n].combine_chunks() for n in table.column_names}
    return parser.parse(columns)


def test_every_kind_of_column_can_be_parsed(config):
    parsed = {k: v.numpy() for k, v in parse(config, shape_table(config, 500)).items()}
    lengths = {n: set(parsed[f"{n}.lengths"].tolist()) for n in ("user", "tags", "words", "age")}
    assert lengths == {"user": {1}, "tags": {0, 1, 2, 3}, "words": {0, 1, 2, 3}, "age": {1}}
    sizes = {"user": 50, "tags": 9, "words": 5, "age": 3, "click__item": 20, "click__tags": 9}
    for name, size in sizes.items():
        ids = parsed[f"{name}.values"]
        assert 0 <= ids.min() <= ids.max() < size, name
    assert parsed["image.values"].shape == (500, 3)
    assert parsed["dwell.values"].shape[1] == 2
    steps = parsed["click__item.lengths"]
    assert set(steps.tolist()) == {0, 1, 2, 3, 4, 5}
    for name in ("click__tags", "click__price"):
        np.testing.assert_array_equal(parsed[f"{name}.lengths"], steps)
    assert set(parsed["click__tags.key_lengths"].tolist()) == {1, 2, 3}
    assert len(parsed["click__tags.key_lengths"]) == steps.sum()


def test_the_seed_decides_the_rows_and_not_the_story(config):
    first, again = shape_table(config, 4000, seed=1), shape_table(config, 4000, seed=1)
    other = shape_table(config, 4000, seed=2)
    assert first.equals(again)
    assert not first.equals(other)
    by_user = [
        np.bincount(t["user"], t["probability"], 50) / np.bincount(t["user"], minlength=50)
        for t in (first, other)
    ]
    assert np.corrcoef(*by_user)[0, 1] > 0.9


def test_labels_follow_the_probability(config):
    table = shape_table(config, 4000)
    for label in ("clk", "buy"):
        assert 0.75 < roc_auc_score(table[label], table["probability"]) < 0.95
        assert abs(np.mean(table[label]) - np.mean(table["probability"])) < 0.02
    assert not table["clk"].equals(table["buy"])


def test_the_signal_can_be_chosen(config):
    table = shape_table(config, 2000, signal=["price"])
    assert abs(np.corrcoef(table["price"], table["clk"])[0, 1]) > 0.5
    elsewhere = shape_table(config, 2000, signal=["user"])
    assert abs(np.corrcoef(elsewhere["price"], elsewhere["clk"])[0, 1]) < 0.1


def test_more_classes(config):
    config.model_config.num_class = 4
    table = shape_table(config, 400)
    assert np.bincount(table["clk"]).tolist() == [100] * 4
