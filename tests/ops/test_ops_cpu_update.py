"""Every optimizer of tables against its formula, one row and one element after the other."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    ComputeDevice,
    SplitTableBatchedEmbeddingBagsCodegen,
)
from ops_reference import POOLED, UNPOOLED, Reference, row_gradients
from ops_tables import (
    ROWS,
    bag_collection,
    batch,
    loss_of,
    row_collection,
    touched,
    train,
    update,
    weights_of,
)
from torchrec.modules.embedding_configs import DataType, PoolingType
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from tzrec.ops.accumulation import Accumulation
from tzrec.ops.cpu.collections import CpuEmbeddingBagCollection, CpuEmbeddingCollection
from tzrec.ops.cpu.rule import UpdateRule

KINDS = {
    "sgd": UpdateRule("sgd", 0.1),
    "adagrad": UpdateRule("adagrad", 0.1),
    "rowwise_adagrad": UpdateRule("rowwise_adagrad", 0.1),
    "adam": UpdateRule("adam", 0.1),
    "partial_rowwise_adam": UpdateRule("partial_rowwise_adam", 0.1),
    "lamb": UpdateRule("lamb", 0.1, weight_decay_mode="own"),
    # Without weight decay the trust ratio takes out whatever scales the whole row.
    "partial_rowwise_lamb": UpdateRule(
        "partial_rowwise_lamb", 0.1, weight_decay=0.1, weight_decay_mode="own"
    ),
    "lars_sgd": UpdateRule("lars_sgd", 50.0, weight_decay_mode="own"),
    "adadelta": UpdateRule("adadelta", 1.0, eps=1e-3, weight_decay_mode="l2"),
    "rmsprop": UpdateRule("rmsprop", 0.1, weight_decay_mode="l2"),
}
DECAYS = {
    "rowwise_adagrad l2": KINDS["rowwise_adagrad"],
    "rowwise_adagrad decoupled": KINDS["rowwise_adagrad"],
    **{
        f"{kind} {KINDS[kind].weight_decay_mode}": KINDS[kind]
        for kind in ("lamb", "partial_rowwise_lamb", "lars_sgd", "adadelta", "rmsprop")
    },
    "adam decoupled": KINDS["adam"],
    "partial_rowwise_adam decoupled": KINDS["partial_rowwise_adam"],
}
# Rules that differ from a kind in a constant: name → (kind, constants).
CHANGES = {
    "adagrad initial": ("adagrad", {"initial_accumulator_value": 0.5}),
    "rowwise_adagrad initial": ("rowwise_adagrad", {"initial_accumulator_value": 0.5}),
    "lars_sgd momentum": ("lars_sgd", {"momentum": 0.5}),
    "lars_sgd eta": ("lars_sgd", {"eta": 0.002}),
    "adadelta rho": ("adadelta", {"rho": 0.5}),
    "adadelta eps": ("adadelta", {"eps": 0.1}),
    "rmsprop alpha": ("rmsprop", {"alpha": 0.5}),
    "rmsprop eps": ("rmsprop", {"eps": 0.1}),
    **{
        f"{kind} betas": (kind, {"beta1": 0.5, "beta2": 0.7})
        for kind in ("adam", "partial_rowwise_adam", "lamb", "partial_rowwise_lamb")
    },
    **{
        f"{kind} eps": (kind, {"eps": 0.1})
        for kind in ("adam", "partial_rowwise_adam", "lamb", "partial_rowwise_lamb")
    },
    **{f"{kind} clipped": (kind, {"max_gradient": 0.2}) for kind in KINDS},
    **{f"{kind} l2": (kind, {"embedding_l2": 0.7}) for kind in ("sgd", "lamb", "rmsprop")},
    **{
        f"{kind} all rows": (kind, {"embedding_l2": 0.7, "all_rows": True})
        for kind in ("adagrad", "rowwise_adagrad", "adam", "lars_sgd")
    },
    "everything": (
        "rowwise_adagrad",
        {
            "weight_decay": 0.2,
            "weight_decay_mode": "l2",
            "embedding_l2": 0.5,
            "max_gradient": 0.4,
            "initial_accumulator_value": 0.1,
        },
    ),
    **{
        name: (rule.kind, {"weight_decay": 0.3, "weight_decay_mode": name.split()[1]})
        for name, rule in DECAYS.items()
    },
}
CHANGED = {
    name: dataclasses.replace(KINDS[kind], **constants)
    for name, (kind, constants) in CHANGES.items()
}


def train_both(ours, rule, uses, *, pooled, weighted=False, mean=False, steps=3):
    """Returns our weights and the reference's after some steps from the same start."""
    tables = {name.split(".")[1]: weight for name, weight in weights_of(ours).items()}
    references = {name: Reference(rule, weight) for name, weight in tables.items()}
    dims = {name: weight.shape[1] for name, weight in tables.items()}
    for seed in range(steps):
        kjt = batch(seed, weighted=weighted)
        gradients = row_gradients(kjt, uses, seed, rule=rule, pooled=pooled, dims=dims, mean=mean)
        for name, rows in gradients.items():
            references[name].step(rows)
        loss_of(ours(kjt), seed).backward()
        update(ours)
    return weights_of(ours), {name: r.w for name, r in references.items()}


