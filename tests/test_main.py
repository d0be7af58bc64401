"""The life of a model through the public functions: train, resume, evaluate, export, predict."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys

from tzrec.deploy.options import INTERFACE_DEFAULTS, Asked
from tzrec.errors import CheckpointError, ConfigError, Unsupported
from tzrec.main import evaluate, export, predict, predict_checkpoint, train_and_evaluate
from tzrec.training.checkpoint.find import list_checkpoints, read_results

SPARSE = ["adagrad_optimizer", "rowwise_adagrad_optimizer", "sgd_optimizer", "adam_optimizer"]


def _weights(checkpoint):
    return _load_state_dict_from_keys(checkpoint_id=str(checkpoint / "model"))


def _last(run):
    return list_checkpoints(run)[-1]


@pytest.fixture
def trained(click_config, tmp_path):
    config = click_config()
    train_and_evaluate(str(config))
    return config, tmp_path / "run"


def test_a_run_leaves_what_the_interface_promises(trained):
    _, run = trained
    # 1000 rows / 64 = 16 steps a pass, two passes, saved every 5 steps and at the end.
    assert [int(p.name.split("-")[1]) for p in list_checkpoints(run)] == [5, 10, 15, 20, 25, 30, 31]
    assert (run / "pipeline.config").exists()
    assert (run / "version").read_text().strip()
    results = read_results(run)
    assert [r["global_step"] for r in results] == [5, 10, 15, 20, 25, 30, 31]
    assert set(results[-1]) == {"global_step", "auc", "binary_cross_entropy"}
    assert results[-1]["auc"] > 0.7
    assert results[-1]["binary_cross_entropy"] < results[0]["binary_cross_entropy"]
    keys = dcp.FileSystemReader(str(_last(run) / "model")).read_metadata().state_dict_metadata
    assert all(key.startswith("model.") for key in keys)
    assert "model.embedding_group.emb_impls.__BASE__.ebc.embedding_bags.user_id_emb.weight" in keys


def test_eval_agrees_with_the_evaluation_in_training(trained):
    config, run = trained
    metrics = evaluate(str(config))
    in_training = read_results(run)[-1]
    for key in ("auc", "binary_cross_entropy"):
        assert metrics[key] == pytest.approx(in_training[key], abs=1e-6)
    line = json.loads((run / "eval_result.txt").read_text().splitlines()[-1])
    assert line["global_step"] == 31
    best = evaluate(str(config), checkpoint_path="best")
    assert best["auc"] == pytest.approx(max(r["auc"] for r in read_results(run)), abs=1e-6)


def test_a_checkpoint_of_another_run_can_be_evaluated(trained, tmp_path):
    config, run = trained
    edits = [f"model_dir={tmp_path}/elsewhere"]
    metrics = evaluate(str(config), checkpoint_path=str(run), edits=edits)
    assert metrics == pytest.approx(evaluate(str(config)))
    line = json.loads((tmp_path / "elsewhere" / "eval_result.txt").read_text())
    assert line["global_step"] is None


def test_exported_equals_checkpoint_row_by_row(trained, tmp_path):
    config, _ = trained
    export(str(config), str(tmp_path / "export"))
    assert (tmp_path / "export" / "scripted_model.pt").exists()
    with pytest.raises(Exception, match="exist"):
        export(str(config), str(tmp_path / "export"))
    source = tmp_path / "eval.parquet"
    predict(
        str(source),
        str(tmp_path / "scripted"),
        str(tmp_path / "export"),
        reserved_columns="row,clk",
        output_columns="probs",
        batch_size=33,
    )
    predict_checkpoint(
        str(config), str(source), str(tmp_path / "eager"), reserved_columns="row,clk"
    )
    scripted = pq.read_table(tmp_path / "scripted" / "part-0.parquet")
    eager = pq.read_table(tmp_path / "eager" / "part-0.parquet")
    assert scripted.column_names == ["probs", "row", "clk"]
    assert eager.column_names == ["logits", "probs", "row", "clk"]
    assert scripted["row"].to_pylist() == list(range(500))
    assert scripted["clk"].to_pylist() == pq.read_table(source)["clk"].to_pylist()
    np.testing.assert_allclose(scripted["probs"], eager["probs"], atol=1e-6)


def test_the_export_computes_in_the_precision_of_export_config(trained, tmp_path, caplog):
    config, _ = trained
    probs = {}
    for precision in ("", "BF16"):
        target = tmp_path / f"export{precision}"
        edits = [f"export_config.mixed_precision={precision}"] if precision else []
        export(str(config), str(target), edits=edits)
        manifest = json.loads((target / "manifest.json").read_text())
        assert manifest["options"]["mixed_precision"] == precision
        output = str(tmp_path / f"out{precision}")
        predict(str(tmp_path / "eval.parquet"), output, str(target), output_columns="probs")
        probs[precision] = pq.read_table(f"{output}/part-0.parquet")["probs"].to_numpy()
    assert "the export computes in BF16, the model was trained in FP32" in caplog.text
    difference = np.abs(probs[""] - probs["BF16"]).max()
    assert 0 < difference < 0.05


def test_the_options_of_an_export(trained, tmp_path, monkeypatch, caplog):
    """Flags, environment and defaults reach the artefact, and what is not here is refused."""
    config, _ = trained
    source = str(tmp_path / "eval.parquet")
    wanted = {
        "default": ({}, {"defaults": INTERFACE_DEFAULTS}, "INT8", "INT8"),
        "environment": ({"QUANT_EMB": "0"}, {"defaults": INTERFACE_DEFAULTS}, "", "0"),
        "flag": ({"QUANT_EMB": "1"}, {"asked": Asked(quantisation="INT4")}, "INT4", "INT4"),
    }
    probs = {}
    for name, (environment, arguments, kind, said) in wanted.items():
        with monkeypatch.context() as patch:
            for variable, text in environment.items():
                patch.setenv(variable, text)
            path = export(str(config), str(tmp_path / name), **arguments)
        manifest = json.loads((path / "manifest.json").read_text())
        assert manifest["options"]["quantisation"] == kind
        assert json.loads((path / "model_acc.json").read_text())["QUANT_EMB"] == said
        predict(source, str(tmp_path / f"out_{name}"), str(path), output_columns="probs")
        probs[name] = pq.read_table(tmp_path / f"out_{name}" / "part-0.parquet")["probs"].to_numpy()
    assert "export: quantisation INT8 (default of the command)" in caplog.text
    gaps = [np.abs(probs[name] - probs["environment"]).max() for name in ("default", "flag")]
    assert 1e-6 < gaps[0] < gaps[1] < 0.2
    monkeypatch.setenv("ENABLE_TRT", "1")
    with pytest.raises(Unsupported, match="ENABLE_TRT=1"):
        export(str(config), str(tmp_path / "trt"))


def test_csv_output(trained, tmp_path):
    config, _ = trained
    predict_checkpoint(
        str(config),
        str(tmp_path / "eval.parquet"),
        str(tmp_path / "csv"),
        writer_type="CsvWriter",
        reserved_columns="row",
        output_columns="probs",
    )
    lines = (tmp_path / "csv" / "part-0.csv").read_text().splitlines()
    assert lines[0].replace('"', "") == "probs,row"
    assert len(lines) == 501


@pytest.mark.parametrize("sparse", SPARSE)
def test_a_stopped_and_resumed_run_equals_an_unbroken_one(click_config, tmp_path, sparse):
    config = str(click_config(sparse))
    train_and_evaluate(config, model_dir=str(tmp_path / "whole"))
    part = str(tmp_path / "part")
    # 13 steps end inside the first pass; 24 inside the second.
    for steps in (13, 24):
        limit = ["train_config.num_epochs=0", f"train_config.num_steps={steps}"]
        train_and_evaluate(config, model_dir=part, continue_train=True, edits=limit)
    train_and_evaluate(config, model_dir=part, continue_train=True)
    whole, resumed = _last(tmp_path / "whole"), _last(tmp_path / "part")
    assert whole.name == resumed.name == "model.ckpt-31"
    expected, found = _weights(whole), _weights(resumed)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.equal(value, found[key]), key
    assert read_results(tmp_path / "whole")[-1] == read_results(tmp_path / "part")[-1]


def test_same_seed_same_bits_other_seed_other_bits(click_config, tmp_path):
    config = str(click_config())
    runs = {"a": 1, "b": 1, "c": 2}
    for name, seed in runs.items():
        edits = [f"train_config.seed={seed}", "train_config.num_epochs=1"]
        train_and_evaluate(config, model_dir=str(tmp_path / name), edits=edits)
    a, b, c = (_weights(_last(tmp_path / name)) for name in runs)
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert any(not torch.equal(a[key], c[key]) for key in a)


def test_a_run_is_not_overwritten_by_accident(trained):
    config, _ = trained
    with pytest.raises(CheckpointError, match="--continue_train"):
        train_and_evaluate(str(config))


def test_a_finished_run_continued_says_so_and_changes_nothing(trained, caplog):
    config, run = trained
    before = _weights(_last(run))
    train_and_evaluate(str(config), continue_train=True)
    assert "is finished: 32 steps, 2 passes" in caplog.text
    after = _weights(_last(run))
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_fine_tune_starts_from_other_weights(trained, tmp_path):
    config, run = trained
    train_and_evaluate(
        str(config),
        model_dir=str(tmp_path / "tuned"),
        fine_tune_checkpoint=str(run),
        edits=["train_config.num_epochs=1", "train_config.dense_optimizer.adam_optimizer.lr=0"],
    )
    tuned, source = _weights(_last(tmp_path / "tuned")), _weights(_last(run))
    dense = [key for key in source if "mlp" in key and "weight" in key]
    assert dense
    assert all(torch.equal(tuned[key], source[key]) for key in dense)


def test_wrong_arguments_are_told_before_any_work(click_config, tmp_path):
    config = str(click_config())
    with pytest.raises(ConfigError, match="nothing to evaluate"):
        evaluate(config, eval_input_path="")
    with pytest.raises(ConfigError, match="did you mean 'ParquetDataset'"):
        predict_checkpoint(config, "x", str(tmp_path / "o"), dataset_type="ParquetDatset")


def test_arguments_that_do_not_fit_an_export(trained, tmp_path):
    config, _ = trained
    with pytest.raises(ConfigError, match="--item_input_path is for models with an item tower"):
        export(str(config), str(tmp_path / "e"), item_input_path="x")
    with pytest.raises(ConfigError, match="not JSON"):
        export(str(config), str(tmp_path / "e"), additional_export_config="{")
