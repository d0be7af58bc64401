# ruff: noqa: E501
"""Loading: schema problems with their lines, fg_encoded, JSON, saving."""

from __future__ import annotations

import json
import logging

import pytest
from config_samples import DEEPFM, write
from google.protobuf import json_format, text_format

from tzrec.config import load_pipeline_config, prepare, save_message
from tzrec.errors import ConfigError
from tzrec.protos.data_pb2 import FG_DAG, FG_NONE, FG_NORMAL
from tzrec.protos.pipeline_pb2 import EasyRecConfig


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def load(text, name="a.config", **options):
        (tmp_path / name).write_text(text)
        return load_pipeline_config(name, **options)

    return load


SCHEMA = [
    ("data_config {\n batchsize: 3\n}", "a.config:2: data_config.batchsize: DataConfig has no field "
     "'batchsize'; did you mean 'batch_size'?"),
    ("model_config {\n deepfn {}\n}", "a.config:2: model_config.deepfn: ModelConfig has no field "
     "'deepfn'; did you mean 'deepfm'?"),
    ("data_config { fg_mode: FG_NON }", "a.config:1: data_config.fg_mode: 'FG_NON' is not a FgMode; "
     "did you mean 'FG_NONE'?"),
    ("data_config { batch_size: 1.5 }", "a.config:1: data_config.batch_size: must be an integer, not 1.5"),
    ("data_config { batch_size: -1 }", "a.config:1: data_config.batch_size: -1 is out of range, must be at least 0"),
    ('data_config { batch_size: "12" }', "a.config:1: data_config.batch_size: must be an integer, not text"),
    ("data_config { batch_size: [1, 2] }", "a.config:1: data_config.batch_size: must be an integer, not a list"),
    ("data_config { batch_size { } }", "a.config:1: data_config.batch_size: must be an integer, not a message { ... }"),
    ("data_config { with_header: yes }", "a.config:1: data_config.with_header: must be true or false, not yes"),
    ("model_dir: run", 'a.config:1: model_dir: must be text in quotes: "run"'),
    ("data_config: 3", "a.config:1: data_config: is a message: write data_config { ... }"),
    ("feature_configs { id_feature {} raw_feature {} }", "a.config:1: feature_configs[0].raw_feature: "
     "'id_feature' was already chosen in line 1, and only one feature is possible"),
    ("feature_configs { raw_feature { boundaries: [1, x] } }", "a.config:1: "
     "feature_configs[0].raw_feature.boundaries[1]: must be a number, not x"),
    ("feature_configs { raw_feature { boundaries: 1e39 } }", "a.config:1: "
     "feature_configs[0].raw_feature.boundaries[0]: 1e39 is out of range of a 32-bit float"),
    ("feature_configs { id_feature { vocab_dict { a: 1 } } }", "a.config:1: "
     'feature_configs[0].id_feature.vocab_dict: is a map: write { key: "a" value: 1 } per entry'),
    ("train_config {\n  dense_optimizer {\n    adamm_optimizer {}\n  }\n}", "a.config:3: "
     "train_config.dense_optimizer.adamm_optimizer: DenseOptimizer has no field 'adamm_optimizer'; "
     "did you mean 'adam_optimizer'?"),
    ("model_config {", "a.config:1: model_config: the '}' of 'model_config' (opened in line 1) is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "first"), SCHEMA)
def test_schema_problems(load, text, first):
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert str(caught.value).splitlines()[0] == first


def test_field_of_another_message_is_pointed_out(load):
    with pytest.raises(ConfigError, match="'hidden_units' is a field of MLP"):
        load("model_config { deepfm { hidden_units: 3 } }")


def test_all_schema_problems_at_once_in_line_order(load):
    text = "data_config {\n batchsize: 3\n with_header: x\n}\nmodel_config {\n deepfn {}\n}\n"
    with pytest.raises(ConfigError) as caught:
        load(text)
    lines = [line for line in str(caught.value).splitlines() if not line.startswith("  ")]
    assert [line.split(":")[1] for line in lines] == ["2", "3", "6"]


def test_unknown_fields_can_be_left_out_with_a_warning(load, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("tzrec"), "propagate", True)
    with caplog.at_level(logging.WARNING, logger="tzrec"):
        config = load('model_dir: "x"\nnew_part { a: 1 b { c: "d" } }', allow_unknown_field=True)
    assert config.model_dir == "x"
    assert "a.config:2: new_part" in caplog.text
    assert "left out" in caplog.text


def test_a_scalar_given_twice_warns_and_keeps_the_last(load, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("tzrec"), "propagate", True)
    with caplog.at_level(logging.WARNING, logger="tzrec"):
        assert load('model_dir: "x"\nmodel_dir: "y"').model_dir == "y"
    assert (
        "a.config:2: model_dir: given twice, before in line 1; the last one counts" in caplog.text
    )


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("fg_encoded: true", FG_NONE),
        ("fg_encoded: false", FG_DAG),  # fg_threads is 1 by default
        ("fg_encoded: false fg_threads: 4", FG_DAG),
        ("fg_encoded: false fg_threads: 0", FG_NORMAL),
        ("fg_mode: FG_NORMAL", FG_NORMAL),
        ("", FG_NONE),
    ],
)
def test_fg_encoded(load, text, mode):
    data = load(f"data_config {{ {text} }}").data_config
    assert data.fg_mode == mode
    assert not data.HasField("fg_encoded")


def test_fg_encoded_wins_over_fg_mode_with_a_warning(load, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("tzrec"), "propagate", True)
    with caplog.at_level(logging.WARNING, logger="tzrec"):
        config = load("data_config { fg_encoded: true fg_mode: FG_DAG }")
    assert config.data_config.fg_mode == FG_NONE
    assert "wins over fg_mode: FG_DAG" in caplog.text


def test_json_is_the_same_config_with_lines(load, tmp_path):
    config = load(DEEPFM)
    as_json = json_format.MessageToJson(config)
    assert load(as_json, "a.json") == config
    broken = json.loads(as_json)
    broken["dataConfig"]["batchSise"] = 3
    with pytest.raises(ConfigError) as caught:
        load(json.dumps(broken, indent=1), "a.json")
    line = json.dumps(broken, indent=1).splitlines().index('  "batchSise": 3') + 1
    assert str(caught.value).startswith(f"a.json:{line}: data_config.batchSise: ")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("b.config", "config file 'b.config' does not exist; did you mean 'a.config'?"),
        ("folder", "config file 'folder' is a folder"),
        ("binary.config", "is not UTF-8 text"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, monkeypatch, name, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.config").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary.config").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError) as caught:
        load_pipeline_config(name)
    assert words in str(caught.value)


def test_save_and_load_are_inverse(tmp_path):
    pipeline = prepare(write(tmp_path / "a.config", DEEPFM))
    save_message(pipeline.config, tmp_path / "new" / "b.config")
    text = (tmp_path / "new" / "b.config").read_text()
    assert load_pipeline_config(tmp_path / "new" / "b.config") == pipeline.config
    assert text_format.Merge(text, EasyRecConfig()) == pipeline.config
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new" / "b.config"]


def test_config_from_another_file_system(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open("memory://configs/a.config", "w") as stream:
        stream.write('model_dir: "x"')
    assert load_pipeline_config("memory://configs/a.config").model_dir == "x"
