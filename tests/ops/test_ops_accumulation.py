"""Gradients that wait: sums over batches, scaling, refusal, and what a checkpoint keeps."""

import dataclasses
import math

import pytest
import torch
from ops_tables import ROWS, bag_collection, batch, loss_of, row_collection, update, weights_of
from torch import nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from tzrec.errors import CheckpointError
from tzrec.ops.accumulation import Accumulation
from tzrec.ops.cpu import table as table_module
from tzrec.ops.cpu.collections import CpuEmbeddingBagCollection, CpuEmbeddingCollection
from tzrec.ops.cpu.rule import UpdateRule
from tzrec.ops.loss_scale import LossScale

RULES = [
    UpdateRule("adagrad", 0.1),
    UpdateRule("adam", 0.1, weight_decay=0.1, weight_decay_mode="decoupled"),
    UpdateRule("lamb", 0.1, embedding_l2=0.1),
    UpdateRule("rmsprop", 0.1, max_gradient=0.2),
]
KINDS = [rule.kind for rule in RULES]


class Model(nn.Module):
    def __init__(self, rule=RULES[1], *, rows=True):
        super().__init__()
        self.ebc = CpuEmbeddingBagCollection(bag_collection(), rule)
        self.ec = CpuEmbeddingCollection(row_collection(), rule if rows else None)

    def loss(self, seed, kjt=None):
        kjt = batch(seed) if kjt is None else kjt
        return loss_of(self.ebc(kjt), seed) + loss_of(self.ec(kjt), seed)


def states_of(model):
    return {
        f"{path}.{key}": value.clone()
        for path, module in (("ebc", model.ebc), ("ec", model.ec))
        for values in module.fused_optimizer.state_dict()["state"].values()
        for key, value in values.items()
    }


def assert_same(first, second, *, exact=True):
    assert first.keys() == second.keys()
    for name, value in first.items():
        if exact:
            assert torch.equal(value, second[name]), name
        else:
            torch.testing.assert_close(value, second[name], rtol=1e-4, atol=1e-5)


def concatenated(seeds):
    """One batch with the rows of several."""
    kjts = [batch(seed) for seed in seeds]
    return KeyedJaggedTensor(
        kjts[0].keys(),
        torch.cat([kjt[key].values() for key in kjts[0].keys() for kjt in kjts]),  # noqa: SIM118
        lengths=torch.cat(
            [kjt[key].lengths() for key in kjts[0].keys() for kjt in kjts]  # noqa: SIM118
        ),
    )


@pytest.mark.parametrize("rule", RULES, ids=KINDS)
def test_several_batches_make_the_update_of_one(rule):
    """Each row is penalised once, and Adam counts one update."""
    accumulated, whole = Model(rule), Model(rule)
    for seeds in ((0, 1, 2), (3, 4, 5)):
        for seed in seeds:
            (mean_square(accumulated, batch(seed)) / 3).backward()
        update(accumulated)
        mean_square(whole, concatenated(seeds)).backward()
        update(whole)
    assert_same(weights_of(accumulated), weights_of(whole), exact=False)
    assert_same(states_of(accumulated), states_of(whole), exact=False)


def mean_square(model, kjt):
    """A loss that is a mean over rows."""
    rows = kjt.stride()
    unpooled = sum((jt.values() ** 2).sum() for jt in model.ec(kjt).values())
    return (model.ebc(kjt).values() ** 2).sum() / rows + unpooled / rows


def test_nothing_moves_before_the_update():
    model = Model()
    before, states = weights_of(model), states_of(model)
    for seed in range(3):
        model.loss(seed).backward()
    assert_same(weights_of(model), before)
    assert_same(states_of(model), states)
    update(model)
    for name, weight in weights_of(model).items():
        assert not torch.equal(weight, before[name])


def test_an_update_without_gradients_changes_nothing():
    model = Model()
    before, states = weights_of(model), states_of(model)
    update(model)
    assert_same(weights_of(model), before)
    assert_same(states_of(model), states)


def test_dropped_gradients_leave_no_trace():
    model, clean = Model(), Model()
    for seed in range(3):
        model.loss(seed + 10).backward()
        Accumulation(model).drop()
        for each in (model, clean):
            each.loss(seed).backward()
            update(each)
    assert_same(weights_of(model), weights_of(clean))
    assert_same(states_of(model), states_of(clean))


