"""Two gloo ranks whose batches differ in size: a last batch, hard negatives, batches by cost."""

from __future__ import annotations

import json
import multiprocessing

import numpy as np
import pytest
import torch
import torch.distributed as dist
from google.protobuf import text_format
from torch import nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig, EmbeddingConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from tzrec.protos.train_pb2 import TrainConfig
from tzrec.training.distributed.wrap import distribute

NUM_IDS, DIM = 10, 4
ROWS = (5, 3)
KINDS = ("row_wise", "table_wise")
CONFIG = """
sparse_optimizer { sgd_optimizer { lr: 1.0 } constant_learning_rate {} }
dense_optimizer { sgd_optimizer { lr: 1.0 } constant_learning_rate {} }
global_embedding_constraints { sharding_types: "%s" }
"""


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        size = {"num_embeddings": NUM_IDS, "embedding_dim": DIM, "feature_names": ["f"]}
        self.ebc = EmbeddingBagCollection([EmbeddingBagConfig(name="pooled", **size)])
        self.ec = EmbeddingCollection(tables=[EmbeddingConfig(name="steps", **size)])

    def forward(self, ids: KeyedJaggedTensor) -> torch.Tensor:
        return self.ebc(ids).values().sum() + self.ec(ids)["f"].values().sum()


def ids_of(rank):
    """One id a row."""
    return [(3 * row + rank) % NUM_IDS for row in range(ROWS[rank])]


def changes(rank, kind):
    """How far each row of the tables of this rank's shards moves, at each of two steps."""
    torch.manual_seed(0)
    config = text_format.Parse(CONFIG % kind, TrainConfig())
    model = distribute(Model(), train_config=config, device=torch.device("cpu"))
    values = torch.tensor(ids_of(rank))
    ids = KeyedJaggedTensor(["f"], values, lengths=torch.ones(len(values), dtype=torch.int32))
    found = []
    for _ in range(2):
        before = shards(model)
        ((rank + 1) * model(ids)).backward()
        after = shards(model)
        found.append({name: (after[name] - before[name]).tolist() for name in before})
    return found


def shards(model):
    """Table and first row → the rows of this rank."""
    return {
        f"{name.split('.')[-2]} {shard.metadata.shard_offsets[0]}": shard.tensor.clone()
        for name, table in model.state_dict().items()
        for shard in table.local_shards()
    }


def _rank(rank, folder):
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    found = {kind: changes(rank, kind) for kind in KINDS}
    (folder / f"rank-{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_tables_move_by_the_gradients_of_all_rows(tmp_path):
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=_rank, args=(rank, tmp_path)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
        assert process.exitcode == 0
    found = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2)]
    # The loss of the job is the mean of the ranks'.
    wanted = np.zeros((NUM_IDS, DIM))
    for rank in range(2):
        np.add.at(wanted, ids_of(rank), -(rank + 1) / 2)
    for kind in KINDS:
        for step in range(2):
            parts = {**found[0][kind][step], **found[1][kind][step]}
            assert len(parts) == (4 if kind == "row_wise" else 2)
            for table in ("pooled", "steps"):
                of_table = sorted(name for name in parts if name.startswith(table))
                rows = np.concatenate([parts[name] for name in of_table])
                np.testing.assert_allclose(rows, wanted, atol=1e-6, err_msg=f"{kind} {table}")
