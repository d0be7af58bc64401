"""TorchRec's collections of embedding tables, with lookup and update by our CPU kernels.

They stand in for `EmbeddingBagCollection` and `EmbeddingCollection` in a model that trains in
one process: same interface, same parameters under the same names, same results. No gradient of
a whole table ever exists: the backward pass sums those of the rows of the batch, and
`tzrec.ops.accumulation.Accumulation` moves these rows.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torchrec.modules.embedding_configs import EmbeddingBagConfig, EmbeddingConfig
from torchrec.modules.embedding_modules import (
    EmbeddingBagCollection,
    EmbeddingBagCollectionInterface,
    EmbeddingCollection,
    EmbeddingCollectionInterface,
)
from torchrec.optim.fused import FusedOptimizerModule
from torchrec.optim.keyed import KeyedOptimizer

from tzrec.batch import JaggedTensor, KeyedJaggedTensor, KeyedTensor
from tzrec.ops.cpu.group import TableGroup
from tzrec.ops.cpu.rule import UpdateRule


class CpuTables(FusedOptimizerModule):
    """What both collections answer about their tables.

    Attributes:
        tables: the tables with the gradients of their rows.
    """

    tables: TableGroup

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    @property
    def fused_optimizer(self) -> KeyedOptimizer:
        """States of the tables."""
        return self.tables.optimizer


class CpuEmbeddingBagCollection(CpuTables, EmbeddingBagCollectionInterface):
    """`EmbeddingBagCollection` with our kernels; takes over the modules that hold its weights.

    Args:
        collection: collection on the CPU whose tables are taken over, with their values.
        rule: how rows move; None = never.
        frozen: names of tables that never move.
    """

    def __init__(
        self,
        collection: EmbeddingBagCollection,
        rule: UpdateRule | None = None,
        *,
        frozen: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.embedding_bags = collection.embedding_bags
        self._configs = collection.embedding_bag_configs()
        self._is_weighted = collection.is_weighted()
        weights = {name: module.weight for name, module in self.embedding_bags.items()}
        self.tables = TableGroup(
            self._configs, weights, prefix="embedding_bags", rule=rule, frozen=frozen
        )

    def forward(self, features: KeyedJaggedTensor) -> KeyedTensor:
        """Returns the pooled embeddings, keys in the order of the configs.

        Raises:
            DataError: an id is not a row of its table.
        """
        tables = self.tables
        return KeyedTensor(
            keys=[use.name for use in tables.uses],
            length_per_key=[use.table.dim for use in tables.uses],
            values=tables.pool(features, weighted=self._is_weighted),
        )

    def embedding_bag_configs(self) -> list[EmbeddingBagConfig]:
        """Returns the configs of the tables."""
        return self._configs

    def is_weighted(self) -> bool:
        """Tells whether the input carries weights."""
        return self._is_weighted


class CpuEmbeddingCollection(CpuTables, EmbeddingCollectionInterface):
    """`EmbeddingCollection` with our kernels; as `CpuEmbeddingBagCollection`."""

    def __init__(
        self,
        collection: EmbeddingCollection,
        rule: UpdateRule | None = None,
        *,
        frozen: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.embeddings = collection.embeddings
        self._configs = collection.embedding_configs()
        self._need_indices = collection.need_indices()
        self._dim = collection.embedding_dim()
        self._names = collection.embedding_names_by_table()
        weights = {name: module.weight for name, module in self.embeddings.items()}
        self.tables = TableGroup(
            self._configs, weights, prefix="embeddings", rule=rule, frozen=frozen
        )

    def forward(self, features: KeyedJaggedTensor) -> dict[str, JaggedTensor]:
        """Returns the embedding of every id: key → values (n, D) with the input's lengths.

        Raises:
            DataError: an id is not a row of its table.
        """
        tables = self.tables
        by_feature = features.to_dict()
        return {
            use.name: JaggedTensor(
                values=output,
                lengths=by_feature[use.feature].lengths(),
                weights=by_feature[use.feature].values() if self._need_indices else None,
            )
            for use, output in zip(tables.uses, tables.gather(features), strict=True)
        }

    def embedding_configs(self) -> list[EmbeddingConfig]:
        """Returns the configs of the tables."""
        return self._configs

    def embedding_dim(self) -> int:
        """Returns the common dimension D."""
        return self._dim

    def embedding_names_by_table(self) -> list[list[str]]:
        """Returns the output keys of each table."""
        return self._names

    def need_indices(self) -> bool:
        """Tells whether the output carries the ids."""
        return self._need_indices