def assert_close(ours, expected):
    for name, weight in ours.items():
        wanted = expected[name.split(".")[1]]
        np.testing.assert_allclose(weight.numpy(), wanted, rtol=5e-5, atol=5e-6)


@pytest.mark.parametrize("rule", [*KINDS.values(), *CHANGED.values()], ids=[*KINDS, *CHANGED])
def test_the_update_is_the_formula(rule):
    ours = CpuEmbeddingBagCollection(bag_collection(), rule)
    assert_close(*train_both(ours, rule, POOLED, pooled=True))


@pytest.mark.parametrize("rule", KINDS.values(), ids=KINDS.keys())
def test_the_update_of_sequences_is_the_formula(rule):
    ours = CpuEmbeddingCollection(row_collection(), rule)
    assert_close(*train_both(ours, rule, UNPOOLED, pooled=False))


@pytest.mark.parametrize("bound", [math.inf, 0.3])
@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_pooling_and_weights_reach_the_update(mean, weighted, bound):
    rule = dataclasses.replace(KINDS["adagrad"], max_gradient=bound)
    pooling = PoolingType.MEAN if mean else PoolingType.SUM
    ours = CpuEmbeddingBagCollection(bag_collection(weighted=weighted, pooling=pooling), rule)
    expected = train_both(ours, rule, POOLED, pooled=True, weighted=weighted, mean=mean)
    assert_close(*expected)


@pytest.mark.parametrize("name", CHANGES)
def test_every_constant_changes_something(name):
    kind, _ = CHANGES[name]
    plain = CpuEmbeddingBagCollection(bag_collection(), KINDS[kind])
    changed = CpuEmbeddingBagCollection(bag_collection(), CHANGED[name])
    for collection in (plain, changed):
        train(collection, range(2))
    for key, weight in weights_of(plain).items():
        assert not torch.allclose(weight, changed.get_parameter(key), rtol=1e-4, atol=1e-5)


TORCH = {
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1, eps=1e-8),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=1.0, rho=0.95, eps=1e-3),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1, alpha=0.99, eps=1e-8),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "adadelta l2": lambda p: torch.optim.Adadelta(p, lr=1.0, rho=0.95, eps=1e-3, weight_decay=0.3),
    "rmsprop l2": lambda p: torch.optim.RMSprop(p, lr=0.1, eps=1e-8, weight_decay=0.3),
    "adam decoupled": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.3),
}


@pytest.mark.parametrize("name", TORCH)
def test_a_table_whose_rows_all_occur_trains_as_torch_does(name):
    table = torch.nn.Embedding(ROWS, 5)
    optimizer = TORCH[name](table.parameters())
    ours = CpuEmbeddingCollection(row_collection(), (KINDS | CHANGED)[name])
    with torch.no_grad():
        table.weight.copy_(ours.embeddings["own"].weight)
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        ids = torch.cat([torch.arange(ROWS), torch.randint(0, ROWS, (ROWS,), generator=generator)])
        target = torch.randn(len(ids), 5, generator=generator)
        kjt = KeyedJaggedTensor(
            ["a", "b", "c"], ids, lengths=torch.tensor([0] * 4 + [len(ids) - 1, 1])
        )
        optimizer.zero_grad()
        ((table(ids) - target) ** 2).sum().backward()
        optimizer.step()
        ((ours(kjt)["c"].values() - target) ** 2).sum().backward()
        update(ours)
    torch.testing.assert_close(ours.embeddings["own"].weight, table.weight, rtol=1e-4, atol=1e-4)


