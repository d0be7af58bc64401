"""Gradients of several batches, dense and sparse: one update, savable between two."""

import copy
import logging

import pytest
import torch
from test_optim_optimizer import Model, dense_of, tables, train_config
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from tzrec.optim.optimizer import build_optimizer

BATCHES = [
    ([1, 1, 2], [1, 2]),
    ([0, 2, 4, 4], [3, 1]),
    ([3, 3], [0, 2]),
    ([1, 4, 0], [2, 1]),
]


def kjt(ids, lengths):
    return KeyedJaggedTensor(["f"], torch.tensor(ids), lengths=torch.tensor(lengths))


def loss_of(model, batch):
    return (model.model.tower(model.model.ebc(batch).values()) ** 2).mean()


def step(model, optimizer, number):
    optimizer.zero_grad()
    optimizer.backward(loss_of(model, kjt(*BATCHES[number])))
    optimizer.step()


def built(more):
    model = Model(tables())
    return model, build_optimizer(model, train_config(more=more))


def values(model):
    weight = model.model.ebc.embedding_bags["t"].weight
    return dense_of(model) | {"t": weight.detach().clone()}


def assert_equal(first, second):
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_tables_and_dense_move_together_as_by_one_batch():
    model, optimizer = built("gradient_accumulation_steps: 2")
    before = values(model)
    step(model, optimizer, 0)
    assert not optimizer.is_due
    assert_equal(values(model), before)
    step(model, optimizer, 1)
    assert optimizer.is_due

    whole, reference = built("")
    both = [a + b for a, b in zip(BATCHES[0], BATCHES[1], strict=True)]
    reference.zero_grad()
    reference.backward(loss_of(whole, kjt(*both)))
    reference.step()
    for name, value in values(whole).items():
        torch.testing.assert_close(values(model)[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("more", ["", " grad_scaler { init_scale: 1024 }"])
@pytest.mark.parametrize("saved_after", [1, 2, 3])
def test_a_run_saved_between_two_updates_goes_on_bit_by_bit(saved_after, more):
    more = "gradient_accumulation_steps: 3" + more
    model, optimizer = built(more)
    for number in range(saved_after):
        step(model, optimizer, number)
    stored = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    for number in [*range(saved_after, 4), 0, 1]:
        step(model, optimizer, number)

    second, restored = built(more)
    second.load_state_dict(stored[0])
    restored.init_state()
    state = restored.state_dict()
    restored.load_state_dict(stored[1] | {"state": state["state"] | stored[1]["state"]})
    for number in [*range(saved_after, 4), 0, 1]:
        step(second, restored, number)
    assert_equal(values(model), values(second))


def test_without_accumulation_the_state_has_no_gradients():
    _, optimizer = built("")
    assert "accumulation" not in optimizer.state_dict()


def test_another_number_of_steps_drops_what_was_accumulated(caplog):
    caplog.set_level(logging.WARNING, logger="tzrec")
    model, optimizer = built("gradient_accumulation_steps: 3")
    step(model, optimizer, 0)
    state = optimizer.state_dict()

    second, restored = built("gradient_accumulation_steps: 2")
    restored.init_state()
    restored.load_state_dict(state | {"state": restored.state_dict()["state"]})
    (record,) = caplog.records
    assert "gradient_accumulation_steps was 3 and is 2" in record.message
    assert "last 1 batches" in record.message
    for number in (2, 3):
        step(second, restored, number)

    fresh, reference = built("gradient_accumulation_steps: 2")
    for number in (2, 3):
        step(fresh, reference, number)
    assert_equal(values(second), values(fresh))


def test_drop_forgets_tables_dense_and_count():
    model, optimizer = built("gradient_accumulation_steps: 2")
    step(model, optimizer, 0)
    optimizer.drop()
    for number in (2, 3):
        step(model, optimizer, number)

    fresh, reference = built("gradient_accumulation_steps: 2")
    for number in (2, 3):
        step(fresh, reference, number)
    assert_equal(values(model), values(fresh))


@pytest.mark.parametrize("bad", ["dense", "table", "none"])
def test_is_finite_sees_dense_and_table_gradients(bad):
    model, optimizer = built("")
    optimizer.zero_grad()
    optimizer.backward(loss_of(model, kjt(*BATCHES[0])))
    if bad == "dense":
        model.model.tower[0].weight.grad[0, 0] = float("nan")
    elif bad == "table":
        # Of a loss of the table alone; no dense parameter takes part.
        (model.model.ebc(kjt(*BATCHES[0])).values() * float("inf")).sum().backward()
    assert optimizer.is_finite() == (bad == "none")
    expected = ["model.tower.0.weight"] if bad == "dense" else []
    assert optimizer.non_finite() == expected


def test_an_overflow_in_a_table_alone_lowers_the_scale_and_moves_nothing():
    model, optimizer = built("grad_scaler { init_scale: 1024 }")
    before = values(model)
    optimizer.zero_grad()
    optimizer.backward((model.model.ebc(kjt(*BATCHES[0])).values() * float("inf")).sum())
    optimizer.step()
    assert_equal(values(model), before)
    assert optimizer.num_overflows == 1
    assert optimizer.state_dict()["grad_scaler"]["scale"] == 512
    step(model, optimizer, 3)
    assert not torch.equal(values(model)["t"], before["t"])


def test_an_overflow_in_a_dense_gradient_moves_no_table():
    model, optimizer = built("grad_scaler { init_scale: 1024 }")
    before = values(model)
    optimizer.zero_grad()
    optimizer.backward(loss_of(model, kjt(*BATCHES[0])))
    model.model.tower[2].bias.grad.fill_(float("inf"))
    optimizer.step()
    assert_equal(values(model), before)


def test_on_gradients_sees_them_unscaled_and_unclipped_once():
    clipped = "grad_clipping { clipping_type: 'value' max_gradient: 1e-9 } dense_l2: 0.5"
    model, optimizer = built(clipped + " grad_scaler { init_scale: 1024 }")
    tower = dict(model.model.tower.named_parameters())
    gradients = torch.autograd.grad(loss_of(model, kjt(*BATCHES[0])), list(tower.values()))
    expected = {
        name: gradient + (0.5 * parameter if parameter.dim() > 1 else 0)
        for (name, parameter), gradient in zip(tower.items(), gradients, strict=True)
    }
    seen = []
    optimizer.on_gradients = lambda named: seen.append({k: v.clone() for k, v in named.items()})
    step(model, optimizer, 0)
    step(model, optimizer, 1)
    (named,) = seen
    assert set(named) == {f"model.tower.{name}" for name in tower}
    for name, value in expected.items():
        torch.testing.assert_close(named[f"model.tower.{name}"], value.detach())


def test_an_overflow_in_a_table_starts_the_count_of_finite_updates_anew():
    """As one in a dense gradient does: then torch's scaler sees to it."""
    scales = {}
    for where in ("table", "dense"):
        model, optimizer = built("grad_scaler { init_scale: 1024 growth_interval: 3 }")
        scales[where] = []
        for number in (0, 1, None, 2, 3, 0, 1):
            optimizer.zero_grad()
            values = model.model.ebc(kjt(*BATCHES[number or 0])).values()
            loss = (model.model.tower(values) ** 2).mean()
            if number is None and where == "table":
                loss = loss + (values * float("inf")).sum()
            optimizer.backward(loss)
            if number is None and where == "dense":
                model.model.tower[0].weight.grad.fill_(float("inf"))
            optimizer.step()
            scales[where].append(optimizer.state_dict()["grad_scaler"]["scale"])
    assert scales["table"] == scales["dense"] == [1024, 1024, 512, 512, 512, 1024, 1024]


def test_constants_of_the_scaler_are_the_configs_the_scale_is_the_checkpoints():
    model, optimizer = built("grad_scaler { init_scale: 1024 growth_interval: 3 }")
    for number in (0, 1):
        step(model, optimizer, number)
    model, restored = built("grad_scaler { init_scale: 64 growth_interval: 4 growth_factor: 8 }")
    restored.init_state()
    stored = optimizer.state_dict()
    restored.load_state_dict(stored | {"state": restored.state_dict()["state"]})
    scales = []
    for number in (2, 3):
        step(model, restored, number)
        scales.append(restored.state_dict()["grad_scaler"]["scale"])
    assert scales == [1024, 1024 * 8]
