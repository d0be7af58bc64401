"""What every multi-task model must do, checked the same way for all (house style 6).

As `models_contract`, for models whose losses stand in towers. A test file makes a `MultiCase` and
runs `CHECKS`.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from models_contract import (
    Rows,
    State,
    make_batch,
    make_model,
    make_rows,
    parse,
    script,
    state_of,
    train,
)

from tzrec.models.model import BaseModel, PredictWrapper, TrainWrapper

LABELS = ("clk", "watch", "kind")
CTR = 'tower_name: "ctr" label_name: "clk" losses { binary_cross_entropy {} }'
WATCH = 'tower_name: "watch" label_name: "watch" losses { l2_loss {} }'
KIND = 'tower_name: "kind" label_name: "kind" num_class: 3 losses { softmax_cross_entropy {} }'


@dataclasses.dataclass
class MultiCase:
    """A multi-task model config and what it computes.

    Attributes:
        config: text of a ``ModelConfig`` with towers that have losses.
        oracle: (state dict, rows) → name of a prediction → logits or y, in NumPy.
        labels: label columns.
    """

    config: str
    oracle: Callable[[State, Rows], dict[str, np.ndarray]]
    labels: tuple[str, ...] = LABELS

    def model(self, seed: int = 0) -> BaseModel:
        return make_model(self.config, seed=seed, labels=self.labels)

    def rows(self, num_rows: int, seed: int = 0) -> Rows:
        rows = make_rows(num_rows, seed)
        rows["domain"] = list(np.random.default_rng(seed + 1).integers(0, 3, num_rows))
        return rows

    def batch(self, model: BaseModel, rows: Rows):
        return make_batch(model.features, rows, labels=self.labels)


def check_formula_and_keys(case: MultiCase) -> None:
    rows = case.rows(33)
    model = case.model().eval()
    found = model.predict(case.batch(model, rows))
    expected = case.oracle(state_of(model), rows)
    expected |= {
        k.replace("logits", "probs"): _probs(v) for k, v in expected.items() if "logits" in k
    }
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].shape == value.shape, name
        np.testing.assert_allclose(found[name].detach(), value, rtol=1e-4, atol=1e-5, err_msg=name)


def _probs(logits: np.ndarray) -> np.ndarray:
    if logits.ndim == 1:
        return 1 / (1 + np.exp(-logits))
    each = np.exp(logits - logits.max(1, keepdims=True))
    return each / each.sum(1, keepdims=True)


def check_every_parameter_learns(case: MultiCase) -> None:
    model = case.model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert before
    train(model, case.batch(model, case.rows(256)), steps=1)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad != 0).any(), name
        assert not torch.equal(parameter, before[name]), name


def check_overfits(case: MultiCase) -> None:
    model = case.model()
    batch = case.batch(model, case.rows(256))
    train(model, batch, steps=150)
    model.eval()
    losses = model.loss(model.predict(batch), batch)
    assert len(losses) == case.config.count("losses")
    for name, loss in losses.items():
        assert loss < 0.15, name


def check_same_seed_same_bits(case: MultiCase) -> None:
    runs = []
    for seed in (1, 1, 2):
        model = case.model(seed)
        runs.append((train(model, case.batch(model, case.rows(64)), steps=3), model.state_dict()))
    (first, a), (second, b), (third, _) = runs
    assert first == second != third
    assert all(torch.equal(a[name], b[name]) for name in a)


def check_save_load(case: MultiCase) -> None:
    model, other = case.model(1), case.model(2)
    batch = case.batch(model, case.rows(64))
    train(model, batch, steps=2)
    expected, found = model.eval().predict(batch), other.eval().predict(batch)
    assert not any(torch.equal(expected[name], found[name]) for name in expected)
    other.load_state_dict(model.state_dict())
    found = other.predict(batch)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def check_eager_equals_scripted(case: MultiCase) -> None:
    model = case.model()
    train(model, case.batch(model, case.rows(64)), steps=2)
    scripted = script(model)
    # Other numbers of rows than were traced (none were), a single one, no history at all.
    for num_rows in (64, 1, 7):
        rows = case.rows(num_rows, seed=num_rows)
        if num_rows == 7:
            rows["click__item"] = rows["click__price"] = [[]] * 7
        eager, _ = PredictWrapper(model)(case.batch(model, rows))
        found = scripted(parse(model.features, rows))
        assert list(found) == list(eager)
        for name, value in eager.items():
            torch.testing.assert_close(found[name], value, atol=1e-6, rtol=0)


def check_bf16(case: MultiCase) -> None:
    """Under autocast the losses are about the same, in float32, and everything learns."""
    model = case.model()
    batch = case.batch(model, case.rows(64))
    model.eval()
    exact, _ = TrainWrapper(model)(batch)
    loss, (losses, predictions, _) = TrainWrapper(model, mixed_precision="BF16")(batch)
    assert {v.dtype for v in [*losses.values(), *predictions.values()]} == {torch.float32}
    torch.testing.assert_close(loss, exact, rtol=0.05, atol=0.02)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def check_one_row(case: MultiCase) -> None:
    model = case.model()
    batch = case.batch(model, case.rows(1))
    loss, _ = TrainWrapper(model)(batch)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


CHECKS = [
    check_formula_and_keys,
    check_every_parameter_learns,
    check_overfits,
    check_same_seed_same_bits,
    check_save_load,
    check_eager_equals_scripted,
    check_bf16,
    check_one_row,
]
