"""Our collections against TorchRec's unsharded ones."""

import pytest
import torch
from ops_tables import (
    ROWS,
    bag_collection,
    batch,
    row_collection,
    train,
    update,
    weights_of,
)
from torchrec.modules.embedding_configs import DataType, PoolingType
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from tzrec.errors import DataError, Unsupported
from tzrec.ops.cpu import table as table_module
from tzrec.ops.cpu.collections import CpuEmbeddingBagCollection, CpuEmbeddingCollection
from tzrec.ops.cpu.rule import UpdateRule

SGD = UpdateRule("sgd", 0.1)
ADAGRAD = UpdateRule("adagrad", 0.1)
ADAM = UpdateRule("adam", 0.1)


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


def test_without_a_rule_nothing_requires_a_gradient():
    ours = CpuEmbeddingBagCollection(bag_collection())
    assert not ours(batch(0)).values().requires_grad
    assert not ours.fused_optimizer.params


def test_output_that_is_not_used_gets_no_update():
    ours = CpuEmbeddingCollection(row_collection(), SGD)
    before = weights_of(ours)
    ours(batch(0))["c"].values().sum().backward()
    update(ours)
    after = weights_of(ours)
    assert torch.equal(before["embeddings.shared.weight"], after["embeddings.shared.weight"])
    assert not torch.equal(before["embeddings.own.weight"], after["embeddings.own.weight"])


def test_learning_rate_of_the_param_group_counts():
    ours = CpuEmbeddingBagCollection(bag_collection(), SGD)
    before = weights_of(ours)
    ours.fused_optimizer.param_groups[0]["lr"] = 0.0
    train(ours, [0])
    for name, weight in weights_of(ours).items():
        assert torch.equal(weight, before[name])


def test_slots_start_over_before_they_overflow(monkeypatch):
    expected = CpuEmbeddingBagCollection(bag_collection(), ADAGRAD)
    ours = CpuEmbeddingBagCollection(bag_collection(), ADAGRAD)
    train(expected, range(8))
    monkeypatch.setattr(table_module, "_SLOT_LIMIT", 20)
    train(ours, range(8))
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
    update(ours)
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
