"""What the planner takes a table's shards to need: TorchRec's estimate with exact states."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from torchrec import optim as torchrec_optim
from torchrec.distributed.planner.shard_estimators import (
    EmbeddingStorageEstimator,
    _get_optimizer_multipler,
)
from torchrec.distributed.planner.types import (
    ShardingOption,
    Storage,
    Topology,
)
from torchrec.distributed.types import ShardingType

from tzrec.ops.cpu.rule import UpdateRule

# Kernels whose tables lie in the machine's memory while GPUs compute.
IN_DDR = ("fused_uvm", "fused_uvm_caching")


def state_bytes(rule: UpdateRule | None, rows: int, dim: int) -> int:
    """Returns the bytes of the optimizer states of (rows, dim) of a table; they are FP32."""
    if rule is None:
        return 0
    return sum(4 * math.prod(shape) for shape in rule.state_shapes(rows, dim).values() if shape)


class StorageEstimator(EmbeddingStorageEstimator):
    """TorchRec's, mended: it takes states to have the type of the weights, and guesses others.

    Args:
        topology: where tables can go.
        rule: how tables that train move; frozen ones are known by their optimizer class, SGD.
    """

    def __init__(self, topology: Topology, rule: UpdateRule | None) -> None:
        super().__init__(topology=topology)
        self._rule = rule

    def estimate(self, sharding_options: list[ShardingOption], sharder_data_map: Any) -> None:
        """Fills in the storage of every shard of the options."""
        super().estimate(sharding_options, sharder_data_map=sharder_data_map)
        for option in sharding_options:
            tensor = option.tensor
            known = getattr(tensor, "_optimizer_classes", [None])[0]
            rule = None if known is torchrec_optim.SGD else self._rule
            factor = _get_optimizer_multipler(known, tensor.shape)
            for shard in option.shards:
                rows, dim = shard.size
                guess = math.ceil(rows * dim * tensor.element_size() * factor)
                more = state_bytes(rule, rows, dim) - guess
                if option.sharding_type == ShardingType.DATA_PARALLEL.value:
                    more += 4 * rows * dim  # the dense gradient
                shard.storage = self._with(shard.storage, more, option.compute_kernel)

    def _with(self, storage: Storage, more: int, kernel: str) -> Storage:
        if self._topology.compute_device == "cpu" or kernel in IN_DDR:
            return dataclasses.replace(storage, ddr=max(storage.ddr + more, 0))
        return dataclasses.replace(storage, hbm=max(storage.hbm + more, 0))
