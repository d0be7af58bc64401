"""Steps of a whole model in one process: accumulation, scaling and refusal reach its tables."""

import pytest
import torch
from test_training_distributed import (
    BOTH,
    NAMES,
    OURS,
    build,
    load,
    run,
    save,
    table,
)
from test_training_distributed import batch as small_batch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from tzrec.options import Options
from tzrec.training.distributed.process_group import process_group

EVERY = [*BOTH, *OURS]
KINDS = [sparse.split("_optimizer")[0] for sparse in EVERY]
ACCUMULATE = "gradient_accumulation_steps: 3"
# A loss whose rounding does not depend on how it is divided.
SCALER = "grad_scaler { init_scale: 1024 growth_interval: 1000 }"


@pytest.fixture(autouse=True, scope="module")
def _group():
    with process_group(Options()):
        yield


def tables(model):
    return {name: table(model, name).clone() for name in NAMES}


def states(optimizer):
    return {
        key: value.clone()
        for name in NAMES
        for key, value in optimizer.state_dict()["state"].get(name, {}).items()
    }


def concatenated(seeds):
    """One batch with the rows of several."""
    batches = [small_batch(seed) for seed in seeds]
    keys = batches[0][0].keys()
    kjt = KeyedJaggedTensor(
        keys,
        torch.cat([kjt[key].values() for key in keys for kjt, _ in batches]),
        lengths=torch.cat([kjt[key].lengths() for key in keys for kjt, _ in batches]),
    )
    return kjt, torch.cat([label for _, label in batches])


def step(model, optimizer, data, *, factor=1.0):
    optimizer.zero_grad()
    optimizer.backward(model(*data) * factor)
    optimizer.step()


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize("sparse", EVERY, ids=KINDS)
def test_accumulated_batches_train_as_one(sparse):
    """Tables and dense parameters alike, once per three batches."""
    model, optimizer = build(sparse, more=ACCUMULATE)
    whole, reference = build(sparse)
    start = tables(model)
    for seeds in ((0, 1, 2), (3, 4, 5)):
        run(model, optimizer, seeds[:2])
        assert_equal(tables(model), start)
        run(model, optimizer, seeds[2:])
        step(whole, reference, concatenated(seeds))
        start = tables(model)
        for name, value in start.items():
            torch.testing.assert_close(value, table(whole, name), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            model.module.model.linear.weight, whole.module.model.linear.weight, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("sparse", EVERY, ids=KINDS)
@pytest.mark.parametrize("done", [3, 4, 5])
def test_a_run_stopped_while_accumulating_goes_on_bit_by_bit(tmp_path, sparse, done):
    model, optimizer = build(sparse, more=ACCUMULATE)
    run(model, optimizer, range(done))
    save(tmp_path, model, optimizer)
    expected = run(model, optimizer, range(done, 9))
    second, restored = build(sparse, more=ACCUMULATE, seed=1)
    run(second, restored, range(20, 21))
    load(tmp_path, second, restored)
    assert run(second, restored, range(done, 9)) == expected
    assert_equal(tables(second), tables(model))
    assert_equal(states(restored), states(optimizer))


@pytest.mark.parametrize("more", ["", ACCUMULATE])
@pytest.mark.parametrize("sparse", EVERY, ids=KINDS)
def test_a_grad_scaler_does_not_change_the_update(sparse, more):
    model, optimizer = build(sparse, more=more)
    scaled, scaling = build(sparse, more=f"{more} {SCALER}")
    for each in ((model, optimizer), (scaled, scaling)):
        run(*each, range(6))
    for name, value in tables(model).items():
        torch.testing.assert_close(table(scaled, name), value, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("sparse", EVERY, ids=KINDS)
def test_an_overflow_anywhere_skips_the_tables_too(sparse):
    """Here only the bias of the dense layer overflows; the gradients of the tables are finite."""
    model, optimizer = build(sparse, more=SCALER)
    run(model, optimizer, [0])
    before, before_states = tables(model), states(optimizer)
    hook = model.module.model.linear.bias.register_hook(lambda gradient: gradient * torch.inf)
    run(model, optimizer, [1])
    hook.remove()
    assert_equal(tables(model), before)
    assert_equal(states(optimizer), before_states)
    run(model, optimizer, [2])
    assert not torch.equal(table(model, NAMES[0]), before[NAMES[0]])


def test_an_overflow_of_the_tables_skips_everything_and_shrinks_the_scale():
    def overflow(module, given, output):
        output.values().register_hook(lambda gradient: gradient * torch.inf)

    model, optimizer = build(OURS[0], more=SCALER)
    run(model, optimizer, [0])
    before, weight = tables(model), model.module.model.linear.weight.detach().clone()
    hook = model.module.model.ebc.register_forward_hook(overflow)
    run(model, optimizer, [1])
    hook.remove()
    assert_equal(tables(model), before)
    assert torch.equal(model.module.model.linear.weight, weight)
    assert optimizer.state_dict()["grad_scaler"]["scale"] == 512
    run(model, optimizer, [2])
    assert not torch.equal(table(model, NAMES[0]), before[NAMES[0]])


def test_refused_gradients_leave_no_trace():
    model, optimizer = build(OURS[0])
    clean, reference = build(OURS[0])
    for seed in range(3):
        optimizer.zero_grad()
        optimizer.backward(model(*small_batch(seed + 10)) * torch.nan)
        assert not optimizer.is_finite()
        optimizer.drop()
        assert optimizer.is_finite()
        run(model, optimizer, [seed])
        run(clean, reference, [seed])
    assert_equal(tables(model), tables(clean))
    assert_equal(states(optimizer), states(reference))
