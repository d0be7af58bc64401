"""``plan`` of a checkpoint: where the embedding tables lived, for people and other programs."""

from __future__ import annotations

from typing import Any

from torch import nn

from tzrec.ops.cpu.collections import CpuEmbeddingBagCollection, CpuEmbeddingCollection

# Our kernels of one process: whole tables, updated in the backward pass.
_IN_ONE_PROCESS = {"sharding_type": "table_wise", "compute_kernel": "fused", "ranks": [0]}


def placement(model: nn.Module) -> dict[str, Any]:
    """Returns module path → table → sharding type, compute kernel and ranks.

    Args:
        model: distributed by TorchRec, or not.
    """
    wrapped: Any = model
    plans: Any = getattr(getattr(wrapped, "plan", None), "plan", {})
    placed = {
        path: {
            table: {
                "sharding_type": where.sharding_type,
                "compute_kernel": where.compute_kernel,
                "ranks": list(where.ranks or []),
            }
            for table, where in plan.items()
        }
        for path, plan in plans.items()
    }
    for path, module in getattr(wrapped, "module", wrapped).named_modules():
        if isinstance(module, CpuEmbeddingBagCollection):
            placed[path] = {c.name: dict(_IN_ONE_PROCESS) for c in module.embedding_bag_configs()}
        elif isinstance(module, CpuEmbeddingCollection):
            placed[path] = {c.name: dict(_IN_ONE_PROCESS) for c in module.embedding_configs()}
    return placed
