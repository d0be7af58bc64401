"""The loop: when it stops, what it calls, what it leaves after an error."""

import math

import pytest
import torch
from torch import nn

from tzrec.batch import BASE_DATA_GROUP, Batch, KeyedTensor
from tzrec.errors import ConfigError, TrainingError
from tzrec.protos.export_pb2 import ExportConfig
from tzrec.protos.train_pb2 import EarlyStop, TrainConfig
from tzrec.training.checkpoint.find import list_checkpoints
from tzrec.training.hooks.base import Hook
from tzrec.training.hooks.checkpoint import CheckpointHook
from tzrec.training.hooks.early_stop import EarlyStopHook
from tzrec.training.hooks.nonfinite import NonFiniteGuard
from tzrec.training.trainer import Trainer


class _Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))

    def update_train_metric(self, predictions, batch):
        pass

    def compute_train_metric(self):
        return {}

    def train_metric_state(self):
        return {}


class _Wrapper(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = _Model()

    def forward(self, batch):
        x = batch.dense_features[BASE_DATA_GROUP]["price"]
        loss = (x * self.model.w).mean()
        return loss, ({"l2_loss": loss.detach()}, {"y": x[:, 0]}, batch)


class _Schedule:
    def __init__(self, by_epoch):
        self.by_epoch = by_epoch
        self.steps = 0
        self.seen = []

    def step(self):
        self.steps += 1

    def observe(self, metrics):
        self.seen.append(metrics)

    def state_dict(self):
        return {"steps": self.steps}


class _Optimizer:
    def __init__(self, model):
        self.inner = torch.optim.SGD(model.parameters(), lr=0.1)
        self.schedulers = [_Schedule(False), _Schedule(True)]

    def zero_grad(self):
        self.inner.zero_grad()

    def backward(self, loss):
        loss.backward()

    def is_finite(self):
        return all(bool(torch.isfinite(p.grad).all()) for p in self.parameters())

    def non_finite(self):
        return ["w"]

    def parameters(self):
        return self.inner.param_groups[0]["params"]

    def drop(self):
        self.inner.zero_grad()

    def step(self):
        self.inner.step()

    def learning_rates(self):
        return [0.1]

    def state_dict(self):
        return {}


class _Loader:
    num_rows = 6

    def __init__(self, values):
        self.values = values
        self.num_batches = len(values)
        self.epochs = []

    def set_epoch(self, epoch):
        self.epochs.append(epoch)

    def resume(self, position):
        raise AssertionError("nothing to resume")

    def __iter__(self):
        for i, value in enumerate(self.values):
            dense = torch.tensor([[value], [1.0]])
            kt = KeyedTensor(["price"], [1], dense)
            yield Batch(
                dense_features={BASE_DATA_GROUP: kt},
                checkpoint_info={"f": [(2 * i, 2 * i + 2)]},
            )


class _Recorder(Hook):
    def __init__(self):
        self.calls = []

    def on_train_start(self, trainer):
        self.calls.append("start")

    def after_step(self, trainer, result):
        self.calls.append(trainer.state.step)
        assert result.num_rows == 2

    def after_pass(self, trainer):
        self.calls.append("pass")

    def on_train_end(self, trainer):
        self.calls.append("end")

    def close(self):
        self.calls.append("close")


def _trainer(hooks, *, values=(1.0, 2.0, 3.0), num_steps=0, num_epochs=0):
    model = _Wrapper()
    return Trainer(
        model,
        _Optimizer(model),
        loader=_Loader(values),
        hooks=hooks,
        num_steps=num_steps,
        num_epochs=num_epochs,
    )


def test_num_steps_reads_the_data_again():
    recorder = _Recorder()
    trainer = _trainer([recorder], num_steps=5)
    trainer.fit()
    assert recorder.calls == ["start", 1, 2, 3, "pass", 4, 5, "end", "close"]
    assert trainer.loader.epochs == [0, 1]
    assert trainer.state.last_step == 4
    assert [s.steps for s in trainer.optimizer.schedulers] == [5, 1]


def test_num_epochs_and_both_limits():
    trainer = _trainer([], num_epochs=2)
    assert trainer.total_steps == 6
    trainer.fit()
    assert (trainer.state.step, trainer.state.epoch) == (6, 2)
    both = _trainer([], num_epochs=2, num_steps=4)
    assert both.total_steps == 4
    both.fit()
    assert both.state.step == 4


def test_weights_move_by_the_formula():
    trainer = _trainer([], num_epochs=1)
    trainer.fit()
    # d/dw mean(x w) = mean(x); rows are (value, 1).
    expected = 1.0 - 0.1 * sum((value + 1) / 2 for value in (1.0, 2.0, 3.0))
    assert trainer.base_model.w.item() == pytest.approx(expected)


def test_an_error_still_closes_hooks():
    recorder = _Recorder()
    trainer = _trainer([NonFiniteGuard(), recorder], values=(1.0, math.nan), num_epochs=1)
    with pytest.raises(TrainingError) as caught:
        trainer.fit()
    assert recorder.calls == ["start", 1, "close"]
    text = str(caught.value)
    assert "l2_loss is nan at step 1" in text
    assert "feature price is not finite (1 of 2 rows, the first is row 0)" in text
    assert trainer.base_model.w.item() == pytest.approx(0.9)


def test_early_stop_waits_for_patience():
    hook = EarlyStopHook(EarlyStop(metric="auc", patience=2))
    trainer = _trainer([hook], num_epochs=9)
    for value in (0.5, 0.6, 0.6):
        trainer.after_evaluation({"auc": value})
        assert trainer.stop_reason is None
    saved = hook.state_dict()
    trainer.after_evaluation({"auc": 0.59})
    assert "auc has not improved on 0.600000" in trainer.stop_reason
    resumed = EarlyStopHook(EarlyStop(metric="auc", patience=2))
    resumed.load_state_dict(saved)
    other = _trainer([resumed], num_epochs=9)
    other.after_evaluation({"auc": 0.59})
    assert other.stop_reason is not None
    assert [m["auc"] for m in trainer.optimizer.schedulers[0].seen] == [0.5, 0.6, 0.6, 0.59]


def test_early_stop_smaller_is_better_and_min_delta():
    config = EarlyStop(metric="loss", patience=1, larger_is_better=False, min_delta=0.05)
    trainer = _trainer([EarlyStopHook(config)], num_epochs=9)
    trainer.after_evaluation({"loss": 0.5})
    trainer.after_evaluation({"loss": 0.4})
    assert trainer.stop_reason is None
    trainer.after_evaluation({"loss": 0.38})
    assert trainer.stop_reason is not None


def test_early_stop_names_the_metrics_there_are():
    trainer = _trainer([EarlyStopHook(EarlyStop(metric="acu"))], num_epochs=9)
    with pytest.raises(ConfigError, match="there is auc; did you mean 'auc'"):
        trainer.after_evaluation({"auc": 0.5})


def _saved_steps(tmp_path, train_config, *, num_epochs=2, evaluate=None, export=None):
    hook = CheckpointHook(
        tmp_path, train_config, export_config=export or ExportConfig(), evaluate=evaluate
    )
    trainer = _trainer([hook], num_epochs=num_epochs)
    trainer.fit()
    return [int(p.name.split("-")[1]) for p in list_checkpoints(tmp_path)]


def test_save_cadence(tmp_path):
    assert _saved_steps(tmp_path / "a", TrainConfig(save_checkpoints_steps=2)) == [2, 4, 5]
    assert _saved_steps(tmp_path / "b", TrainConfig(save_checkpoints_steps=0)) == [5]
    assert _saved_steps(tmp_path / "c", TrainConfig(save_checkpoints_epochs=1)) == [2, 5]
    kept = TrainConfig(save_checkpoints_steps=1, keep_checkpoint_max=2)
    assert _saved_steps(tmp_path / "d", kept) == [4, 5]


def test_every_save_is_evaluated_once(tmp_path):
    steps = []

    def evaluate(trainer):
        steps.append(trainer.state.last_step)
        return {"auc": 0.5}

    _saved_steps(tmp_path, TrainConfig(save_checkpoints_steps=5), evaluate=evaluate)
    assert steps == [5]


def test_the_best_checkpoint_is_not_pruned(tmp_path):
    def evaluate(trainer):
        step = trainer.state.last_step
        with (tmp_path / "train_eval_result_v2.txt").open("a") as file:
            file.write(f'{{"global_step": {step}, "auc": {1 - step / 10}}}\n')
        return {"auc": 1 - step / 10}

    config = TrainConfig(save_checkpoints_steps=1, keep_checkpoint_max=1)
    export = ExportConfig(exporter_type="best")
    assert _saved_steps(tmp_path, config, evaluate=evaluate, export=export) == [1, 5]
