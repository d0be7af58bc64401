# ruff: noqa: E501
"""Typed edits."""

from __future__ import annotations

import json

import pytest
from config_samples import DEEPFM
from google.protobuf import text_format

from tzrec.config import edit_config, prepare, set_config
from tzrec.errors import ConfigError
from tzrec.protos.data_pb2 import CsvDataset
from tzrec.protos.pipeline_pb2 import EasyRecConfig


@pytest.fixture
def config():
    return text_format.Parse(DEEPFM, EasyRecConfig())


def get(config, path):
    return eval(f"config.{path}", {"config": config})


FEATURE = "feature_configs[0].id_feature"

EDITS = [
    ({"data_config.batch_size": 128}, "data_config.batch_size", 128),
    ({"data_config.batch_size": "128"}, "data_config.batch_size", 128),
    ({"model_dir": "new dir"}, "model_dir", "new dir"),
    ({"model_dir": "5"}, "model_dir", "5"),
    ({"data_config.shuffle": True}, "data_config.shuffle", True),
    ({"data_config.shuffle": "True"}, "data_config.shuffle", True),
    ({"data_config.shuffle": "false"}, "data_config.shuffle", False),
    ({"data_config.dataset_type": "CsvDataset"}, "data_config.dataset_type", CsvDataset),
    ({"train_config.sparse_optimizer.adagrad_optimizer.lr": "0.5"},
     "train_config.sparse_optimizer.adagrad_optimizer.lr", 0.5),
    ({"feature_configs[1].id_feature.hash_bucket_size": 7},
     "feature_configs[1].id_feature.hash_bucket_size", 7),
    ({"feature_configs[-1].raw_feature.value_dim": 3}, "feature_configs[3].raw_feature.value_dim", 3),
    ({"data_config.label_fields": "[\"a\", 'b']"}, "data_config.label_fields", ["a", "b"]),
    ({"data_config.label_fields": ["a", "b"]}, "data_config.label_fields", ["a", "b"]),
    ({"data_config.label_fields": "buy"}, "data_config.label_fields", ["buy"]),
    ({"data_config.label_fields": "clk,buy"}, "data_config.label_fields", ["clk", "buy"]),
    ({"data_config.label_fields[0]": "buy"}, "data_config.label_fields", ["buy"]),
    ({"model_config.deepfm.deep.hidden_units": "[8, 4]"}, "model_config.deepfm.deep.hidden_units", [8, 4]),
    ({"model_config.deepfm.deep.hidden_units": "8"}, "model_config.deepfm.deep.hidden_units", [8]),
    ({"model_config.deepfm.deep.hidden_units[0]": "8"}, "model_config.deepfm.deep.hidden_units", [8, 32]),
    ({"model_config.deepfm.deep.hidden_units[:]": 8}, "model_config.deepfm.deep.hidden_units", [8, 8]),
    ({"model_config.deepfm.final": "hidden_units: [3] use_bn: true"}, "model_config.deepfm.final.use_bn", True),
    ({"model_config.deepfm.final": "{ hidden_units: 3 }"}, "model_config.deepfm.final.hidden_units", [3]),
    ({"model_config.deepfm.final": {"hidden_units": [3]}}, "model_config.deepfm.final.hidden_units", [3]),
    ({"model_config.losses[0]": "l2_loss {}"}, "model_config.losses[0].WhichOneof('loss')", "l2_loss"),
    ({"model_config.losses": "[{ l2_loss {} }]"}, "model_config.losses[0].WhichOneof('loss')", "l2_loss"),
    ({"model_config.wide_and_deep": "deep { hidden_units: 2 }"},
     "model_config.WhichOneof('model')", "wide_and_deep"),
    ({f"{FEATURE}.vocab_dict": {"a": 1}}, f"{FEATURE}.vocab_dict['a']", 1),
    ({f"{FEATURE}.vocab_dict": '{ key: "a" value: 2 }'}, f"{FEATURE}.vocab_dict['a']", 2),
    ({"data_config.batch_size;data_config.num_workers": "8;1"}, "data_config.num_workers", 1),
    ({"data_config.batch_size;data_config.num_workers;": "8;1;"}, "data_config.batch_size", 8),
    ({"train_config.early_stop.metric": "auc"}, "train_config.early_stop.metric", "auc"),
]  # fmt: skip


