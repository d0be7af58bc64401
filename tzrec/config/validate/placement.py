"""Where embedding tables go: ``embedding_constraints`` and the global ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tzrec.config.problem import Problem, warning
from tzrec.config.validate.frame import Context
from tzrec.errors import did_you_mean

SHARDING_TYPES = (
    "data_parallel",
    "table_wise",
    "column_wise",
    "row_wise",
    "table_row_wise",
    "table_column_wise",
    "grid_shard",
)
COMPUTE_KERNELS = (
    "dense",
    "fused",
    "fused_uvm",
    "fused_uvm_caching",
    "key_value",
    "customized_kernel",
)
_GLOBAL = "train_config.global_embedding_constraints"


def placement(context: Context) -> Iterator[Problem]:
    """Placement never changes what is learnt; in one process on a CPU there is nothing to place."""
    train = context.config.train_config
    features = [f for f in context.features if f.config.HasField("embedding_constraints")]
    marked = [(f"{f.path}.embedding_constraints", f.config.embedding_constraints) for f in features]
    if train.HasField("global_embedding_constraints"):
        marked.insert(0, (_GLOBAL, train.global_embedding_constraints))
    for path, message in marked:
        yield from _names(f"{path}.sharding_types", message.sharding_types, SHARDING_TYPES)
        yield from _names(f"{path}.compute_kernels", message.compute_kernels, COMPUTE_KERNELS)
    # Those of zch tables have no effect anywhere, which another rule says.
    nowhere = {f"{f.path}.embedding_constraints" for f in features if "zch" in f.bucketisers}
    here = [path for path, _ in marked if path not in nowhere]
    if here:
        more = f" (and {len(here) - 1} more)" if len(here) > 1 else ""
        yield warning(
            here[0],
            "placement constraints have an effect in several processes or on a GPU only: one "
            f"process on a CPU keeps every table whole{more}",
        )


def _names(path: str, found: Any, known: tuple[str, ...]) -> Iterator[Problem]:
    for i, name in enumerate(found):
        if name not in known:
            yield Problem(
                f"{path}[{i}]",
                f"is {name!r}, must be one of {', '.join(known)}{did_you_mean(name, known)}",
            )


RULES = (placement,)
