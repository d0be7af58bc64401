"""Our collections against TorchRec's unsharded ones, updates against the formula in NumPy."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torchrec.modules.embedding_configs import (
    DataType,
    EmbeddingBagConfig,
    EmbeddingConfig,
    PoolingType,
)
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from tzrec.errors import DataError, Unsupported
from tzrec.ops.cpu import table as table_module
from tzrec.ops.cpu.collections import CpuEmbeddingBagCollection, CpuEmbeddingCollection
from tzrec.ops.cpu.rule import UpdateRule
from tzrec.ops.loss_scale import LossScale

ROWS = 12
CPU = torch.device("cpu")


def bag_collection(*, weighted=False, data_type=DataType.FP32, pooling=PoolingType.SUM, dim=5):
    """Two tables; the first serves two features, one of which both tables serve."""
    torch.manual_seed(0)
    return EmbeddingBagCollection(
        tables=[
            EmbeddingBagConfig(
                name="shared",
                num_embeddings=ROWS,
                embedding_dim=dim,
                feature_names=["a", "b"],
                pooling=pooling,
                data_type=data_type,
            ),
            EmbeddingBagConfig(
                name="own",
                num_embeddings=ROWS,
                embedding_dim=dim + 3,
                feature_names=["b"],
                pooling=pooling,
                data_type=data_type,
            ),
        ],
        is_weighted=weighted,
        device=CPU,
    )


def row_collection(data_type=DataType.FP32):
    torch.manual_seed(0)
    return EmbeddingCollection(
        tables=[
            EmbeddingConfig(
                name=name,
                num_embeddings=ROWS,
                embedding_dim=5,
                feature_names=features,
                data_type=data_type,
                init_fn=torch.nn.init.normal_,
            )
            for name, features in {"shared": ["a", "b"], "own": ["c"]}.items()
        ],
        device=CPU,
        need_indices=True,
    )


def batch(seed, *, weighted=False, rows=6, dtype=torch.int64):
    """Features c, b, a (not the order of the configs) with empty bags and many duplicates."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 4, (3 * rows,), generator=generator)
    size = int(lengths.sum())
    return KeyedJaggedTensor(
        ["c", "b", "a"],
        torch.randint(0, ROWS // 2, (size,), generator=generator).to(dtype),
        lengths=lengths,
        weights=torch.rand(size, generator=generator) if weighted else None,
    )


def loss_of(output, seed):
    """Weights every output element differently."""
    if isinstance(output, dict):
        values = [jt.values() for jt in output.values()]
    else:
        values = [output[key] for key in output.keys()]  # noqa: SIM118 - not a dict
    generator = torch.Generator().manual_seed(seed)
    return sum((v * torch.randn(v.shape, generator=generator)).sum() for v in values)


def weights_of(collection):
    return {name: p.detach().clone() for name, p in collection.named_parameters()}


class Reference:
    """The formulas of `UpdateRule`, row by row in float64."""

    def __init__(self, rule, weight):
        self.rule = rule
        self.w = weight.double().numpy().copy()
        fill = rule.initial_accumulator_value
        self.s = np.full(self.w.shape if rule.kind == "adagrad" else len(self.w), fill)
        self.m = np.zeros_like(self.w)
        self.v = np.zeros_like(self.w)
        self.t = 0

    def step(self, gradient, rows):
        rule = self.rule
        self.t += 1
        for r in rows:
            g, w = gradient[r].double().numpy().copy(), self.w[r]
            g = np.clip(g + rule.embedding_l2 * w, -rule.max_gradient, rule.max_gradient)
            if rule.weight_decay_mode == "l2":
                g = g + rule.weight_decay * w
            if rule.weight_decay_mode == "decoupled":
                w = w - rule.lr * rule.weight_decay * w
            self.w[r] = w - rule.lr * self.direction(r, g)

    def direction(self, r, g):
        rule = self.rule
        if rule.kind == "sgd":
            return g
        if rule.kind == "adagrad":
            self.s[r] += g**2
            return g / (np.sqrt(self.s[r]) + rule.eps)
        if rule.kind == "rowwise_adagrad":
            self.s[r] += (g**2).mean()
            return g / (np.sqrt(self.s[r]) + rule.eps)
        self.m[r] = rule.beta1 * self.m[r] + (1 - rule.beta1) * g
        self.v[r] = rule.beta2 * self.v[r] + (1 - rule.beta2) * g**2
        m_hat = self.m[r] / (1 - rule.beta1**self.t)
        v_hat = self.v[r] / (1 - rule.beta2**self.t)
        return m_hat / (np.sqrt(v_hat) + rule.eps)


SGD = UpdateRule("sgd", 0.1)
ADAGRAD = UpdateRule("adagrad", 0.1)
ROWWISE = UpdateRule("rowwise_adagrad", 0.1)
ADAM = UpdateRule("adam", 0.1)
RULES = {
    "sgd": SGD,
    "adagrad": ADAGRAD,
    "rowwise": ROWWISE,
    "adam": ADAM,
    "sgd clipped": dataclasses.replace(SGD, max_gradient=0.2),
    "adagrad initial": dataclasses.replace(ADAGRAD, initial_accumulator_value=0.5),
    "rowwise l2": dataclasses.replace(ROWWISE, weight_decay=0.3, weight_decay_mode="l2"),
    "rowwise decoupled": dataclasses.replace(
        ROWWISE, weight_decay=0.3, weight_decay_mode="decoupled"
    ),
    "adam betas": dataclasses.replace(ADAM, beta1=0.5, beta2=0.7),
    "adam decay": dataclasses.replace(ADAM, weight_decay=0.3, weight_decay_mode="decoupled"),
    "adam eps": dataclasses.replace(ADAM, eps=0.1),
    "embedding_l2": dataclasses.replace(SGD, embedding_l2=0.7),
    "all at once": dataclasses.replace(
        ROWWISE, weight_decay=0.2, weight_decay_mode="l2", embedding_l2=0.5, max_gradient=0.4
    ),
}


def touched(kjt, features):
    return sorted({int(i) for feature in features for i in kjt[feature].values()})


def train_both(make, wrap, rule, *, weighted=False, steps=3):
    """Returns our weights and the reference's after some steps from the same start."""
    plain, ours = make(), wrap(make(), rule)
    features = {
        config.name: config.feature_names
        for config in (
            plain.embedding_bag_configs()
            if isinstance(plain, EmbeddingBagCollection)
            else plain.embedding_configs()
        )
    }
    references = {n: Reference(rule, w) for n, w in weights_of(plain).items()}
    for seed in range(steps):
        kjt = batch(seed, weighted=weighted)
        plain.zero_grad()
        loss_of(plain(kjt), seed).backward()
        for name, parameter in plain.named_parameters():
            rows = touched(kjt, features[name.split(".")[-2]])
            references[name].step(parameter.grad, rows)
            parameter.data.copy_(torch.from_numpy(references[name].w))
        loss_of(ours(kjt), seed).backward()
    return weights_of(ours), {name: r.w for name, r in references.items()}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_pooled_update_is_the_formula(rule):
    ours, expected = train_both(bag_collection, CpuEmbeddingBagCollection, rule)
    for name, weight in ours.items():
        np.testing.assert_allclose(weight.numpy(), expected[name], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("rule", [ADAM, RULES["all at once"]], ids=["adam", "all at once"])
def test_unpooled_update_is_the_formula(rule):
    ours, expected = train_both(row_collection, CpuEmbeddingCollection, rule)
    for name, weight in ours.items():
        np.testing.assert_allclose(weight.numpy(), expected[name], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("pooling", [PoolingType.SUM, PoolingType.MEAN])
def test_pooling_and_weights_reach_the_update(pooling):
    weighted = pooling == PoolingType.SUM  # torch has no weighted mean

    def make():
        return bag_collection(weighted=weighted, pooling=pooling)

    ours, expected = train_both(make, CpuEmbeddingBagCollection, ADAGRAD, weighted=weighted)
    for name, weight in ours.items():
        np.testing.assert_allclose(weight.numpy(), expected[name], rtol=2e-5, atol=2e-6)


def test_lazy_adam_is_torchs_sparse_adam():
    """eps enters differently, which 1e-8 does not show."""
    table = torch.nn.Embedding(ROWS, 5, sparse=True)
    adam = torch.optim.SparseAdam(table.parameters(), lr=0.1)
    collection = row_collection()
    ours = CpuEmbeddingCollection(collection, ADAM)
    with torch.no_grad():
        table.weight.copy_(ours.embeddings["own"].weight)
    for seed in range(4):
        kjt = batch(seed)
        adam.zero_grad()
        (table(kjt["c"].values()) ** 2).sum().backward()
        adam.step()
        (ours(kjt)["c"].values() ** 2).sum().backward()
    torch.testing.assert_close(ours.embeddings["own"].weight, table.weight)


@pytest.mark.parametrize("data_type", [DataType.FP32, DataType.FP16])
@pytest.mark.parametrize("pooling", [PoolingType.SUM, PoolingType.MEAN])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_pooled_lookup(data_type, pooling, dtype):
    plain = bag_collection(pooling=pooling, data_type=data_type)
    kjt = batch(0, dtype=dtype)
    expected = plain(kjt)
    actual = CpuEmbeddingBagCollection(plain)(kjt)
    assert actual.keys() == expected.keys()
    assert actual.length_per_key() == expected.length_per_key()
    assert actual.values().dtype == torch.float32
    # The unsharded collection rounds the pooled half floats, we do not.
    tolerance = 1e-6 if data_type == DataType.FP32 else 2e-3
    torch.testing.assert_close(actual.values(), expected.values(), rtol=0, atol=tolerance)


def test_weighted_lookup():
    plain = bag_collection(weighted=True)
    kjt = batch(0, weighted=True)
    expected = plain(kjt).values()
    torch.testing.assert_close(CpuEmbeddingBagCollection(plain)(kjt).values(), expected)


@pytest.mark.parametrize("data_type", [DataType.FP32, DataType.FP16])
def test_unpooled_lookup(data_type):
    plain = row_collection(data_type)
    kjt = batch(0)
    expected = plain(kjt)
    actual = CpuEmbeddingCollection(plain)(kjt)
    assert list(actual) == list(expected)
    for name, jt in actual.items():
        torch.testing.assert_close(jt.values(), expected[name].values(), rtol=0, atol=0)
        assert torch.equal(jt.lengths(), expected[name].lengths())
        assert torch.equal(jt.weights(), expected[name].weights())


def test_half_float_tables_train():
    ours = CpuEmbeddingBagCollection(bag_collection(data_type=DataType.FP16), ADAM)
    full = CpuEmbeddingBagCollection(bag_collection(), ADAM)
    for name, weight in ours.named_parameters():
        with torch.no_grad():
            full.get_parameter(name).copy_(weight)
    for seed in range(3):
        loss_of(ours(batch(seed)), seed).backward()
        loss_of(full(batch(seed)), seed).backward()
    for name, weight in ours.named_parameters():
        assert weight.dtype == torch.float16
        torch.testing.assert_close(weight.float(), full.get_parameter(name), rtol=0, atol=3e-3)


def test_rows_outside_the_batch_keep_their_bits():
    rule = dataclasses.replace(ADAM, weight_decay=0.1, weight_decay_mode="decoupled")
    ours = CpuEmbeddingBagCollection(bag_collection(), rule)
    before = weights_of(ours)
    kjt = batch(0)
    loss_of(ours(kjt), 0).backward()
    for name, features in {"shared": ["a", "b"], "own": ["b"]}.items():
        changed = touched(kjt, features)
        others = [row for row in range(ROWS) if row not in changed]
        key = f"embedding_bags.{name}.weight"
        now = ours.get_parameter(key).detach()
        assert torch.equal(now[others], before[key][others])
        assert (now[changed] != before[key][changed]).all()


def test_frozen_tables_never_move():
    rule = dataclasses.replace(SGD, embedding_l2=1.0)
    ours = CpuEmbeddingBagCollection(bag_collection(), rule, frozen={"shared"})
    before = weights_of(ours)
    loss_of(ours(batch(0)), 0).backward()
    after = weights_of(ours)
    assert torch.equal(
        before["embedding_bags.shared.weight"], after["embedding_bags.shared.weight"]
    )
    assert not torch.equal(before["embedding_bags.own.weight"], after["embedding_bags.own.weight"])
    assert list(ours.fused_optimizer.params) == ["embedding_bags.own.weight"]


def test_without_a_rule_nothing_requires_a_gradient():
    ours = CpuEmbeddingBagCollection(bag_collection())
    assert not ours(batch(0)).values().requires_grad
    assert not ours.fused_optimizer.params


def test_output_that_is_not_used_gets_no_update():
    ours = CpuEmbeddingCollection(row_collection(), SGD)
    before = weights_of(ours)
    ours(batch(0))["c"].values().sum().backward()
    after = weights_of(ours)
    assert torch.equal(before["embeddings.shared.weight"], after["embeddings.shared.weight"])
    assert not torch.equal(before["embeddings.own.weight"], after["embeddings.own.weight"])


def test_learning_rate_of_the_param_group_counts():
    ours = CpuEmbeddingBagCollection(bag_collection(), SGD)
    before = weights_of(ours)
    ours.fused_optimizer.param_groups[0]["lr"] = 0.0
    loss_of(ours(batch(0)), 0).backward()
    for name, weight in weights_of(ours).items():
        assert torch.equal(weight, before[name])


def test_same_input_same_bits():
    results = []
    for _ in range(2):
        ours = CpuEmbeddingBagCollection(bag_collection(), ADAM)
        for seed in range(3):
            loss_of(ours(batch(seed)), seed).backward()
        results.append(weights_of(ours))
    for name, weight in results[0].items():
        assert torch.equal(weight, results[1][name])


def test_slots_start_over_before_they_overflow(monkeypatch):
    expected = CpuEmbeddingBagCollection(bag_collection(), ADAGRAD)
    ours = CpuEmbeddingBagCollection(bag_collection(), ADAGRAD)
    for seed in range(8):
        loss_of(expected(batch(seed)), seed).backward()
    monkeypatch.setattr(table_module, "_SLOT_LIMIT", 30)
    for seed in range(8):
        loss_of(ours(batch(seed)), seed).backward()
    for name, weight in weights_of(ours).items():
        assert torch.equal(weight, expected.get_parameter(name))


@pytest.mark.parametrize("bad", [-1, ROWS])
def test_an_id_that_is_no_row_is_named(bad):
    kjt = KeyedJaggedTensor(
        ["a", "b", "c"], torch.tensor([1, bad, 2]), lengths=torch.tensor([1, 1, 1])
    )
    with pytest.raises(DataError, match=f"feature b holds the id {bad}, but table shared has rows"):
        CpuEmbeddingBagCollection(bag_collection(), SGD)(kjt)
    with pytest.raises(DataError, match=f"feature b holds the id {bad}"):
        CpuEmbeddingCollection(row_collection(), SGD)(kjt)


def test_an_empty_batch_changes_nothing():
    ours = CpuEmbeddingBagCollection(bag_collection(), ADAM)
    before = weights_of(ours)
    empty = torch.zeros(0, dtype=torch.int64)
    kjt = KeyedJaggedTensor(["a", "b"], empty, lengths=torch.zeros(4, dtype=torch.int64))
    output = ours(kjt).values()
    assert output.shape == (2, 18)
    assert not output.any()
    output.sum().backward()
    for name, weight in weights_of(ours).items():
        assert torch.equal(weight, before[name])


def test_gradient_of_feature_weights_is_refused():
    kjt = batch(0, weighted=True)
    kjt.weights().requires_grad_()
    with pytest.raises(Unsupported, match="weights of a weighted feature"):
        CpuEmbeddingBagCollection(bag_collection(weighted=True), SGD)(kjt)


def test_weights_are_taken_over_and_hidden_from_dense_optimizers():
    plain = bag_collection()
    parameters = dict(plain.named_parameters())
    ours = CpuEmbeddingBagCollection(plain, ADAM)
    assert {n: id(p) for n, p in ours.named_parameters()} == {
        n: id(p) for n, p in parameters.items()
    }
    assert all(hasattr(p, "_in_backward_optimizers") for p in ours.parameters())


def test_states_have_torchrecs_names():
    ours = CpuEmbeddingBagCollection(bag_collection(), ADAM)
    state = ours.fused_optimizer.state_dict()["state"]["embedding_bags.own.weight"]
    assert set(state) == {"own.momentum1", "own.exp_avg_sq", "own.step"}
    loss_of(ours(batch(0)), 0).backward()
    assert state["own.step"] == 1
    assert state["own.exp_avg_sq"].any()
    rowwise = CpuEmbeddingBagCollection(bag_collection(), ROWWISE)
    state = rowwise.fused_optimizer.state_dict()["state"]["embedding_bags.own.weight"]
    assert state["own.momentum1"].shape == (ROWS,)


def test_loss_scale_is_taken_out():
    expected = CpuEmbeddingBagCollection(bag_collection(), ADAGRAD)
    ours = CpuEmbeddingBagCollection(bag_collection(), ADAGRAD)
    ours.set_loss_scale(LossScale(1024.0))
    loss_of(expected(batch(0)), 0).backward()
    (loss_of(ours(batch(0)), 0) * 1024.0).backward()
    for name, weight in weights_of(ours).items():
        assert torch.equal(weight, expected.get_parameter(name))


def test_a_gradient_that_overflowed_moves_nothing():
    ours = CpuEmbeddingBagCollection(bag_collection(), ADAM)
    ours.set_loss_scale(LossScale(2.0))
    before = weights_of(ours)
    (loss_of(ours(batch(0)), 0) * math.inf).backward()
    for name, weight in weights_of(ours).items():
        assert torch.equal(weight, before[name])