def test_lazy_adam_is_torchs_sparse_adam():
    """eps enters differently, which 1e-8 does not show."""
    table = torch.nn.Embedding(ROWS, 5, sparse=True)
    adam = torch.optim.SparseAdam(table.parameters(), lr=0.1)
    ours = CpuEmbeddingCollection(row_collection(), KINDS["adam"])
    with torch.no_grad():
        table.weight.copy_(ours.embeddings["own"].weight)
    for seed in range(4):
        kjt = batch(seed)
        adam.zero_grad()
        (table(kjt["c"].values()) ** 2).sum().backward()
        adam.step()
        (ours(kjt)["c"].values() ** 2).sum().backward()
        update(ours)
    torch.testing.assert_close(ours.embeddings["own"].weight, table.weight)


@pytest.mark.parametrize("rule", KINDS.values(), ids=KINDS.keys())
def test_half_float_tables_train(rule):
    ours = CpuEmbeddingBagCollection(bag_collection(data_type=DataType.FP16), rule)
    full = CpuEmbeddingBagCollection(bag_collection(), rule)
    for name, weight in ours.named_parameters():
        with torch.no_grad():
            full.get_parameter(name).copy_(weight)
    for collection in (ours, full):
        train(collection, range(3))
    for name, weight in ours.named_parameters():
        assert weight.dtype == torch.float16
        torch.testing.assert_close(weight.float(), full.get_parameter(name), rtol=0, atol=4e-3)
    for values in ours.fused_optimizer.state_dict()["state"].values():
        for key, value in values.items():
            assert value.dtype == (torch.int64 if key.endswith("step") else torch.float32)


@pytest.mark.parametrize("rule", KINDS.values(), ids=KINDS.keys())
def test_rows_outside_the_batch_keep_their_bits(rule):
    """Also those with a momentum from an earlier batch, and all their states."""
    rule = dataclasses.replace(rule, weight_decay=0.2)
    ours = CpuEmbeddingBagCollection(bag_collection(), rule)
    train(ours, range(2))
    before = weights_of(ours)
    states = {
        key: value.clone()
        for values in ours.fused_optimizer.state_dict()["state"].values()
        for key, value in values.items()
    }
    kjt = KeyedJaggedTensor(["a", "b"], torch.tensor([1, 1, 3]), lengths=torch.tensor([2, 1]))
    loss_of(ours(kjt), 2).backward()
    update(ours)
    for name, features in {"shared": ["a", "b"], "own": ["b"]}.items():
        changed = touched(kjt, features)
        others = [row for row in range(ROWS) if row not in changed]
        key = f"embedding_bags.{name}.weight"
        now = ours.get_parameter(key).detach()
        assert torch.equal(now[others], before[key][others])
        assert (now[changed] != before[key][changed]).all()
        for state, value in ours.fused_optimizer.state_dict()["state"][key].items():
            if value.dim():
                assert torch.equal(value[others], states[state][others])
                assert not torch.equal(value[changed], states[state][changed])


@pytest.mark.parametrize("kind", ["lamb", "partial_rowwise_lamb", "lars_sgd"])
def test_trust_ratios_of_zeros_are_no_nan(kind):
    """A row of zeros stays; a gradient of zeros without momentum moves nothing."""
    ours = CpuEmbeddingCollection(
        row_collection(), dataclasses.replace(KINDS[kind], weight_decay=0.0)
    )
    with torch.no_grad():
        ours.embeddings["own"].weight.zero_()
    before = weights_of(ours)
    outputs = ours(batch(0))
    (outputs["c"].values().sum() + 0.0 * outputs["a"].values().sum()).backward()
    update(ours)
    for name, weight in weights_of(ours).items():
        assert torch.equal(weight, before[name])


