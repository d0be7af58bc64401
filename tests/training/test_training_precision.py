"""Precision of training steps when the config says nothing: by CPU, and of the steps alone."""

import logging

import pytest
import torch
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys

from tzrec.main import evaluate, train_and_evaluate
from tzrec.models import precision as models_precision
from tzrec.protos.train_pb2 import GradScaler, TrainConfig
from tzrec.training import precision
from tzrec.training.checkpoint.find import list_checkpoints, read_results

CPU = torch.device("cpu")


def fast(monkeypatch, answer):
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device: answer)


@pytest.fixture
def run(click_config, tmp_path):
    """Returns ``run(name, edits) -> (weights, last evaluation)``."""
    config = str(click_config())

    def once(name, *edits, **flags):
        edits = ["train_config.save_checkpoints_steps=100", *edits]
        train_and_evaluate(config, model_dir=str(tmp_path / name), edits=edits, **flags)
        last = list_checkpoints(tmp_path / name)[-1]
        weights = _load_state_dict_from_keys(checkpoint_id=str(last / "model"))
        return weights, read_results(tmp_path / name)[-1]

    return once


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(("answer", "name"), [(True, "BF16"), (False, "FP32")])
def test_steps_are_those_of_the_precision_that_the_cpu_is_fast_in(run, monkeypatch, answer, name):
    fast(monkeypatch, answer)
    weights, _ = run("silent")
    other = {"BF16": "FP32", "FP32": "BF16"}[name]
    assert same(weights, run("same", f"train_config.mixed_precision={name}")[0])
    assert not same(weights, run("other", f"train_config.mixed_precision={other}")[0])
    assert {value.dtype for value in weights.values()} == {torch.float32}


STEPS_3 = ("train_config.num_epochs=0", "train_config.num_steps=3")
STEPS_6 = ("train_config.num_epochs=0", "train_config.num_steps=6")


@pytest.mark.parametrize(("began", "name"), [(True, "BF16"), (False, "FP32")])
def test_a_run_keeps_its_precision_on_another_machine(run, monkeypatch, caplog, began, name):
    """Bit by bit the run that stayed where it was."""
    fast(monkeypatch, began)
    whole, _ = run("whole", *STEPS_6)
    run("moved", *STEPS_3)
    fast(monkeypatch, not began)
    with caplog.at_level(logging.INFO, logger="tzrec"):
        moved, _ = run("moved", *STEPS_6, continue_train=True)
    assert same(moved, whole)
    (line,) = [r for r in caplog.records if r.getMessage().startswith(f"steps stay {name} as")]
    assert (line.levelname, "is slow on this CPU" in line.getMessage()) == (
        ("WARNING", True) if began else ("INFO", False)
    )


def test_fine_tuning_takes_the_precision_of_its_own_machine(run, monkeypatch, tmp_path):
    fast(monkeypatch, True)
    run("base", *STEPS_3)
    start = f"train_config.fine_tune_checkpoint={tmp_path / 'base'}"
    narrow, _ = run("narrow", *STEPS_3, start)
    fast(monkeypatch, False)
    wide, _ = run("wide", *STEPS_3, start)
    assert not same(narrow, wide)
    assert same(wide, run("said", *STEPS_3, start, "train_config.mixed_precision=FP32")[0])


def test_evaluation_stays_in_single_precision(run, monkeypatch, click_config, tmp_path):
    fast(monkeypatch, True)
    _, in_training = run("silent")
    narrow = run("narrow", "train_config.mixed_precision=BF16")[1]
    edits = [f"model_dir={tmp_path / 'silent'}", "train_config.mixed_precision=FP32"]
    wide = evaluate(str(tmp_path / "silent" / "pipeline.config"), edits=edits)
    key = "binary_cross_entropy"
    assert wide[key] == in_training[key]
    # The same weights, evaluated in BF16: another number.
    assert narrow[key] != in_training[key]


def test_the_summary_says_it_and_how_to_turn_it_off(run, monkeypatch, caplog):
    fast(monkeypatch, True)
    with caplog.at_level(logging.INFO, logger="tzrec"):
        run("silent")
    assert 'BF16 in steps (mixed_precision: "FP32" for FP32)' in caplog.text


def test_what_the_config_says_comes_first(monkeypatch):
    fast(monkeypatch, True)
    assert precision.step_precision(TrainConfig(), CPU) == "BF16"
    assert precision.step_precision(TrainConfig(mixed_precision="FP16"), CPU) == "FP16"
    assert precision.step_precision(TrainConfig(mixed_precision="FP32"), CPU) == "FP32"
    assert precision.step_precision(TrainConfig(grad_scaler=GradScaler()), CPU) == "FP32"
    assert precision.step_precision(TrainConfig(grad_scaler=GradScaler()), CPU, stored="BF16") == (
        "FP32"
    )
    assert precision.step_precision(TrainConfig(), CPU, stored="FP32") == "FP32"
    fast(monkeypatch, False)
    assert precision.step_precision(TrainConfig(), CPU) == "FP32"
    assert precision.step_precision(TrainConfig(), CPU, stored="BF16") == "BF16"
    assert precision.step_precision(TrainConfig(), CPU, stored="") == "FP32"


@pytest.mark.parametrize(
    ("found", "answer"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
        ({"avx512_f": True, "avx512_bf16": False}, False),
        ({}, False),
    ],
)
def test_fast_is_what_has_instructions_for_it(monkeypatch, found, answer):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    assert models_precision.has_fast_bfloat16(CPU) is answer
    assert not models_precision.has_fast_bfloat16(torch.device("cuda"))
