"""A group whose collections TorchRec has sharded: awaitables, and keys in another order."""

import dataclasses
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from modules_fakes import to_batch, to_parsed
from test_modules_embedding import CONFIG, FEATURES, NESTED, ROWS, build
from torch import nn
from torchrec.distributed.model_parallel import DistributedModelParallel, get_default_sharders
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward


@pytest.fixture(autouse=True)
def process_group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_sharded_equals_unsharded() -> None:
    # FBGEMM takes dims that are multiples of 4.
    features = [dataclasses.replace(f, embedding_dim=8) for f in FEATURES]
    group = build(CONFIG + NESTED.replace('"deep"', '"nested"'), features)
    batch = to_batch(features, to_parsed(features, ROWS))
    expected = group(batch)
    keys = list(group.emb_impls["__BASE__"].lookup(batch).to_dict())
    state = {name: value.clone() for name, value in group.state_dict().items()}
    sparse = [p for name, p in group.named_parameters() if ".embedding" in name]
    apply_optimizer_in_backward(torch.optim.SGD, sparse, {"lr": 1.0})
    # Two kinds of sharding, since one alone keeps the order of the keys.
    tables = {name.split(".")[-2] for name in state if ".embedding" in name}
    constraints = {
        name: ParameterConstraints(
            sharding_types=["column_wise" if name == "tags_emb" else "table_wise"]
        )
        for name in tables
    }
    planner = EmbeddingShardingPlanner(
        topology=Topology(world_size=1, compute_device="cpu"), constraints=constraints
    )
    root = nn.ModuleDict({"group": group})
    sharders = get_default_sharders()
    model = DistributedModelParallel(
        root,
        device=torch.device("cpu"),
        plan=planner.plan(root, sharders),
        sharders=sharders,
        init_data_parallel=False,
    )
    sharded = model.module["group"]
    ebc = sharded.emb_impls["__BASE__"].ebc
    assert type(ebc).__name__ == "ShardedEmbeddingBagCollection"
    for name, value in sharded.state_dict().items():
        target = value.local_shards()[0].tensor if hasattr(value, "local_shards") else value
        target.copy_(state[name])
    sharded_keys = list(sharded.emb_impls["__BASE__"].lookup(batch).to_dict())
    assert sorted(keys) == sorted(sharded_keys)
    assert keys != sharded_keys  # otherwise the test shows nothing
    torch.testing.assert_close(sharded(batch), expected)
