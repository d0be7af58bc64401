"""Loaders that generate features: raw files of every kind of column become the same batches."""

from __future__ import annotations

import logging

import fg_feed
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from google.protobuf import text_format

from tzrec.constant import Mode
from tzrec.datasets.dataset import create_dataloader
from tzrec.errors import ConfigError, DataError, FeatureError
from tzrec.fg import kernels
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.training.build import build_features

ROWS = 300
# FG_NORMAL generates every feature alone.
ALONE = "\n".join(
    line
    for line in fg_feed.FEATURES.splitlines()
    if "feature:" not in line and "stub_type" not in line
)
HIDDEN = ALONE.replace("embedding_dim: 4 }", "embedding_dim: 4 use_mask: true }")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw")
    pq.write_table(fg_feed.feed(ROWS), root / "raw.parquet", row_group_size=100)
    return root


def batches(root, mode=Mode.TRAIN, features=fg_feed.FEATURES, **data):
    """Batches of a loader as dicts of tensors, and the loader."""
    text = fg_feed.config_text(root, features=features, **data)
    config = text_format.Parse(text, EasyRecConfig())
    loader = create_dataloader(
        config.data_config,
        build_features(config.data_config, config.feature_configs),
        config.train_input_path,
        mode=mode,
        seed=3,
    )
    with loader:
        return [batch.to_dict() for batch in loader], loader


def assert_equal(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.keys() == other.keys()
        for key in other:
            assert one[key].dtype == other[key].dtype
            assert torch.equal(one[key], other[key]), key


@pytest.fixture(scope="module")
def alone(raw):
    return batches(raw, loader="THREAD")[0]


def test_processes_give_the_batches_of_the_thread(raw, alone, monkeypatch):
    monkeypatch.setattr("tzrec.datasets.dataset.usable_workers", lambda wanted: wanted)
    found, loader = batches(raw, loader="PROCESS", num_workers=2)
    assert loader.options.num_workers == 2
    assert_equal(found, alone)


def test_feature_generation_is_parsed_by_processes_unless_asked_otherwise(raw):
    _, loader = batches(raw, num_workers=0)
    assert loader.options.num_workers == 0
    text = fg_feed.config_text(raw, num_workers=1)
    config = text_format.Parse(text, EasyRecConfig()).data_config
    features = build_features(config, text_format.Parse(text, EasyRecConfig()).feature_configs)
    with create_dataloader(config, features, f"{raw}/raw.parquet") as loader:
        assert loader.options.num_workers == 1


def test_threads_change_nothing(raw, alone):
    assert_equal(batches(raw, loader="THREAD", fg_threads=4)[0], alone)


@pytest.mark.parametrize("mode", [Mode.TRAIN, Mode.PREDICT])
def test_each_feature_alone_is_what_all_are_together(raw, mode):
    together, _ = batches(raw, mode, features=ALONE, loader="THREAD")
    found, _ = batches(raw, mode, features=ALONE, loader="THREAD", fg_mode="FG_NORMAL")
    assert len(together[0]) > 50
    assert_equal(found, together)


@pytest.mark.parametrize("mode", ["FG_DAG", "FG_NORMAL"])
def test_missing_and_unknown_values_are_counted(raw, mode):
    _, loader = batches(raw, features=ALONE, fg_mode=mode, loader="THREAD")
    assert len(loader.feature_counts.shares()) == len(loader.parser.features)
    shares = {one.name: one for one in loader.feature_counts.shares()}
    users = pq.read_table(raw / "raw.parquet")["user_id"].to_pylist()
    missing = sum(user in (None, "") for user in users) / len(users)
    assert shares["user"].missing == pytest.approx(missing)
    assert any(one.unknown for one in shares.values())
    _, loader = batches(raw, Mode.EVAL, features=ALONE, fg_mode=mode, loader="THREAD")
    assert not loader.feature_counts.shares()


def test_a_feature_that_reads_another_is_refused_where_each_stands_alone(raw):
    reading = (
        ALONE
        + """
    feature_configs { combo_feature {
      feature_name: "crossed" expression: "feature:user" expression: "user:city"
      hash_bucket_size: 10 embedding_dim: 4 } }"""
    )
    with pytest.raises(ConfigError, match=r"crossed reads the feature 'user', but in FG_NORMAL"):
        batches(raw, features=reading, fg_mode="FG_NORMAL", loader="THREAD")


@pytest.mark.parametrize("mode", ["FG_DAG", "FG_NORMAL"])
def test_masks_hide_values_in_training_only(raw, mode):
    options = {"features": HIDDEN, "fg_mode": mode, "sample_mask_prob": 0.5, "loader": "THREAD"}
    hidden, _ = batches(raw, **options)
    shown, _ = batches(raw, Mode.EVAL, **options)
    plain, _ = batches(raw, features=ALONE, loader="THREAD")
    assert_equal(shown, plain)

    def of(found, key):
        return np.concatenate([one[key].numpy() for one in found])

    # Every row has one city; that of a hidden row is the default, "b" with the id 3.
    before, after = of(plain, "city.values"), of(hidden, "city.values")
    changed = before != after
    assert set(after[changed]) == {3}
    assert 0.35 < changed[before != 3].mean() < 0.65
    # The mask is one of rows: a feature without a default has no values there.
    users, left = of(plain, "user.lengths"), of(hidden, "user.lengths")
    told = (before != 3) & (users > 0)
    np.testing.assert_array_equal(left[told] == 0, changed[told])


def test_masks_are_the_same_in_both_modes(raw):
    options = {"features": HIDDEN, "sample_mask_prob": 0.5, "loader": "THREAD"}
    assert_equal(
        batches(raw, fg_mode="FG_NORMAL", **options)[0],
        batches(raw, fg_mode="FG_DAG", **options)[0],
    )


def broken(root, **columns):
    """The file with other values in some rows: column → {row: value}."""
    table = fg_feed.feed(ROWS)
    for name, changes in columns.items():
        values = table[name].to_pylist()
        for row, value in changes.items():
            values[row] = value
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.array(values, table[name].type))
    pq.write_table(table, root / "raw.parquet", row_group_size=100)
    return table


