"""TensorBoard events: tags, values against NumPy, resumed, remote and failing runs."""

import logging
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest
import torch
from google.protobuf import text_format
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_training_trainer import _trainer
from torch import nn
from torchrec.optim.keyed import CombinedOptimizer

from tzrec.batch import BASE_DATA_GROUP
from tzrec.main import evaluate, train_and_evaluate
from tzrec.optim.optimizer import build_optimizer
from tzrec.protos.train_pb2 import TrainConfig
from tzrec.training.events import EventLog
from tzrec.training.hooks.tensorboard import TensorBoardHook

ALL = ("parameter", "global_gradient_norm", "gradient_norm", "gradient")
OPTIMIZERS = """
sparse_optimizer { sgd_optimizer { lr: 0.1 } constant_learning_rate {} }
dense_optimizer { sgd_optimizer { lr: 0.1 momentum: 0 } constant_learning_rate {} }
"""


def _events(directory):
    return EventAccumulator(str(directory), size_guidance={"histograms": 0}).Reload()


class _Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        self.b = nn.Parameter(torch.tensor([0.5]))

    def update_train_metric(self, predictions, batch):
        pass

    def compute_train_metric(self):
        return {"auc": torch.tensor(0.25)}

    def train_metric_state(self):
        return {}


class _Wrapper(nn.Module):
    fused_optimizer = CombinedOptimizer([])

    def __init__(self):
        super().__init__()
        self.model = _Model()

    def forward(self, batch):
        x = batch.dense_features[BASE_DATA_GROUP]["price"].mean()
        loss = x * ((self.model.a**2).sum() + 5 * self.model.b.sum())
        return loss, ({"l2_loss": loss.detach()}, {"y": torch.zeros(2)}, batch)


def _run(directory, *, more="", summaries=ALL, num_steps=3):
    train_config = text_format.Parse(OPTIMIZERS + more, TrainConfig())
    train_config.log_step_count_steps = 2
    train_config.tensorboard_summaries.extend(summaries)
    trainer = _trainer([TensorBoardHook(directory, train_config)], num_steps=num_steps)
    trainer.model = _Wrapper()
    trainer.optimizer = build_optimizer(trainer.model, train_config)
    trainer.fit()
    return trainer


def _expected(num_steps=3):
    """Returns (a, b, gradient of a, gradient of b) of each step before its update."""
    a, b = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([0.5])
    steps = []
    for price in (1.0, 2.0, 3.0)[:num_steps]:
        x = (price + 1) / 2
        steps.append((a, b, 2 * x * a, np.array([5 * x])))
        a, b = a - 0.1 * 2 * x * a, b - 0.1 * 5 * x
    return steps


def test_norms_are_those_of_the_gradients(tmp_path):
    _run(tmp_path)
    events = _events(tmp_path)
    steps = _expected()
    for tag, of in (
        ("global_gradient_norm", lambda a, b: np.sqrt((a**2).sum() + (b**2).sum())),
        ("model.a/gradient_norm", lambda a, b: np.sqrt((a**2).sum())),
        ("model.b/gradient_norm", lambda a, b: np.sqrt((b**2).sum())),
    ):
        points = events.Scalars(tag)
        assert [point.step for point in points] == [0, 2]
        for point in points:
            assert point.value == pytest.approx(of(*steps[point.step][2:]), rel=1e-5)


def test_histograms_are_those_of_gradients_and_new_parameters(tmp_path):
    _run(tmp_path)
    events = _events(tmp_path)
    steps = _expected(4)
    for tag, of in (
        ("model.a/gradient", lambda step: steps[step][2]),
        ("model.b/gradient", lambda step: steps[step][3]),
    ):
        for point in events.Histograms(tag):
            _check_histogram(point.histogram_value, of(point.step))
    points = events.Histograms("model.a")
    assert [point.step for point in points] == [0, 2]
    _check_histogram(points[0].histogram_value, steps[1][0])


def _check_histogram(found, values):
    values = np.ravel(values)
    assert found.num == values.size
    for name, value in (
        ("min", values.min()),
        ("max", values.max()),
        ("sum", values.sum()),
        ("sum_squares", (values**2).sum()),
    ):
        assert getattr(found, name) == pytest.approx(value, rel=1e-4), name
    edges = np.array(found.bucket_limit)
    counts = np.array(found.bucket)
    # Values within float error of an edge may fall on either side of it.
    slack = 1e-5 * (np.abs(edges) + 1)
    below = np.cumsum(counts)
    assert all(below <= [(values <= e).sum() for e in edges + slack])
    assert all(below >= [(values < e).sum() for e in edges - slack])