@pytest.mark.parametrize("rule", KINDS.values(), ids=KINDS.keys())
def test_frozen_tables_never_move(rule):
    rule = dataclasses.replace(rule, embedding_l2=1.0)
    ours = CpuEmbeddingBagCollection(bag_collection(), rule, frozen={"shared"})
    before = weights_of(ours)
    train(ours, range(2))
    after = weights_of(ours)
    assert torch.equal(
        before["embedding_bags.shared.weight"], after["embedding_bags.shared.weight"]
    )
    assert not torch.equal(before["embedding_bags.own.weight"], after["embedding_bags.own.weight"])
    assert list(ours.fused_optimizer.params) == ["embedding_bags.own.weight"]
    assert list(ours.fused_optimizer.state_dict()["state"]) == ["embedding_bags.own.weight"]


WHOLE, ROW = (ROWS, 8), (ROWS,)


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        ("sgd", {}),
        ("adagrad", {"momentum1": WHOLE}),
        ("rowwise_adagrad", {"momentum1": ROW}),
        ("adam", {"momentum1": WHOLE, "exp_avg_sq": WHOLE, "step": ()}),
        ("partial_rowwise_adam", {"momentum1": WHOLE, "exp_avg_sq": ROW, "step": ()}),
        ("lamb", {"momentum1": WHOLE, "exp_avg_sq": WHOLE, "step": ()}),
        ("partial_rowwise_lamb", {"momentum1": WHOLE, "exp_avg_sq": ROW, "step": ()}),
        ("lars_sgd", {"momentum1": WHOLE}),
        ("adadelta", {"momentum1": WHOLE, "acc_delta": WHOLE}),
        ("rmsprop", {"momentum1": WHOLE}),
    ],
)
def test_states_have_torchrecs_names(kind, shapes):
    ours = CpuEmbeddingBagCollection(bag_collection(), KINDS[kind])
    train(ours, [0])
    state = ours.fused_optimizer.state_dict()["state"]["embedding_bags.own.weight"]
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        f"own.{name}": shape for name, shape in shapes.items()
    }
    for name, value in state.items():
        assert value.any(), name
    if "step" in shapes:
        assert state["own.step"] == 1


FBGEMMS = {
    "adagrad": EmbOptimType.EXACT_ADAGRAD,
    "rowwise_adagrad": EmbOptimType.EXACT_ROWWISE_ADAGRAD,
    "adam": EmbOptimType.ADAM,
    "partial_rowwise_adam": EmbOptimType.PARTIAL_ROWWISE_ADAM,
    "lamb": EmbOptimType.LAMB,
    "partial_rowwise_lamb": EmbOptimType.PARTIAL_ROWWISE_LAMB,
}


@pytest.mark.parametrize("kind", FBGEMMS)
def test_states_fit_fbgemms(kind):
    """TorchRec stores FBGEMM's states under their names, but calls the first one momentum1."""
    spec = (ROWS, 8, EmbeddingLocation.DEVICE, ComputeDevice.CUDA)
    theirs = SplitTableBatchedEmbeddingBagsCodegen(
        [spec], optimizer=FBGEMMS[kind], device=torch.device("meta")
    )
    (state,) = theirs.get_optimizer_state()
    names = ["momentum1", *list(state)[1:]]
    expected = {n: tuple(v.shape) for n, v in zip(names, state.values(), strict=True)}
    ours = KINDS[kind].state_shapes(ROWS, 8)
    ours.pop("step", None)
    assert ours == expected


@pytest.mark.parametrize("rule", KINDS.values(), ids=KINDS.keys())
def test_same_input_same_bits(rule):
    results = []
    for _ in range(2):
        ours = CpuEmbeddingBagCollection(bag_collection(), rule)
        train(ours, range(3))
        results.append(weights_of(ours))
    for name, weight in results[0].items():
        assert torch.equal(weight, results[1][name])


def test_infinities_and_nans_are_found():
    for value in (math.inf, -math.inf, math.nan):
        ours = CpuEmbeddingCollection(row_collection(), KINDS["sgd"])
        values = ours(batch(0))["c"].values()
        gradient = torch.zeros_like(values)
        values.backward(gradient, retain_graph=True)
        assert Accumulation(ours).is_finite()
        gradient[-1, -1] = value
        values.backward(gradient)
        assert not Accumulation(ours).is_finite()
    largest = CpuEmbeddingCollection(row_collection(), KINDS["sgd"])
    values = largest(batch(0))["c"].values()
    gradient = torch.zeros_like(values)
    gradient[0] = -torch.finfo(torch.float32).max
    values.backward(gradient)
    assert Accumulation(largest).is_finite()
