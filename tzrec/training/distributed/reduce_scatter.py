"""Row-wise tables on ranks whose batches differ in size, without NCCL."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor, nn
from torchrec.distributed.comm_ops import ReduceScatterVInfo, reduce_scatter_v_sync
from torchrec.distributed.dist_data import PooledEmbeddingsAwaitable, PooledEmbeddingsReduceScatter
from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection
from torchrec.distributed.sharding.rw_sharding import RwPooledEmbeddingDist
from torchrec.distributed.types import NoWait


class UnevenReduceScatter(PooledEmbeddingsReduceScatter):
    """Sums what all ranks have of each rank's rows, however many rows each of them has.

    TorchRec gathers the gradients of unequal batches by an operation that gloo has for equal ones
    only. Here they are exchanged instead.
    """

    def forward(
        self, local_embs: Tensor, input_splits: list[int] | None = None
    ) -> PooledEmbeddingsAwaitable:
        """Returns the sum of this rank's rows.

        Args:
            local_embs: (sum of rows, dim), the rows of rank 0, of rank 1, …
            input_splits: rows of each rank.
        """
        if not input_splits or len(set(input_splits)) == 1:
            return super().forward(local_embs, input_splits)
        width = list(local_embs.shape[1:])
        info = ReduceScatterVInfo(
            input_sizes=[[rows, *width] for rows in input_splits],
            input_splits=input_splits,
            equal_splits=False,
            total_input_size=list(local_embs.shape),
            codecs=self._codecs,
        )
        found = reduce_scatter_v_sync(self._pg, info, local_embs)
        return PooledEmbeddingsAwaitable(tensor_awaitable=NoWait(found))


def allow_uneven_batches(model: nn.Module) -> None:
    """Lets the ranks of a sharded model look up different numbers of rows; NCCL does anyway."""
    if dist.get_backend() == "nccl":
        return
    for module in model.modules():
        if isinstance(module, ShardedEmbeddingBagCollection):
            for output in module._output_dists:
                if isinstance(output, RwPooledEmbeddingDist):
                    output._dist = UnevenReduceScatter(output._pg, output._codecs)