def test_gradients_are_unscaled_and_not_clipped(tmp_path):
    more = """
    grad_scaler { init_scale: 1024 }
    grad_clipping { clipping_type: "norm" max_gradient: 1e-6 }
    """
    _run(tmp_path, more=more, num_steps=1)
    (point,) = _events(tmp_path).Scalars("global_gradient_norm")
    _, _, of_a, of_b = _expected(1)[0]
    assert point.value == pytest.approx(np.sqrt((of_a**2).sum() + (of_b**2).sum()), rel=1e-5)


def test_with_accumulation_the_gradient_is_that_of_the_next_update(tmp_path):
    _run(tmp_path, more="gradient_accumulation_steps: 2", summaries=["gradient_norm"], num_steps=4)
    points = _events(tmp_path).Scalars("model.b/gradient_norm")
    # Mean gradients of prices 1 and 2, then 3 and (in the next pass) 1.
    assert [(point.step, point.value) for point in points] == [
        (1, pytest.approx(5 * 1.25)),
        (3, pytest.approx(5 * 1.5)),
    ]


@pytest.mark.parametrize(
    ("summary", "tags"),
    [
        ("loss", set()),
        ("learning_rate", set()),
        ("parameter", {"model.a", "model.b"}),
        ("global_gradient_norm", {"global_gradient_norm"}),
        ("gradient_norm", {"model.a/gradient_norm", "model.b/gradient_norm"}),
        ("gradient", {"model.a/gradient", "model.b/gradient"}),
    ],
)
def test_each_summary_adds_its_tags_to_those_that_are_always_there(tmp_path, summary, tags):
    _run(tmp_path, summaries=[summary], num_steps=1)
    found = _events(tmp_path).Tags()
    always = {"loss/l2_loss", "loss/total", "lr/g0", "metric/auc"}
    assert {*found["scalars"], *found["histograms"]} == always | tags


def test_training_does_not_notice_summaries(tmp_path):
    first = _run(tmp_path / "with", num_steps=3)
    second = _run(tmp_path / "without", summaries=(), num_steps=3)
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_sharded_table_shows_the_local_shard(tmp_path):
    train_config = TrainConfig(tensorboard_summaries=["parameter"])
    hook = TensorBoardHook(tmp_path, train_config)
    trainer = _trainer([], num_steps=1)
    rows = torch.arange(6.0).reshape(3, 2)

    class _Sharded:
        def local_shards(self):
            return [SimpleNamespace(tensor=rows)]

    class _Elsewhere:
        def local_shards(self):
            return []

    names = {"model.w": rows, "model.t": _Sharded(), "model.other": _Elsewhere()}
    trainer.model = SimpleNamespace(
        named_parameters=lambda: [(name, None) for name in names],
        state_dict=lambda: names | {"model.buffer": rows},
        model=trainer.base_model,
    )
    trainer.state.step = 1
    result = SimpleNamespace(losses={}, total_loss=torch.tensor(0.0))
    hook.after_step(trainer, result)
    hook.close()
    events = _events(tmp_path)
    assert set(events.Tags()["histograms"]) == {"model.w", "model.t/rank:0"}
    _check_histogram(events.Histograms("model.t/rank:0")[0].histogram_value, rows.numpy())


@pytest.mark.parametrize(
    "values",
    [
        torch.randn(1000, generator=torch.Generator().manual_seed(0)),
        torch.full((5,), 3.0),
        torch.randn(50, generator=torch.Generator().manual_seed(1)).half(),
        torch.tensor(-2.0),
        torch.arange(10),
    ],
    ids=["normal", "constant", "half", "scalar", "whole numbers"],
)
def test_histogram_of(values, tmp_path):
    log = EventLog(tmp_path)
    log.histogram("x", values, 3)
    log.close()
    (point,) = _events(tmp_path).Histograms("x")
    assert point.step == 3
    _check_histogram(point.histogram_value, values.double().numpy())


def test_histogram_of_a_large_table_is_that_of_some_rows(tmp_path):
    table = torch.randn(300_000, 16, generator=torch.Generator().manual_seed(0))
    log = EventLog(tmp_path)
    log.histogram("x", table, 0)
    log.close()
    found = _events(tmp_path).Histograms("x")[0].histogram_value
    assert 2**19 < found.num <= 2**20
    _check_histogram(found, table[::5].double().numpy())