@pytest.mark.parametrize(("edit", "path", "value"), EDITS)
def test_edit(config, edit, path, value):
    edit_config(config, json.dumps(edit))
    assert get(config, path) == value


def test_a_decoded_object_is_taken_too(config):
    assert edit_config(config, {"model_dir": "x"}) == ["model_dir"]
    assert config.model_dir == "x"


SELECTORS = [
    ("[0]", [0]),
    ("[:]", [0, 1, 2, 3]),
    ("[1:3]", [1, 2]),
    ("[2:]", [2, 3]),
    ("[:-2]", [0, 1]),
    ("[id_feature.feature_name=item_id]", [1]),
    ('[id_feature.feature_name="item_id"]', [1]),
    ("[id_feature.embedding_dim=16]", [0, 1]),
    ("[id_feature.num_buckets>=1000]", [0]),
    ("[id_feature.num_buckets > 999]", [0]),
    ("[id_feature.num_buckets<=999]", [1]),
    ("[id_feature.hash_bucket_size<500]", [0]),
    ("[raw_feature.embedding_dim=16]", [2]),
]


@pytest.mark.parametrize(("selector", "indexes"), SELECTORS)
def test_selectors(config, selector, indexes):
    assert edit_config(config, {f"feature_configs{selector}": "raw_feature {}"}) == [
        f"feature_configs[{index}]" for index in indexes
    ]
    kinds = [feature.WhichOneof("feature") for feature in config.feature_configs]
    names = [feature.raw_feature.feature_name for feature in config.feature_configs]
    for index in range(4):
        changed = kinds[index] == "raw_feature" and names[index] == ""
        assert changed == (index in indexes)


WRONG = [
    ('{"num_stepz": 3}', "num_stepz: EasyRecConfig has no field 'num_stepz'"),
    ('{"train_config.num_stepz": 3}', "TrainConfig has no field 'num_stepz'; did you mean 'num_steps'?"),
    ("{nope}", "not JSON: Expecting property name enclosed in double quotes at character 2"),
    ("[1]", "must be a JSON object, not [1]"),
    ('{"data_config.batch_size": "x"}', "data_config.batch_size: must be an integer, not x"),
    ('{"data_config.batch_size": 1.5}', "must be an integer, not 1.5"),
    ('{"data_config.batch_size": -1}', "out of range"),
    ('{"data_config.shuffle": "yes"}', "must be true or false, not yes"),
    ('{"data_config.dataset_type": "Csvdataset"}', "'Csvdataset' is not a DatasetType; did you mean 'CsvDataset'?"),
    ('{"feature_configs.id_feature.embedding_dim": 3}', "'feature_configs' is a list"),
    ('{"feature_configs[9].id_feature.embedding_dim": 3}', "has 4 elements, there is no [9]"),
    ('{"feature_configs[7:9].id_feature.embedding_dim": 3}', "no element of 'feature_configs' (4 in all)"),
    ('{"feature_configs[id_feature.feature_name=user_idd].id_feature.embedding_dim": 3}',
     "has id_feature.feature_name 'user_idd'; did you mean 'user_id'?"),
    ('{"feature_configs[id_feature.feature_nam=user_id].id_feature.embedding_dim": 3}',
     "no field 'feature_nam'; did you mean 'feature_name'?"),
    ('{"feature_configs[id_feature.feature_name>a].id_feature.embedding_dim": 3}', "text can only be compared with ="),
    ('{"feature_configs[x].id_feature.embedding_dim": 3}', "[x] selects nothing"),
    ('{"data_config[0].batch_size": 3}', "'data_config' is not a list"),
    ('{"data_config.batch_size.x": 3}', "'batch_size' has no fields inside"),
    ('{"model_config.dcn_v2.cross.cross_num": 3}', "'dcn_v2' is not the model that is chosen, 'deepfm' is"),
    ('{"a b": 3}', "'a b' is not a field name"),
    ('{"model_config.deepfm.final": "hidden_units: [3"}', "expected ',' or ']'"),
    ('{"model_config.deepfm.final": "hiden_units: 3"}', "MLP has no field 'hiden_units'; did you mean 'hidden_units'?"),
    ('{"data_config.batch_size;data_config.num_workers": "8"}', "holds 2 paths, but '8' holds 1"),
    ('{"model_dir": null}', "null is no value"),
]  # fmt: skip


