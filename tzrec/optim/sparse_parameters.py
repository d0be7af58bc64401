"""Which parameters are embedding tables, and which of them train."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

# (method that returns the configs, attribute of the tables) of TorchRec's collections. Sharded
# collections have no such method, only the attribute behind it.
_KINDS = (("embedding_bag_configs", "embedding_bags"), ("embedding_configs", "embeddings"))


def split_sparse_parameters(
    module: nn.Module,
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Returns the embedding tables below ``module``: those that train, and the frozen ones.

    A table is frozen when its config (`EmbeddingBagConfig`, `EmbeddingConfig`) has an attribute
    ``trainable`` that is False. Works before and after the model was distributed.
    """
    trainable: dict[int, nn.Parameter] = {}
    frozen: dict[int, nn.Parameter] = {}
    for config, weight in _tables(module):
        chosen = trainable if getattr(config, "trainable", True) else frozen
        chosen[id(weight)] = weight
    return list(trainable.values()), list(frozen.values())


def table_configs(module: nn.Module) -> list[Any]:
    """Returns the `EmbeddingBagConfig`s and `EmbeddingConfig`s below ``module``.

    Works before and after the model was distributed; sizes are those of the whole table.
    """
    return [config for config, _ in _collections(module)]


def _tables(module: nn.Module) -> Iterator[tuple[Any, nn.Parameter]]:
    for config, tables in _collections(module):
        yield config, tables[config.name].weight


def _collections(module: nn.Module) -> Iterator[tuple[Any, Any]]:
    """Yields (config, tables of its collection)."""
    for child in module.modules():
        for configs_name, tables_name in _KINDS:
            tables = getattr(child, tables_name, None)
            if not isinstance(tables, nn.ModuleDict):
                continue
            method = getattr(child, configs_name, None)
            configs: Any = method() if callable(method) else getattr(child, f"_{configs_name}", ())
            for config in configs:
                yield config, tables
