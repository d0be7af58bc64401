"""A loss, gradient or weight that is not finite: who is named, what stays untouched."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from test_training_trainer import _Loader, _Optimizer, _trainer, _Wrapper
from torch import nn

from tzrec.batch import BASE_DATA_GROUP, Batch, JaggedTensor, KeyedJaggedTensor, KeyedTensor
from tzrec.errors import TrainingError
from tzrec.main import train_and_evaluate
from tzrec.protos.export_pb2 import ExportConfig
from tzrec.protos.train_pb2 import TrainConfig
from tzrec.training.checkpoint.find import list_checkpoints, read_results
from tzrec.training.hooks.base import Hook
from tzrec.training.hooks.checkpoint import CheckpointHook
from tzrec.training.hooks.nonfinite import NonFiniteGuard
from tzrec.training.hooks.nonfinite_cause import cause_in_batch
from tzrec.training.trainer import Trainer

NAN, INF = math.nan, math.inf
ORIGIN = (["a.parquet", "b.parquet"], np.array([0, 1]), np.array([700, 3]))
NAMED = r"b.parquet: row 3 \(counted from 0\)"


def after(*values):
    """The weight after these batches: d/dw mean(x w) = mean(x), rows are (value, 1)."""
    return 1.0 - 0.1 * sum((value + 1) / 2 for value in values)


def test_steps_are_left_out_and_counted(caplog):
    guard = NonFiniteGuard(2)
    trainer = _trainer([guard], values=(1.0, NAN, 2.0, INF, 3.0), num_epochs=1)
    trainer.fit()
    assert guard.num_skipped == 2
    assert trainer.base_model.w.item() == pytest.approx(after(1, 2, 3))
    # The steps count, and so do their rows.
    assert trainer.state.step == 5
    assert trainer.optimizer.schedulers[0].steps == 5
    assert [r.message.partition(";")[0] for r in caplog.records] == [
        "l2_loss is nan at step 1",
        "l2_loss is inf at step 3",
    ]
    assert "step left out (2 of 2)" in caplog.text


def test_one_step_too_many(caplog):
    guard = NonFiniteGuard(1)
    trainer = _trainer([guard], values=(1.0, NAN, NAN), num_epochs=1)
    with pytest.raises(TrainingError, match=r"at step 2.*1 steps were left out before"):
        trainer.fit()
    assert trainer.base_model.w.item() == pytest.approx(after(1))


def test_the_count_survives_a_restart():
    guard = NonFiniteGuard(1)
    _trainer([guard], values=(NAN,), num_epochs=1).fit()
    again = NonFiniteGuard(1)
    again.load_state_dict(guard.state_dict())
    with pytest.raises(TrainingError):
        _trainer([again], values=(NAN,), num_epochs=1).fit()


def test_hooks_know_which_steps_were_left_out():
    seen = []

    class See(Hook):
        def after_step(self, trainer, result):
            seen.append(result.skipped)

    _trainer([NonFiniteGuard(1), See()], values=(1.0, NAN), num_epochs=1).fit()
    assert seen == [False, True]


class _Normed(_Wrapper):
    """Batch norm before the weight."""

    def __init__(self):
        super().__init__()
        self.model.norm = nn.BatchNorm1d(1)

    def forward(self, batch):
        x = self.model.norm(batch.dense_features[BASE_DATA_GROUP]["price"])
        loss = (x * self.model.w).mean()
        return loss, ({"l2_loss": loss.detach()}, {"y": x[:, 0]}, batch)


def _fit(model, values, guard, optimizer=None):
    trainer = Trainer(
        model,
        optimizer or _Optimizer(model),
        loader=_Loader(values),
        hooks=[guard],
        num_epochs=1,
    )
    trainer.fit()
    return trainer


def test_batch_norm_forgets_the_step():
    clean, dirty = _Normed(), _Normed()
    _fit(clean, (1.0, 2.0), NonFiniteGuard(1))
    _fit(dirty, (1.0, NAN, 2.0), NonFiniteGuard(1))
    expected, found = clean.state_dict(), dirty.state_dict()
    assert int(found["model.norm.num_batches_tracked"]) == 2
    for key, value in expected.items():
        assert torch.equal(value, found[key]), key


class _Root(_Wrapper):
    """A loss whose gradient is infinite where it is 0."""

    def forward(self, batch):
        x = batch.dense_features[BASE_DATA_GROUP]["price"]
        loss = (x[:1] * self.model.w).sqrt().mean()
        return loss, ({"l2_loss": loss.detach()}, {"y": x[:, 0]}, batch)


def test_a_gradient_that_is_not_finite_shows_in_the_next_step():
    said = "l2_loss is nan at step 2; parameter w is not finite: an update before this step"
    with pytest.raises(TrainingError, match=said):
        _fit(_Root(), (1.0, 0.0, 1.0), NonFiniteGuard())


def test_steps_with_such_a_gradient_are_left_out(caplog):
    model, guard = _Root(), NonFiniteGuard(1)
    _fit(model, (0.0, 1.0), guard)
    assert guard.num_skipped == 1
    assert model.model.w.item() == pytest.approx(1 - 0.1 * 0.5)
    assert "gradient of parameter w" in caplog.text
    with pytest.raises(TrainingError, match="the gradient of parameter w is not finite at step 1"):
        _fit(_Root(), (0.0, 0.0), NonFiniteGuard(1))


def test_under_a_scaler_gradients_may_overflow_but_not_for_ever():
    class Scaled(_Optimizer):
        num_overflows = 0

        def step(self):
            self.num_overflows += self.overflow

    model = _Root()
    optimizer = Scaled(model)
    optimizer.overflow = False
    _fit(model, (0.0,) * 101, NonFiniteGuard(scaled=True), optimizer)
    optimizer.overflow = True
    _fit(model, (0.0,) * 99, NonFiniteGuard(scaled=True), optimizer)
    with pytest.raises(TrainingError, match="in 100 updates in a row"):
        _fit(model, (0.0,) * 100, NonFiniteGuard(scaled=True), optimizer)


class _Poison(Hook):
    """Makes a weight nan after a step."""

    def __init__(self, step):
        self._step = step

    def after_step(self, trainer, result):
        if trainer.state.last_step == self._step:
            with torch.no_grad():
                trainer.base_model.w.fill_(NAN)


def test_bad_weights_are_not_saved(tmp_path):
    config = TrainConfig(save_checkpoints_steps=1)
    save = CheckpointHook(tmp_path, config, export_config=ExportConfig(), evaluate=None)
    trainer = _trainer(
        [NonFiniteGuard(), _Poison(2), save], values=(1.0, 2.0, 3.0, 4.0), num_epochs=1
    )
    with pytest.raises(TrainingError, match="parameter w is not finite after step 2: nothing"):
        trainer.fit()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["model.ckpt-1"]


def jagged(values, lengths):
    return JaggedTensor(torch.tensor(values), lengths=torch.tensor(lengths))


BATCHES = {
    "the input of feature price": Batch(
        dense_features={
            BASE_DATA_GROUP: KeyedTensor(
                ["age", "price"], [1, 2], torch.tensor([[1.0, 1, 1], [1, 1, INF]])
            )
        }
    ),
    "the input of feature click__price": Batch(
        sequence_dense_features={"click__price": jagged([[1.0], [2.0], [NAN]], [2, 1])}
    ),
    "the weights of feature tags": Batch(
        sparse_features={
            BASE_DATA_GROUP: KeyedJaggedTensor(
                ["user", "tags"],
                torch.tensor([1, 2, 3, 4, 5]),
                weights=torch.tensor([1, 1, 1, 1, NAN]),
                lengths=torch.tensor([1, 1, 2, 1]),
            )
        }
    ),
    "column clk": Batch(labels={"clk": torch.tensor([1.0, NAN])}),
    "column weight": Batch(sample_weights={"weight": torch.tensor([1.0, INF])}),
    "column ids": Batch(jagged_labels={"ids": jagged([1.0, NAN], [1, 1])}),
}


@pytest.mark.parametrize("what", BATCHES)
def test_the_cause_names_column_file_and_row(what):
    batch = BATCHES[what]
    assert cause_in_batch(batch) == f"{what} is not finite (1 of 2 rows, the first is row 1)"
    batch.row_origin = ORIGIN
    said = cause_in_batch(batch.to(torch.device("cpu")))
    assert said.endswith(f"the first is {NAMED.replace(chr(92), '')})")


def test_a_finite_batch_is_no_cause():
    labels = {"clk": torch.tensor([1, 0]), "value": torch.tensor([1.0, 0.0])}
    assert cause_in_batch(Batch(labels=labels)) is None
    assert cause_in_batch(Batch(labels={"clk": torch.zeros(0)})) is None


def with_nan(table, column, row):
    values = table[column].to_numpy().astype(np.float32)
    values[row] = NAN
    return table.set_column(table.column_names.index(column), column, pa.array(values))


def spoil(tmp_path, *rows):
    table = pq.read_table(tmp_path / "train.parquet")
    for row in rows:
        table = with_nan(table, "price", row)
    pq.write_table(table, tmp_path / "train.parquet", row_group_size=300)


ONE_PASS = ["train_config.num_epochs=1"]


def test_a_run_names_file_and_row(click_config, tmp_path):
    config = click_config()
    spoil(tmp_path, 700)
    with pytest.raises(TrainingError) as caught:
        train_and_evaluate(str(config), edits=ONE_PASS)
    said = str(caught.value)
    assert "binary_cross_entropy is nan" in said
    assert "feature price is not finite (1 of 64 rows" in said
    assert f"{tmp_path}/train.parquet: row 700 (counted from 0)" in said


def test_a_run_goes_on_without_two_steps(click_config, tmp_path, caplog):
    caplog.set_level("INFO", logger="tzrec")
    config = click_config(shuffle=False)
    spoil(tmp_path, 70, 700)
    edits = [*ONE_PASS, "train_config.max_non_finite_steps=2"]
    edits += ["train_config.gradient_accumulation_steps=3"]
    train_and_evaluate(str(config), edits=edits)
    assert read_results(tmp_path / "run")[-1]["global_step"] == 15
    assert "2 steps were left out, a loss or gradient was not finite" in caplog.records[-2].message


def poison_table(model):
    for name, table in model.named_parameters():
        if "user_id" in name:
            table.data[7:] = NAN


def overflow_in_a_layer(model):
    layer = model.get_submodule("final_mlp")
    layer.register_forward_hook(lambda module, inputs, output: output * INF)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (poison_table, r"parameter \S*user_id\S* is not finite \(row 7 of 40\)"),
        (overflow_in_a_layer, "inputs and parameters are finite, the output of final_mlp is not"),
    ],
)
def test_tables_and_layers_are_named(click_config, monkeypatch, change, said):
    """A row that was not finite before the step; the layer, where nothing else is."""
    call = Trainer._call

    def change_in_time(trainer, method, *args):
        if method == "before_forward" and trainer.state.step == 2:
            change(trainer.base_model)
        return call(trainer, method, *args)

    monkeypatch.setattr(Trainer, "_call", change_in_time)
    with pytest.raises(TrainingError, match=said):
        train_and_evaluate(str(click_config()), edits=ONE_PASS)


def test_a_gradient_that_waits_is_not_saved(click_config, tmp_path, monkeypatch):
    """The loss and all weights are finite; the update that comes after the save is not."""
    call = Trainer._call

    def spoil_backward(trainer, method, *args):
        if method == "before_forward" and trainer.state.step == 4:
            layer = trainer.base_model.get_submodule("final_mlp")
            layer.register_full_backward_hook(
                lambda module, inputs, outputs: tuple(gradient * INF for gradient in inputs)
            )
        return call(trainer, method, *args)

    monkeypatch.setattr(Trainer, "_call", spoil_backward)
    edits = [*ONE_PASS, "train_config.gradient_accumulation_steps=6"]
    edits += ["train_config.save_checkpoints_steps=2"]
    with pytest.raises(TrainingError, match=r"accumulated gradient of \S+ .*is not finite after"):
        train_and_evaluate(str(click_config()), edits=edits)
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["model.ckpt-2"]


def test_no_table_moves_in_a_step_that_is_left_out(click_config, tmp_path, monkeypatch):
    """The gradient becomes infinite on its way to the tables, after the dense ones were fine."""
    call, seen = Trainer._call, {}

    def state(trainer):
        whole = trainer.model.state_dict() | trainer.optimizer.state_dict()["state"]
        return {key: value for key, value in _flat(whole) if isinstance(value, torch.Tensor)}

    def watch(trainer, method, *args):
        if method == "before_forward" and trainer.state.step == 2:
            seen["before"] = {key: value.clone() for key, value in state(trainer).items()}
            layer = trainer.base_model.get_submodule("final_mlp")
            seen["hook"] = layer.register_full_backward_hook(
                lambda module, inputs, outputs: tuple(gradient * INF for gradient in inputs)
            )
        if method == "after_step" and trainer.state.step == 3:
            seen["hook"].remove()
            seen["after"] = {key: value.clone() for key, value in state(trainer).items()}
        return call(trainer, method, *args)

    monkeypatch.setattr(Trainer, "_call", watch)
    edits = [*ONE_PASS, "train_config.max_non_finite_steps=1", "train_config.num_epochs=1"]
    train_and_evaluate(str(click_config()), edits=edits)
    assert any("user_id" in key for key in seen["before"])
    for key, value in seen["before"].items():
        assert torch.equal(value, seen["after"][key]), key
    assert read_results(tmp_path / "run")[-1]["auc"] > 0.5


def _flat(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
