"""The flags of the interface, frozen, and how they reach tzrec.main."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tzrec.eval
import tzrec.export
import tzrec.predict
import tzrec.train_eval
from tzrec.cli import main
from tzrec.deploy.options import Asked

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "config"))
from config_samples import DEEPFM, write

FLAGS = {
    tzrec.train_eval: {
        "--pipeline_config_path",
        "--model_dir",
        "--train_input_path",
        "--eval_input_path",
        "--continue_train",
        "--fine_tune_checkpoint",
        "--edit_config_json",
        "--ignore_restore_optimizer",
    },
    tzrec.eval: {
        "--pipeline_config_path",
        "--checkpoint_path",
        "--eval_input_path",
        "--eval_result_filename",
    },
    tzrec.export: {
        "--pipeline_config_path",
        "--checkpoint_path",
        "--export_dir",
        "--asset_files",
        "--additional_export_config",
        "--item_input_path",
    },
    tzrec.predict: {
        "--scripted_model_path",
        "--pipeline_config_path",
        "--checkpoint_path",
        "--predict_input_path",
        "--predict_output_path",
        "--reserved_columns",
        "--output_columns",
        "--batch_size",
        "--predict_threads",
        "--is_profiling",
        "--debug_level",
        "--dataset_type",
        "--writer_type",
        "--edit_config_json",
        "--predict_steps",
    },
}


@pytest.mark.parametrize("module", FLAGS, ids=lambda module: module.__name__)
def test_flags_are_exactly_those_of_the_interface(module):
    flags = {flag for action in module.parser()._actions for flag in action.option_strings}
    assert flags - {"-h", "--help"} == FLAGS[module]


@pytest.mark.parametrize("module", FLAGS, ids=lambda module: module.__name__)
def test_unknown_flags_are_errors(module, capsys):
    assert module.main(["--pipeline_config_pth", "x"]) == 2
    assert "unknown flag --pipeline_config_pth; did you mean '--pipeline_config_path'?" in (
        capsys.readouterr().err
    )


def test_no_arguments(capsys):
    assert tzrec.train_eval.main([]) == 2
    assert "required: --pipeline_config_path" in capsys.readouterr().err


@pytest.fixture
def calls(monkeypatch):
    """Stands in for tzrec.main and records what reaches it."""
    found = []
    fake = types.ModuleType("tzrec.main")
    for name in ("train_and_evaluate", "evaluate", "export", "predict", "predict_checkpoint"):

        def record(*args, name=name, **kwargs):
            kwargs = {key: value for key, value in kwargs.items() if value not in (None, (), [])}
            found.append((name, args, kwargs))

        setattr(fake, name, record)
    monkeypatch.setitem(sys.modules, "tzrec.main", fake)
    monkeypatch.setattr(sys.modules["tzrec"], "main", fake, raising=False)
    return found


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "c.config", DEEPFM)
    (tmp_path / "data").mkdir()
    columns = {"user_id": [1], "item_id": [2], "price": [1], "age": [0.5], "clk": [1]}
    for name in ("t.parquet", "e.parquet", "data/train-0.parquet", "data/eval.parquet"):
        pq.write_table(pa.table(columns), name)
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "scripted_model.pt").write_bytes(b"")
    return "c.config"


TRAIN = {
    "continue_train": True,
    "ignore_restore_optimizer": True,
    "model_dir": "m",
    "train_input_path": "t.parquet",
    "eval_input_path": "e.parquet",
    "fine_tune_checkpoint": "f",
    "edit_config_json": '{"data_config.batch_size": 2}',
}
TRAIN_FLAGS = [
    "--model_dir", "m", "--train_input_path", "t.parquet", "--eval_input_path", "e.parquet",
    "--continue_train", "--fine_tune_checkpoint", "f", "--ignore_restore_optimizer",
    "--edit_config_json", '{"data_config.batch_size": 2}',
]  # fmt: skip


def test_train(config, calls):
    assert tzrec.train_eval.main(["--pipeline_config_path", config, *TRAIN_FLAGS]) == 0
    assert main(["train", config, *TRAIN_FLAGS]) == 0
    assert main(["train", config, "--continue", "--set", "data_config.batch_size=9"]) == 0
    assert calls == [
        ("train_and_evaluate", (config,), TRAIN),
        ("train_and_evaluate", (config,), {**TRAIN, "report": True}),
        (
            "train_and_evaluate",
            (config,),
            {
                "continue_train": True,
                "ignore_restore_optimizer": False,
                "edits": ("data_config.batch_size=9",),
                "report": True,
            },
        ),
    ]


def test_eval(config, calls):
    flags = ["--checkpoint_path", "ck", "--eval_input_path", "e.parquet"]
    assert tzrec.eval.main(["--pipeline_config_path", config, *flags]) == 0
    assert main(["eval", config, *flags]) == 0
    expected = {
        "checkpoint_path": "ck",
        "eval_input_path": "e.parquet",
        "eval_result_filename": "eval_result.txt",
    }
    assert calls == [
        ("evaluate", (config,), expected),
        ("evaluate", (config,), {**expected, "report": True}),
    ]


def test_export(config, calls):
    flags = ["--export_dir", "x", "--checkpoint_path", "ck", "--asset_files", "a,b",
             "--additional_export_config", "{}"]  # fmt: skip
    assert tzrec.export.main(["--pipeline_config_path", config, *flags]) == 0
    assert main(["export", config, *flags]) == 0
    expected = {"checkpoint_path": "ck", "asset_files": "a,b", "additional_export_config": "{}"}
    # Only the module of the interface quantises when nobody asks for it.
    assert calls == [
        ("export", (config, "x"), {**expected, "defaults": Asked(quantisation="INT8")}),
        ("export", (config, "x"), {**expected, "asked": Asked()}),
    ]


def test_export_options(config, calls):
    flags = ["--target", "aoti", "--quantize", "FP16", "--quantize-sequence", "INT4",
             "--input-tile", "3", "--max-batch-size", "99", "--autotune",
             "--tolerance", "1e-4"]  # fmt: skip
    assert main(["export", config, "--export-dir", "x", *flags]) == 0
    asked = Asked("aoti", "FP16", "INT4", 3, max_batch_size=99, autotune=True, tolerance=1e-4)
    assert calls == [("export", (config, "x"), {"asked": asked})]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--quantize", "INT9"], "quantisation 'INT9' is not one of"),
        (["--quantize-sequence", "8"], "sequence_quantisation '8' is not one of"),
        (["--tolerance", "-1"], "export tolerance -1.0 is not a number of at least 0"),
        (["--autotune"], "autotune is for compiled exports"),
        (["--target", "onnx"], "invalid choice: 'onnx'"),
        (["--input-tile", "1"], "invalid choice: 1"),
    ],
)
def test_wrong_export_options(config, calls, capsys, flags, message):
    assert main(["export", config, "--export-dir", "x", *flags]) != 0
    assert message in capsys.readouterr().err
    assert calls == []


def test_exports_that_there_are_not(config, calls, capsys, monkeypatch):
    """Training warns about such a variable; an export that ignores it would be another one."""
    monkeypatch.setenv("ENABLE_TRT", "1")
    assert tzrec.export.main(["--pipeline_config_path", config, "--export_dir", "x"]) != 0
    assert main(["export", config, "--export-dir", "x"]) != 0
    error = capsys.readouterr().err
    assert error.count("ENABLE_TRT=1 in the environment: that kind of export comes with a") == 2
    assert calls == []


def test_predict_with_an_export(config, calls):
    flags = ["--predict_input_path", "i", "--predict_output_path", "o", "--reserved_columns", "a",
             "--output_columns", "probs", "--batch_size", "3", "--predict_threads", "2",
             "--is_profiling", "--debug_level", "1", "--dataset_type", "CsvDataset",
             "--writer_type", "CsvWriter", "--predict_steps", "4"]  # fmt: skip
    assert tzrec.predict.main(["--scripted_model_path", "export", *flags]) == 0
    assert main(["predict", "export", *flags]) == 0
    expected = {
        "is_profiling": True,
        "debug_level": 1,
        "predict_threads": 2,
        "reserved_columns": "a",
        "output_columns": "probs",
        "batch_size": 3,
        "dataset_type": "CsvDataset",
        "writer_type": "CsvWriter",
        "predict_steps": 4,
    }
    assert calls == [("predict", ("i", "o", "export"), expected)] * 2


def test_a_config_selects_checkpoint_predict_and_wins(config, calls):
    flags = ["--predict_input_path", "i", "--predict_output_path", "o", "--checkpoint_path", "ck"]
    both = ["--pipeline_config_path", config, "--scripted_model_path", "export"]
    assert tzrec.predict.main([*both, *flags]) == 0
    assert (
        main(["predict", config, "--input", "i", "--output", "o", "--checkpoint-path", "ck"]) == 0
    )
    assert calls == [("predict_checkpoint", (config, "i", "o"), {"checkpoint_path": "ck"})] * 2


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "which model?"),
        (["--scripted_model_path", "export", "--checkpoint_path", "x"], "works with a config only"),
        (["--pipeline_config_path", "c.config", "--debug_level", "1"], "an exported model only"),
        (["--scripted_model_path", "."], "holds no exported model"),
    ],
)
def test_flags_that_do_not_fit_the_way_of_predicting(config, calls, capsys, flags, words):
    required = ["--predict_input_path", "i", "--predict_output_path", "o"]
    assert tzrec.predict.main([*required, *flags]) == 2
    assert words in capsys.readouterr().err
    assert calls == []


def test_a_wrong_config_stops_before_main(config, calls, capsys):
    edit = ["--edit_config_json", '{"data_config.batch_size": 0}']
    assert tzrec.train_eval.main(["--pipeline_config_path", config, *edit]) == 2
    assert "--edit_config_json: data_config.batch_size: is 0" in capsys.readouterr().err
    assert calls == []


@pytest.mark.parametrize("start", ["tzrec.train_eval", "tzrec.eval", "train", "eval"])
def test_files_that_do_not_fit_stop_before_main(config, calls, capsys, start):
    pq.write_table(pa.table({"user_id": [1], "item_id": [2]}), "data/eval.parquet")
    if start.startswith("tzrec"):
        code = sys.modules[start].main(["--pipeline_config_path", config])
    else:
        code = main([start, config])
    assert code == 3
    err = capsys.readouterr().err
    assert "data_config.label_fields[0]: label column 'clk' is not in file 'data/eval.parq" in err
    assert "feature column 'age' is not in file 'data/eval.parquet'" in err
    assert calls == []


def test_only_the_first_process_compares_the_files(config, calls, monkeypatch):
    pq.write_table(pa.table({"user_id": [1]}), "data/eval.parquet")
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    assert main(["train", config]) == 0
    assert len(calls) == 1
