"""What an embedding table's rows stand for, so that a checkpoint is not read as something else.

A table of the same shape with another vocabulary would load without complaint, and every row
would belong to the wrong word. So the manifest keeps, per table, what makes its ids.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from tzrec import storage
from tzrec.errors import CheckpointError
from tzrec.modules.embedding_tables import features_of
from tzrec.optim.sparse_parameters import table_configs
from tzrec.training.location import Location

VOCABULARIES = "vocabularies"

# What the map of a hash table counts besides its rows.
MAP_COUNTERS = (".counter_ids", ".counter_counts")


@dataclass(frozen=True)
class Ids:
    """How the values of some features become rows of a table.

    Attributes:
        features: names of the features.
        facts: what `Bucketizer.identity` says.
        fingerprint: equal fingerprints, equal ids.
        words: returns word → id; empty where there are no words.
    """

    features: tuple[str, ...]
    facts: Mapping[str, Any]
    fingerprint: str
    words: Callable[[], Mapping[str, int]]

    @property
    def kind(self) -> str:
        """The field of the feature that makes ids (``vocab_list``, ``num_buckets``, …)."""
        return str(self.facts["kind"])


@dataclass(frozen=True)
class Table:
    """An embedding table of a model or of a checkpoint.

    Attributes:
        name: name of the table.
        rows: number of rows.
        dim: embedding dimension.
        data_type: element type.
        features: features that look it up.
        ids: how their values become rows, each way once.
    """

    name: str
    rows: int
    dim: int
    data_type: str
    features: tuple[str, ...]
    ids: tuple[Ids, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns the entry of the manifest."""
        return {
            "name": self.name,
            "rows": self.rows,
            "dim": self.dim,
            "data_type": self.data_type,
            "features": list(self.features),
            "ids": [
                {"features": list(i.features), "fingerprint": i.fingerprint, **i.facts}
                for i in self.ids
            ],
        }


def model_tables(model: nn.Module) -> dict[str, Table]:
    """Returns the tables of a model by the name of their weight in its state dict.

    Args:
        model: a wrapper around a `BaseModel`, distributed or not, or any module.
    """
    wrapped: Any = getattr(model, "module", model)
    features = getattr(getattr(wrapped, "model", wrapped), "features", None)
    makers = {f.name: f.bucketizer for f in features} if isinstance(features, list) else {}
    tables = {}
    for weight, config in _named_configs(wrapped):
        names = features_of(config)
        tables[weight] = Table(
            config.name,
            config.num_embeddings,
            config.embedding_dim,
            config.data_type.name,
            tuple(names),
            _group([(name, makers[name]) for name in names if makers.get(name)]),
        )
    return tables


def frozen_weights(model: nn.Module) -> set[str]:
    """Returns the names of the weights of tables that never move, as in `model_tables`."""
    configs = _named_configs(getattr(model, "module", model))
    return {weight for weight, config in configs if not getattr(config, "trainable", True)}


def weights_of_map(buffer: str) -> list[str]:
    """Returns what the weight of a hash table can be called; [] for what is no part of its map.

    Args:
        buffer: name in a state dict, ``….id_maps.{table}.ids``.
    """
    collection, _, rest = buffer.rpartition(".id_maps.")
    table = rest.rpartition(".")[0]
    inner = f"{collection}._embedding_module"
    kinds = ("embedding_bags", "embeddings") if collection else ()
    return [f"{inner}.{kind}.{table}.weight" for kind in kinds]


def _named_configs(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yields the name of each table's weight, and the table's config."""
    for path, module in model.named_modules():
        for attribute in ("embedding_bags", "embeddings"):
            if isinstance(getattr(module, attribute, None), nn.ModuleDict):
                prefix = f"{path}.{attribute}" if path else attribute
                for config in table_configs(module):
                    yield f"{prefix}.{config.name}.weight", config


def _group(makers: Sequence[tuple[str, Any]]) -> tuple[Ids, ...]:
    by_fingerprint: dict[str, list[tuple[str, Any]]] = {}
    for name, maker in makers:
        by_fingerprint.setdefault(maker.fingerprint, []).append((name, maker))
    return tuple(
        Ids(
            tuple(name for name, _ in same),
            same[0][1].identity,
            fingerprint,
            lambda maker=same[0][1]: maker.vocabulary,  # type: ignore[misc]
        )
        for fingerprint, same in by_fingerprint.items()
    )


def vocabulary_files(tables: Mapping[str, Table]) -> dict[str, Mapping[str, int]]:
    """Returns file name → word → id of all vocabularies of some tables, each once."""
    return {
        vocabulary_name(ids.fingerprint): words
        for table in tables.values()
        for ids in table.ids
        if (words := ids.words())
    }


def vocabulary_name(fingerprint: str) -> str:
    """Returns the name of a vocabulary's file within a checkpoint."""
    return f"{fingerprint}.json"


def stored_tables(manifest: Mapping[str, Any], checkpoint: Location) -> dict[str, Table]:
    """Returns the tables of a checkpoint by the name of their weight.

    Args:
        manifest: its manifest; an empty one, or one that knows no ids, returns ``{}``.
        checkpoint: where vocabularies are read, when they are asked for.

    Raises:
        CheckpointError: the manifest says something else.
    """
    entries = manifest.get("tables", {})
    try:
        return {
            weight: Table(
                entry["name"],
                entry["rows"],
                entry["dim"],
                entry["data_type"],
                tuple(entry["features"]),
                tuple(_stored_ids(ids, checkpoint) for ids in entry["ids"]),
            )
            for weight, entry in entries.items()
            if "ids" in entry
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{checkpoint}: manifest.json describes its tables in a way that this version does "
            f"not read ({error!r})"
        ) from error


def _stored_ids(entry: Mapping[str, Any], checkpoint: Location) -> Ids:
    facts = {k: v for k, v in entry.items() if k not in ("features", "fingerprint")}
    fingerprint = str(entry["fingerprint"])

    def words() -> Mapping[str, int]:
        if "words" not in facts:
            return {}
        path = checkpoint / VOCABULARIES / vocabulary_name(fingerprint)
        try:
            with storage.open_file(path, "r", encoding="utf-8") as stream:
                known: dict[str, int] = json.load(stream)
                return known
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error

    _ = facts["kind"], facts["rows"]
    return Ids(tuple(entry["features"]), facts, fingerprint, words)
