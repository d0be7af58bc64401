"""The moving average: its formula, when it moves, what it puts into the model, its state."""

import contextlib
import copy

import numpy as np
import pytest
import torch
from test_optim_optimizer import Model, dense_of, inputs, run, tables, train_config
from torch import nn

from tzrec.errors import ConfigError
from tzrec.optim.ema import NUM_AVERAGED, DenseEma
from tzrec.optim.optimizer import build_optimizer

EMA = " ema { decay: 0.75 }"


def averaging(dense="adam_optimizer { lr: 0.1 }", more="", model=None):
    model = model or Model()
    return model, build_optimizer(model, train_config(dense + EMA, more))


def averages(optimizer):
    state = optimizer.ema.state_dict()
    return {k.removeprefix("model.tower."): v for k, v in state.items() if ".tower." in k}


def expected_averages(history, decay=0.75):
    """NumPy's double-precision average of the parameters after each update."""
    average = {name: value.double().numpy() for name, value in history[0].items()}
    for values in history[1:]:
        for name, value in values.items():
            average[name] = decay * average[name] + (1 - decay) * value.double().numpy()
    return average


def trained_history(model, optimizer, seeds):
    history = []
    for seed in seeds:
        run(model, optimizer, [seed])
        history.append(dense_of(model))
    return history


def test_average_is_the_formula():
    model, optimizer = averaging()
    history = trained_history(model, optimizer, (1, 2, 3, 4, 5))
    actual = averages(optimizer)
    for name, value in expected_averages(history).items():
        np.testing.assert_allclose(actual[name].numpy(), value, rtol=1e-6, atol=1e-7)
    assert int(optimizer.ema.state_dict()[NUM_AVERAGED]) == 5


def test_first_update_copies():
    model, optimizer = averaging()
    run(model, optimizer, [1])
    for name, value in dense_of(model).items():
        assert torch.equal(averages(optimizer)[name], value)


def test_decay_changes_the_average():
    other = Model()
    second = build_optimizer(other, train_config("adam_optimizer { lr: 0.1 } ema { decay: 0.5 }"))
    history = trained_history(other, second, (1, 2, 3))
    for name, value in expected_averages(history, decay=0.5).items():
        np.testing.assert_allclose(averages(second)[name].numpy(), value, rtol=1e-6, atol=1e-7)


def test_default_decay():
    optimizer = build_optimizer(Model(), train_config("adam_optimizer { lr: 0.1 } ema {}"))
    assert optimizer.ema.decay == pytest.approx(0.999)


def test_training_does_not_notice_the_average():
    plain = Model()
    run(plain, build_optimizer(plain, train_config()), (1, 2, 3))
    model, optimizer = averaging()
    run(model, optimizer, (1, 2, 3))
    for name, value in dense_of(plain).items():
        assert torch.equal(dense_of(model)[name], value)


def test_parts_are_averaged_tables_and_fixed_parameters_are_not():
    parts = ' part_optimizers { regex_pattern: "model.tower.0.*" sgd_optimizer { lr: 0.5 } }'
    _, optimizer = averaging("adam_optimizer { lr: 0.1 }" + parts, model=Model(tables()))
    names = {name for name in optimizer.ema.state_dict() if name != NUM_AVERAGED}
    assert names == {
        *(f"model.tower.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")),
        "model.unused.weight",
        "model.unused.bias",
    }


def test_accumulation_averages_once_per_update():
    model, optimizer = averaging(more="gradient_accumulation_steps: 3")
    history = trained_history(model, optimizer, range(1, 8))
    assert int(optimizer.ema.state_dict()[NUM_AVERAGED]) == 2
    expected = expected_averages([history[2], history[5]])
    for name, value in expected.items():
        np.testing.assert_allclose(averages(optimizer)[name].numpy(), value, rtol=1e-6, atol=1e-7)


def test_an_update_that_overflowed_is_not_averaged():
    model, optimizer = averaging(more="grad_scaler { init_scale: 1024 }")
    optimizer.zero_grad()
    optimizer.backward(model(inputs()) * float("inf"))
    optimizer.step()
    assert optimizer.ema.num_averaged == 0
    assert optimizer.num_overflows == 1
    run(model, optimizer, [1])
    assert optimizer.ema.num_averaged == 1


def test_swapped_puts_the_average_in_and_the_parameters_back():
    model, optimizer = averaging()
    run(model, optimizer, (1, 2, 3))
    before = dense_of(model)
    kept = copy.deepcopy(optimizer.ema.state_dict())
    with contextlib.suppress(InterruptedError), optimizer.ema.swapped():
        for name, value in averages(optimizer).items():
            assert torch.equal(dense_of(model)[name], value)
            assert not torch.equal(before[name], value)
        raise InterruptedError
    for name, value in before.items():
        assert torch.equal(dense_of(model)[name], value)
    for name, value in optimizer.ema.state_dict().items():
        assert torch.equal(kept[name], value)


def test_swapped_without_an_average_changes_nothing():
    model, optimizer = averaging()
    before = dense_of(model)
    with optimizer.ema.swapped():
        for name, value in before.items():
            assert torch.equal(dense_of(model)[name], value)


def test_a_restored_average_goes_on_bit_by_bit():
    model, optimizer = averaging()
    run(model, optimizer, (1, 2))
    stored = copy.deepcopy((model.state_dict(), optimizer.state_dict(), optimizer.ema.state_dict()))
    run(model, optimizer, (3, 4))

    second, restored = averaging()
    second.load_state_dict(stored[0])
    restored.init_state()
    restored.load_state_dict(
        stored[1] | {"state": restored.state_dict()["state"] | stored[1]["state"]}
    )
    restored.ema.load_state_dict(stored[2])
    run(second, restored, (3, 4))
    for name, value in optimizer.ema.state_dict().items():
        assert torch.equal(restored.ema.state_dict()[name], value)


def test_a_name_without_stored_average_starts_from_the_parameter():
    parameters = {"a": nn.Parameter(torch.ones(2)), "b": nn.Parameter(torch.ones(2))}
    ema = DenseEma(parameters, 0.5)
    parameters["b"].data.fill_(5)
    ema.load_state_dict({"a": torch.full((2,), 3.0), NUM_AVERAGED: 4})
    assert ema.state_dict()["a"].tolist() == [3, 3]
    assert ema.state_dict()["b"].tolist() == [5, 5]
    assert ema.num_averaged == 4


def test_half_precision_parameters_have_an_average_in_full_precision():
    parameter = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    ema = DenseEma({"p": parameter}, 0.999)
    ema.update()
    parameter.data.fill_(2)
    ema.update()
    assert ema.state_dict()["p"].item() == pytest.approx(1.001, abs=1e-6)
    with ema.swapped():
        assert parameter.dtype == torch.bfloat16
        assert parameter.item() == 1


@pytest.mark.parametrize("decay", [-0.5, 1.0, 2.0])
def test_decay_out_of_range(decay):
    with pytest.raises(ConfigError, match=r"ema\.decay must be in \[0, 1\)"):
        DenseEma({}, decay)