def test_histogram_leaves_out_what_is_not_finite(tmp_path):
    log = EventLog(tmp_path)
    log.histogram("x", torch.tensor([1.0, float("nan"), 2.0, float("inf")]), 0)
    log.histogram("all", torch.tensor([float("nan")]), 0)
    log.histogram("none", torch.empty(0), 0)
    log.close()
    events = _events(tmp_path)
    assert events.Tags()["histograms"] == ["x"]
    _check_histogram(events.Histograms("x")[0].histogram_value, np.array([1.0, 2.0]))


def test_a_resumed_run_replaces_the_points_after_its_checkpoint(tmp_path):
    first = EventLog(tmp_path)
    for step in range(5):
        first.scalars({"loss/total": 7.0}, step)
    first.close()
    hook = TensorBoardHook(tmp_path, TrainConfig(log_step_count_steps=1))
    trainer = _trainer([hook], num_steps=4)
    trainer.state.step = 2
    trainer.fit()
    points = _events(tmp_path).Scalars("loss/total")
    assert [point.step for point in points] == [0, 1, 2, 3]
    assert [point.value == 7.0 for point in points] == [True, True, False, False]


def test_events_of_a_remote_run_are_there_after_a_flush_and_at_the_end(tmp_path):
    memory = fsspec.filesystem("memory")
    log = EventLog("memory://summaries/run")
    log.scalars({"a": 1.0}, 0)
    log.scalars({"metric/auc": 0.5}, 0, sub_dir="eval_val")
    log.flush()
    assert len(memory.glob("/summaries/run/events*")) == 1
    assert len(memory.glob("/summaries/run/eval_val/events*")) == 1
    log.scalars({"a": 2.0}, 1)
    log.close()
    memory.get("/summaries/run", str(tmp_path / "copy"), recursive=True)
    assert [point.value for point in _events(tmp_path / "copy").Scalars("a")] == [1.0, 2.0]


def test_a_write_that_fails_ends_the_log_not_the_run(tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.WARNING, logger="tzrec")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    log = EventLog(tmp_path)
    log.scalars({"a": 1.0}, 0)
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", full)
    log.scalars({"a": 1.0}, 1)
    log.scalars({"a": 1.0}, 2)
    log.histogram("b", torch.ones(2), 2)
    log.close()
    (record,) = caplog.records
    assert "no longer written" in record.message
    assert "No space left" in record.message


def test_a_store_that_cannot_be_reached_ends_the_log_not_the_run(caplog, monkeypatch):
    caplog.set_level(logging.WARNING, logger="tzrec")

    class EndpointError(Exception):
        """As of botocore: no `OSError`."""

    def unreachable(*args, **kwargs):
        raise EndpointError("no route to host")

    monkeypatch.setattr("tzrec.storage.upload_tree", unreachable)
    log = EventLog("memory://summaries/unreachable")
    for step in range(2):
        log.scalars({"a": 1.0}, step)
        log.flush()
    log.close()
    (record,) = caplog.records
    assert "no longer written: no route to host" in record.message


def test_commands_write_events_of_training_and_of_both_evaluations(click_config, tmp_path):
    config = str(click_config())
    edits = [
        "train_config.use_tensorboard=true",
        "train_config.num_epochs=0",
        "train_config.num_steps=4",
        'train_config.tensorboard_summaries=["parameter","gradient_norm"]',
    ]
    train_and_evaluate(config, edits=edits)
    run = tmp_path / "run"
    training = _events(run)
    assert {"loss/total", "lr/g0", "metric/auc"} <= set(training.Tags()["scalars"])
    assert any(tag.endswith("/gradient_norm") for tag in training.Tags()["scalars"])
    names = training.Tags()["histograms"]
    assert any("embedding_bags.user_id_emb.weight" in name for name in names)
    in_training = _events(run / "eval_val").Scalars("metric/auc")
    assert [point.step for point in in_training] == [3]

    metrics = evaluate(config, edits=edits)
    (point,) = _events(run / "eval").Scalars("metric/auc")
    assert (point.step, point.value) == (3, pytest.approx(metrics["auc"], abs=1e-6))
    # Of a checkpoint that was named the step is not known.
    evaluate(config, checkpoint_path=str(run), edits=edits)
    assert {point.step for point in _events(run / "eval").Scalars("metric/auc")} >= {0}


def test_without_tensorboard_there_are_no_events(click_config, tmp_path):
    config = str(click_config())
    edits = ["train_config.num_epochs=0", "train_config.num_steps=1"]
    train_and_evaluate(config, edits=edits)
    evaluate(config, edits=edits)
    assert not list((tmp_path / "run").rglob("events*"))
