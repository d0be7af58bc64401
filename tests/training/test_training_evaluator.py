"""Evaluation: how much is read, what is said meanwhile, what is left behind, its results file."""

import json
import logging

import fsspec
import pytest
import torch
from test_training_trainer import _trainer

from tzrec.batch import BASE_DATA_GROUP
from tzrec.optim.ema import DenseEma
from tzrec.protos.eval_pb2 import EvalConfig
from tzrec.training.evaluator import record_result, run_evaluation
from tzrec.training.location import location


def _evaluated(trainer, **options):
    """Runs an evaluation; returns the prices of the batches and the weight they were seen with."""
    seen = []
    model = trainer.base_model

    def update(predictions, batch, losses):
        prices = batch.dense_features[BASE_DATA_GROUP]["price"]
        seen.append((prices[0].item(), model.w.item()))

    model.update_metric = update
    model.compute_metric = lambda: {"b": torch.tensor(0.5), "a": torch.tensor(2)}
    model.metric_half_widths = dict
    device = torch.device("cpu")
    metrics = run_evaluation(trainer.model, trainer.loader, device=device, **options)
    assert list(metrics.items()) == [("a", 2.0), ("b", 0.5)]
    return seen


@pytest.mark.parametrize(("num_steps", "read"), [(0, 3), (1, 1), (2, 2), (9, 3)])
def test_num_steps_bounds_what_is_read(num_steps, read):
    config = EvalConfig(num_steps=num_steps)
    seen = _evaluated(_trainer([]), eval_config=config)
    assert [price for price, _ in seen] == [1.0, 2.0, 3.0][:read]


@pytest.mark.parametrize(
    ("every", "num_steps", "said"),
    [
        (1, 0, ["1/5", "2/5", "3/5", "4/5", "5/5"]),
        (2, 0, ["2/5", "4/5"]),
        (10, 0, []),
        (1, 2, ["1/2", "2/2"]),
        (3, 9, ["3/5"]),
    ],
)
def test_a_line_at_every_few_batches(monkeypatch, caplog, every, num_steps, said):
    clock = [0.0]

    def monotonic():
        clock[0] += 2.0
        return clock[0]

    monkeypatch.setattr("tzrec.training.evaluator.time.monotonic", monotonic)
    caplog.set_level(logging.INFO, logger="tzrec")
    trainer = _trainer([], values=(1.0,) * 5)
    config = EvalConfig(log_step_count_steps=every, num_steps=num_steps)
    _evaluated(trainer, eval_config=config)
    assert [r.message for r in caplog.records] == [f"evaluated {n} batches" for n in said]


def test_at_most_one_line_a_second(caplog):
    caplog.set_level(logging.INFO, logger="tzrec")
    _evaluated(_trainer([], values=(1.0,) * 5), eval_config=EvalConfig(log_step_count_steps=1))
    assert not caplog.records


def test_averages_are_used_and_the_weights_come_back():
    trainer = _trainer([])
    weight = trainer.base_model.w
    ema = DenseEma({"model.w": weight}, 0.5)
    ema.update()
    weight.data.fill_(3.0)
    ema.update()
    seen = _evaluated(trainer, ema=ema)
    assert {value for _, value in seen} == {2.0}
    assert weight.item() == 3.0
    assert {value for _, value in _evaluated(trainer)} == {3.0}


def test_mode_and_random_state_come_back():
    trainer = _trainer([])
    trainer.model.train()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    _evaluated(trainer)
    assert trainer.model.training
    assert torch.rand(1) == expected


def test_mode_and_weights_come_back_after_an_error():
    trainer = _trainer([])
    ema = DenseEma({"model.w": trainer.base_model.w}, 0.5)
    ema.update()
    trainer.base_model.w.data.fill_(3.0)
    trainer.model.train()
    with pytest.raises(AttributeError):
        run_evaluation(trainer.model, trainer.loader, device=torch.device("cpu"), ema=ema)
    assert trainer.model.training
    assert trainer.base_model.w.item() == 3.0


@pytest.mark.parametrize("run", ["local", "memory://evaluator/run"])
def test_results_are_appended(run, tmp_path):
    directory = location(tmp_path / run if run == "local" else run)
    path = directory / "eval_result.txt"
    record_result(path, 4, {"b": 0.5, "a": 0.25})
    record_result(path, None, {"a": 1.0})
    with fsspec.open(str(path), "rt") as file:
        lines = file.read().splitlines()
    assert [list(json.loads(line).items()) for line in lines] == [
        [("global_step", 4), ("a", 0.25), ("b", 0.5)],
        [("global_step", None), ("a", 1.0)],
    ]


def test_confidence_intervals_are_told_beside_the_metrics(caplog):
    caplog.set_level(logging.INFO, logger="tzrec")
    trainer = _trainer([])
    model = trainer.base_model
    model.update_metric = lambda *_: None
    model.compute_metric = lambda: {"auc": torch.tensor(0.75), "loss": torch.tensor(0.5)}
    model.metric_half_widths = lambda: {"auc": 0.01234}
    metrics = run_evaluation(trainer.model, trainer.loader, device=torch.device("cpu"))
    assert metrics == {"auc": 0.75, "loss": 0.5}
    (line,) = [record.message for record in caplog.records]
    assert line.startswith("95% confidence")
    assert line.endswith("auc ±0.012340")