@pytest.mark.parametrize(("edit", "words"), WRONG)
def test_wrong_edits_say_what_and_change_nothing(config, edit, words):
    before = config.SerializeToString(deterministic=True)
    with pytest.raises(ConfigError) as caught:
        edit_config(config, edit)
    assert words in str(caught.value)
    if "dcn_v2" not in edit and "num_stepz" not in edit:
        assert config.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    ("edit", "path", "value"),
    [
        ("data_config.batch_size=128", "data_config.batch_size", 128),
        ("model_dir=a=b", "model_dir", "a=b"),
        ("model_dir=", "model_dir", ""),
        ("feature_configs[id_feature.feature_name=user_id].id_feature.embedding_dim=4",
         "feature_configs[0].id_feature.embedding_dim", 4),
        ("model_config.deepfm.deep={hidden_units: [2]}", "model_config.deepfm.deep.hidden_units", [2]),
        ("eval_config={}", "HasField('eval_config')", True),
    ],
)  # fmt: skip
def test_set(config, edit, path, value):
    set_config(config, [edit])
    assert get(config, path) == value


def test_set_without_value(config):
    with pytest.raises(ConfigError, match="sets nothing: write path=value"):
        set_config(config, ["data_config.batch_size"])


def test_prepare_applies_flags_then_json_then_set_and_names_them(tmp_path):
    path = tmp_path / "a.config"
    path.write_text(DEEPFM)
    pipeline = prepare(
        path,
        model_dir="flag",
        train_input_path="x.parquet",
        eval_input_path="",
        fine_tune_checkpoint="old",
        edit_config_json='{"model_dir": "json", "data_config.batch_size": 1}',
        edits=["data_config.batch_size=2"],
    )
    assert pipeline.config.model_dir == "json"
    assert pipeline.config.data_config.batch_size == 2
    assert pipeline.config.train_config.fine_tune_checkpoint == "old"
    assert pipeline.config.train_input_path == "x.parquet"
    assert pipeline.config.eval_input_path == ""
    assert pipeline.source.position("data_config.batch_size") == "--set"
    assert pipeline.source.position("model_dir") == "--edit_config_json"
    assert pipeline.source.position("train_input_path") == "--train_input_path"
    assert pipeline.source.position("data_config.label_fields[0]") == f"{path}:21"


def test_prepare_reports_wrong_edits_together_with_the_rest(tmp_path):
    path = tmp_path / "a.config"
    path.write_text(DEEPFM.replace("num_epochs: 1", ""))
    with pytest.raises(ConfigError) as caught:
        prepare(path, edits=["data_config.batchsize=2", "data_config.num_workers=x"],
                edit_config_json="{x}")  # fmt: skip
    text = str(caught.value)
    assert "--set: data_config.batchsize: DataConfig has no field 'batchsize'" in text
    assert "--set: data_config.num_workers: must be an integer, not x" in text
    assert "--edit_config_json: not JSON" in text
    assert "train_config.num_epochs: is missing" in text