def test_slots_start_over_while_gradients_wait(monkeypatch):
    expected, model = Model(), Model()
    for seeds in ((0, 1, 2), (3, 4), (5, 6, 7)):
        for seed in seeds:
            monkeypatch.setattr(table_module, "_SLOT_LIMIT", 2**31 - 1)
            expected.loss(seed).backward()
            monkeypatch.setattr(table_module, "_SLOT_LIMIT", ROWS)
            model.loss(seed).backward()
        for each in (expected, model):
            update(each)
    assert_same(weights_of(model), weights_of(expected))


@pytest.mark.parametrize("rule", RULES, ids=KINDS)
def test_loss_scale_is_taken_out(rule):
    expected, model = Model(rule), Model(rule)
    scale = LossScale()
    Accumulation(model).set_loss_scale(scale)
    for seed, factor in enumerate((1024.0, 512.0)):
        scale.value = factor
        expected.loss(seed).backward()
        (model.loss(seed) * factor).backward()
        for each in (expected, model):
            update(each)
    assert_same(weights_of(model), weights_of(expected))
    assert_same(states_of(model), states_of(expected))


def test_a_gradient_that_overflowed_is_seen_before_it_moves_anything():
    model = Model()
    tables = Accumulation(model)
    before, states = weights_of(model), states_of(model)
    model.loss(0).backward()
    assert tables.is_finite()
    (model.loss(1) * math.inf).backward()
    assert not tables.is_finite()
    tables.drop()
    assert tables.is_finite()
    assert_same(weights_of(model), before)
    assert_same(states_of(model), states)


@pytest.mark.parametrize("rule", RULES, ids=KINDS)
def test_what_waits_survives_a_checkpoint(rule):
    """The restored run goes on bit by bit, in a model that has seen other gradients."""
    model, second = Model(rule), Model(rule)
    tables, restored = Accumulation(model), Accumulation(second)
    for seed in (7, 8):
        second.loss(seed).backward()
    for seed in (0, 1):
        model.loss(seed).backward()
    stored = tables.pending_state()
    assert isinstance(stored, bytes)
    restored.load_pending_state(stored)
    for each in (model, second):
        each.loss(2).backward()
        update(each)
        each.loss(3).backward()
        update(each)
    assert_same(weights_of(model), weights_of(second))
    assert_same(states_of(model), states_of(second))


def test_taking_the_state_changes_nothing():
    model, clean = Model(), Model()
    for seed in range(3):
        for each in (model, clean):
            each.loss(seed).backward()
        Accumulation(model).pending_state()
    for each in (model, clean):
        update(each)
    assert_same(weights_of(model), weights_of(clean))


def test_nothing_waits_after_an_update():
    model = Model()
    tables = Accumulation(model)
    assert tables.pending_state() == b""
    model.loss(0).backward()
    assert tables.pending_state()
    tables.apply()
    assert tables.pending_state() == b""
    model.loss(0).backward()
    tables.load_pending_state(b"")
    assert tables.pending_state() == b""


def test_a_batch_without_ids_still_counts_as_an_update():
    """t of Adam is the number of updates, whatever they hold, after a restore too."""
    empty = torch.zeros(0, dtype=torch.int64)
    kjt = KeyedJaggedTensor(["a", "b", "c"], empty, lengths=torch.zeros(6, dtype=torch.int64))
    model, second = Model(rows=False), Model(rows=False)
    (model.ebc(kjt).values().sum() * 1.0).backward()
    Accumulation(second).load_pending_state(Accumulation(model).pending_state())
    for each in (model, second):
        update(each)
        assert states_of(each)["ebc.own.step"] == 1


def test_gradients_of_another_model_are_refused():
    model = Model()
    model.loss(0).backward()
    stored = Accumulation(model).pending_state()
    with pytest.raises(CheckpointError, match=r"ec\.embeddings\.\w+\.weight, which is no table"):
        Accumulation(Model(rows=False)).load_pending_state(stored)
    other = Model()
    other.ebc = CpuEmbeddingBagCollection(bag_collection(dim=6), RULES[1])
    with pytest.raises(CheckpointError, match="do not fit a table of 12 rows of"):
        Accumulation(other).load_pending_state(stored)


def test_frozen_tables_have_no_gradients():
    frozen = CpuEmbeddingBagCollection(
        bag_collection(), dataclasses.replace(RULES[0]), frozen={"shared", "own"}
    )
    assert not frozen(batch(0)).values().requires_grad
    assert Accumulation(frozen).pending_state() == b""
