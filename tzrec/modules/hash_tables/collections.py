"""Collections of hash tables: ids go through their maps, then to TorchRec's collections.

The names of the attributes are those of TorchRec's managed-collision collections, so that tables
have the names that configs and other programs know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection

from tzrec.batch import KeyedJaggedTensor
from tzrec.modules.embedding_tables import features_of
from tzrec.modules.hash_tables.id_map import IdMap


class HashTables(nn.Module):
    """What both collections do: the map of each table.

    Args:
        collection: TorchRec's, of tables whose configs have a ``hash_table`` attribute
            (`HashTableSpec`).
        data_group: the data group that the features live on.
        weighted: ids have weights.
        device: where the maps live.

    Attributes:
        id_maps: table → map.
        features_of: table → features that look it up.
        data_group: the data group of the features.
    """

    def __init__(
        self,
        collection: EmbeddingBagCollection | EmbeddingCollection,
        data_group: str,
        *,
        weighted: bool,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self._embedding_module: Any = collection
        self._weighted = weighted
        self.data_group = data_group
        self.configs = _configs(collection)
        self.id_maps: Any = nn.ModuleDict(
            {config.name: IdMap(config.hash_table, device) for config in self.configs}
        )
        self.features_of = {config.name: features_of(config) for config in self.configs}

    def forward(self, features: KeyedJaggedTensor) -> Any:
        """Returns the embeddings, as TorchRec's collection does for ids that are rows."""
        return self._embedding_module(self.map_ids(features))

    def map_ids(self, features: KeyedJaggedTensor) -> KeyedJaggedTensor:
        """Returns the features of these tables, ids replaced by rows."""
        given = features.to_dict()
        uses = [(table, name) for table, names in self.features_of.items() for name in names]
        weights = None
        if self._weighted:
            weights = torch.cat([given[name].weights() for _, name in uses])
        return KeyedJaggedTensor(
            keys=[key for config in self.configs for key in config.feature_names],
            values=torch.cat([self.id_maps[table](given[name].values()) for table, name in uses]),
            lengths=torch.cat([given[name].lengths() for _, name in uses]),
            weights=weights,
        )

    def dim_of(self, table: str) -> int:
        """Returns the embedding dimension of a table."""
        return int(self._config_of(table).embedding_dim)

    def is_frozen(self, table: str) -> bool:
        """Whether neither the rows of a table nor its map change (``trainable: false``)."""
        return not getattr(self._config_of(table), "trainable", True)

    def _config_of(self, table: str) -> Any:
        (config,) = (config for config in self.configs if config.name == table)
        return config

    def ids_of(self, table: str, features: KeyedJaggedTensor) -> Tensor:
        """Returns the ids (n,) that are looked up in a table."""
        given = features.to_dict()
        return torch.cat([given[name].values() for name in self.features_of[table]])


def split_tables(tables: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Returns the configs of plain tables, and those of hash tables.

    A feature of several hash tables has other rows in each. So it gets the key
    ``feature@table`` in each of them, which TorchRec gives their outputs as well. The attribute
    ``features`` of its config keeps the names of the features.
    """
    plain = [table for table in tables if table.hash_table is None]
    hashed = [table for table in tables if table.hash_table is not None]
    times = Counter(name for table in hashed for name in table.feature_names)
    for table in hashed:
        names = table.features = table.feature_names
        table.feature_names = [n if times[n] == 1 else f"{n}@{table.name}" for n in names]
    return plain, hashed


def _configs(collection: EmbeddingBagCollection | EmbeddingCollection) -> Sequence[Any]:
    if isinstance(collection, EmbeddingBagCollection):
        return collection.embedding_bag_configs()
    return collection.embedding_configs()
