"""Tables that every rank holds whole, and tables that get their memory later."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchrec.modules.embedding_configs import DataType, EmbeddingBagConfig, EmbeddingConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection

from tzrec.modules.deferred_tables import Deferred, deferred_tables, table_device
from tzrec.ops.cpu.rule import UpdateRule
from tzrec.optim.replicated_tables import ReplicatedTables

META = torch.device("meta")


@pytest.mark.parametrize("kind", ["pooled", "rows"])
@pytest.mark.parametrize("data_type", [DataType.FP32, DataType.FP16])
def test_deferred_tables_have_the_values_of_others(kind, data_type):
    def build():
        torch.manual_seed(3)
        config = EmbeddingBagConfig if kind == "pooled" else EmbeddingConfig
        tables = [
            config(
                name=f"t{i}",
                num_embeddings=7 + 30 * i,
                embedding_dim=5,
                feature_names=[f"f{i}"],
                data_type=data_type,
                init_fn=init,
            )
            for i, init in enumerate((None, nn.init.normal_, nn.init.ones_))
        ]
        collection = EmbeddingBagCollection if kind == "pooled" else EmbeddingCollection
        built = collection(tables=tables, device=table_device(tables, None))
        return tables, list(built.parameters()), nn.Linear(3, 4).weight

    tables, expected, dense = build()
    with deferred_tables():
        deferred, parameters, later = build()
    assert all(parameter.is_meta for parameter in parameters)
    assert torch.equal(dense, later)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    for table, weight, value in zip(deferred, parameters, expected, strict=True):
        assert isinstance(table.init_fn, Deferred)
        assert torch.equal(table.init_fn.make(weight.shape, weight.dtype), value)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(isinstance(table.init_fn, Deferred) for table in tables)


def test_hash_tables_are_not_deferred():
    tables = [SimpleNamespace(hash_table=object())]
    with deferred_tables():
        assert table_device(tables, None) is None
    with deferred_tables("plan"):
        assert table_device(tables, None) == META
        assert table_device(tables, torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("kind", ["sgd", "adagrad", "rowwise_adagrad"])
def test_replicated_tables_follow_the_formulas(kind):
    rule = UpdateRule(kind, 0.1, eps=1e-3, initial_accumulator_value=0.5)
    generator = torch.Generator().manual_seed(0)
    table = nn.Parameter(torch.randn(6, 4, generator=generator))
    weight = table.detach().double().clone()
    optimizer = ReplicatedTables([table], rule=rule, names=["t"])
    squares = torch.full((6, 4) if kind == "adagrad" else (6,), 0.5, dtype=torch.float64)
    for _ in range(3):
        gradient = torch.randn(6, 4, generator=generator)
        gradient[[1, 4]] = 0
        table.grad = gradient.clone()
        optimizer.step()
        g = gradient.double()
        if kind == "sgd":
            weight -= 0.1 * g
        elif kind == "adagrad":
            squares += g**2
            weight -= 0.1 * g / (squares.sqrt() + 1e-3)
        else:
            squares += (g**2).mean(1)
            weight -= 0.1 * g / (squares.sqrt() + 1e-3)[:, None]
    torch.testing.assert_close(table.detach().double(), weight, rtol=1e-6, atol=1e-7)
    state = optimizer.state[table]
    assert list(state) == ([] if kind == "sgd" else ["t.momentum1"])
    if kind != "sgd":
        torch.testing.assert_close(state["t.momentum1"].double(), squares)