@pytest.mark.parametrize("mode", ["FG_DAG", "FG_NORMAL"])
def test_a_bad_value_is_named(tmp_path, mode):
    broken(tmp_path, age_text={207: "old"})
    message = (
        rf"^{tmp_path}/raw.parquet: row group 2, row 207 \(counted from 0\): .*feature text_bin.*"
        r"'old', which is not a number \(column 'age_text' is 'old'\)"
    )
    with pytest.raises(FeatureError, match=message):
        batches(tmp_path, features=ALONE, fg_mode=mode, loader="THREAD")


def test_bad_rows_are_left_out_and_counted(tmp_path, raw, caplog):
    broken(tmp_path, age_text={5: "old", 250: "x"}, vector={70: "1,2"})
    with caplog.at_level(logging.WARNING, "tzrec"):
        found, loader = batches(tmp_path, loader="THREAD", max_bad_rows=3)
    assert loader.num_bad_rows == 3
    assert "row 70 (counted from 0)" in caplog.text
    assert "column 'vector' is '1,2'" in caplog.text
    kept = [row for row in range(ROWS) if row not in (5, 70, 250)]
    labels = torch.cat([one["clicked"] for one in found])
    wanted = fg_feed.feed(ROWS)["clicked"].take(pa.array(kept)).to_pylist()
    assert labels.tolist() == wanted
    with pytest.raises(
        DataError, match=r"more than max_bad_rows: 2 rows cannot be used, now .*250"
    ):
        batches(tmp_path, loader="THREAD", max_bad_rows=2)


def test_kernels_are_compiled_before_processes_start(raw, monkeypatch):
    order = []
    warm_up = kernels.warm_up

    def watched(show):
        order.append("kernels")
        warm_up(show)

    class Pool:
        def __init__(self, *_):
            order.append("processes")
            raise RuntimeError("no processes here")

    monkeypatch.setattr("tzrec.datasets.data_parser.warm_up", watched)
    monkeypatch.setattr("tzrec.datasets.loader.ParserPool", Pool)
    with pytest.raises(RuntimeError, match="no processes here"):
        batches(raw, loader="PROCESS", num_workers=1)
    assert order == ["kernels", "processes"]


def test_encoded_columns_need_no_kernels(tmp_path, monkeypatch):
    monkeypatch.setattr("tzrec.datasets.data_parser.warm_up", lambda show: 1 / 0)
    pq.write_table(pa.table({"a": [1, 2], "clicked": [0, 1]}), tmp_path / "raw.parquet")
    feature = 'feature_configs { id_feature { feature_name: "a" num_buckets: 5 embedding_dim: 4 } }'
    text = fg_feed.config_text(tmp_path, features=feature, fg_mode="FG_NONE")
    config = text_format.Parse(text, EasyRecConfig())
    config.data_config.ClearField("sample_weight_fields")
    features = build_features(config.data_config, config.feature_configs)
    with create_dataloader(config.data_config, features, config.train_input_path) as loader:
        assert [len(batch.labels["clicked"]) for batch in loader] == [2]
