"""Which parameters are embedding tables, and which of them train."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

# (attribute of the configs, attribute of the tables) of TorchRec's collections: plain, sharded.
_KINDS = (("_embedding_bag_configs", "embedding_bags"), ("_embedding_configs", "embeddings"))


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


def _tables(module: nn.Module) -> Iterator[tuple[Any, nn.Parameter]]:
    for child in module.modules():
        for configs_attribute, tables_attribute in _KINDS:
            configs = getattr(child, configs_attribute, None)
            tables = getattr(child, tables_attribute, None)
            if configs is None or not isinstance(tables, nn.ModuleDict):
                continue
            for config in configs:
                table: Any = tables[config.name]
                yield config, table.weight
