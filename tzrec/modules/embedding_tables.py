"""Which tables an implementation object has, who shares them, and how lookups are keyed."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from tzrec.errors import ConfigError
from tzrec.features.feature import BaseFeature
from tzrec.features.init_fn import InitFn
from tzrec.modules.dense_embedding_collection import DenseEmbeddingConfig
from tzrec.modules.utils import check_module_name

# An EmbeddingBagConfig or EmbeddingConfig of TorchRec.
TableConfig = Any


@dataclasses.dataclass(frozen=True)
class TableUse:
    """How a group uses a feature's table.

    Attributes:
        group: name of the feature group, for messages.
        suffix: embedding_name_suffix of the group, "" for none.
        wide: whether the group is WIDE: a table of its own with its own size.
        wide_dim: size of the rows of wide tables.
        wide_init_fn: initial values of wide tables; None keeps the feature's.
    """

    group: str
    suffix: str = ""
    wide: bool = False
    wide_dim: int = 4
    wide_init_fn: InitFn | None = None

    def table_name(self, embedding_name: str) -> str:
        """Returns the final name of the table called ``embedding_name``."""
        wide = "_wide" if self.wide else ""
        return embedding_name + wide + (f"_{self.suffix}" if self.suffix else "")


@dataclasses.dataclass
class _Table:
    config: TableConfig
    trainable: bool
    use: TableUse
    feature: str


class TablePlan:
    """Collects the tables of one implementation object in order of first use."""

    def __init__(self) -> None:
        self._tables: dict[str, _Table] = {}
        self._tables_of: dict[str, list[str]] = {}

    def add(self, feature: BaseFeature, config: TableConfig, use: TableUse) -> tuple[str, str]:
        """Adds a use of a feature's table.

        Args:
            feature: the feature.
            config: its table as the feature describes it.
            use: the group that looks it up.

        Returns:
            (feature, table): what `key` takes once all uses are known.

        Raises:
            ConfigError: the table's name is taken by one that cannot be shared.
        """
        wanted: dict[str, Any] = {
            "name": check_module_name(use.table_name(config.name), "embedding_name"),
            "feature_names": [feature.name],
        }
        if use.wide:
            wanted["embedding_dim"] = use.wide_dim
            wanted["init_fn"] = use.wide_init_fn or config.init_fn
        new = _Table(
            dataclasses.replace(config, **wanted), bool(feature.trainable), use, feature.name
        )
        new.config.hash_table = getattr(feature, "hash_table", None)
        name = new.config.name
        old = self._tables.setdefault(name, new)
        if old is not new:
            _check_shareable(old, new)
            if feature.name not in old.config.feature_names:
                old.config.feature_names.append(feature.name)
        tables = self._tables_of.setdefault(feature.name, [])
        if name not in tables:
            tables.append(name)
        return feature.name, name

    def key(self, feature: str, table: str) -> str:
        """Returns the key of a feature's rows of ``table`` in the output of the collection."""
        return feature if len(self._tables_of[feature]) == 1 else f"{feature}@{table}"

    def configs(self) -> list[TableConfig]:
        """Returns the tables; each config carries ``trainable`` and ``hash_table``."""
        configs = []
        for table in self._tables.values():
            table.config.trainable = table.trainable
            configs.append(table.config)
        return configs


def features_of(config: TableConfig) -> list[str]:
    """Returns the features that look up a table, by their own names.

    Of hash tables ``feature_names`` may be keys, ``feature@table``.
    """
    return list(getattr(config, "features", config.feature_names))


def _check_shareable(old: _Table, new: _Table) -> None:
    """Raises ConfigError naming both features and everything that differs."""
    name = new.config.name
    if (old.use.suffix, old.use.wide) != (new.use.suffix, new.use.wide):
        raise ConfigError(
            f"table {name!r} is reached in two ways: feature {old.feature!r} of group "
            f"{old.use.group!r} ({_way(old.use)}) and feature {new.feature!r} of group "
            f"{new.use.group!r} ({_way(new.use)})",
            hint="change embedding_name or embedding_name_suffix so that the names differ",
        )
    fields = ("num_embeddings", "embedding_dim", "data_type", "pooling")
    different = [
        f"{field} {getattr(old.config, field)} and {getattr(new.config, field)}"
        for field in fields
        if getattr(old.config, field, None) != getattr(new.config, field, None)
    ]
    if not _same_init(old.config.init_fn, new.config.init_fn):
        different.append(
            f"init_fn {_init_text(old.config.init_fn)} and {_init_text(new.config.init_fn)}"
        )
    if old.config.hash_table != new.config.hash_table:
        different.append(f"hash table {old.config.hash_table} and {new.config.hash_table}")
    if old.trainable != new.trainable:
        different.append(f"trainable {old.trainable} and {new.trainable}")
    if different:
        raise ConfigError(
            f"features {old.feature!r} and {new.feature!r} share the table {name!r} but differ in "
            + ", ".join(different),
            hint="make them equal, or give one of the features another embedding_name",
        )


def _way(use: TableUse) -> str:
    suffix = f"embedding_name_suffix {use.suffix!r}" if use.suffix else "no suffix"
    return f"wide table, {suffix}" if use.wide else suffix


def _same_init(old: Any, new: Any) -> bool:
    if isinstance(old, functools.partial) and isinstance(new, functools.partial):
        return (old.func, old.args, old.keywords) == (new.func, new.args, new.keywords)
    return bool(old == new)


def _init_text(init_fn: Any) -> str:
    if not isinstance(init_fn, functools.partial):
        return getattr(init_fn, "__name__", repr(init_fn))
    args = [_init_text(arg) if callable(arg) else repr(arg) for arg in init_fn.args]
    args += [
        f"{key}={value:.6g}" if isinstance(value, float) else f"{key}={value!r}"
        for key, value in init_fn.keywords.items()
    ]
    return f"{_init_text(init_fn.func)}({', '.join(args)})"


def dense_embedding_config(feature: BaseFeature) -> DenseEmbeddingConfig | None:
    """Returns how a dense feature is embedded; None if its values are used as they are.

    Sequences of dense values stay as they are (reference 04 section 4.3.2).
    """
    settings = feature.dense_emb_config
    if settings is None or feature.is_sequence:
        return None
    num_channels = int(getattr(settings, "num_channels", 0))
    config = DenseEmbeddingConfig(max(feature.value_dim, 1), feature.embedding_dim)
    if not num_channels:
        return config
    return dataclasses.replace(
        config,
        num_channels=num_channels,
        temperature=settings.temperature,
        keep_prob=settings.keep_prob,
    )
