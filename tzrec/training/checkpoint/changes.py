"""Tables that are not as they were in a checkpoint: what changed, and which rows are the same."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tzrec.config.feature_facts import GROWING
from tzrec.features.hash_table import NUM_SPARE
from tzrec.training.checkpoint.tables import Ids, Table

_VOCABULARIES = ("vocab_list", "vocab_dict", "vocab_file")
_SHOWN = 5
_HASHED = "rows of a hash table belong to no single value"


@dataclass(frozen=True)
class Change:
    """How a table differs from the checkpoint's.

    Attributes:
        weight: name of its weight in the model's state dict.
        table: the model's table.
        stored: the checkpoint's table.
        differences: what changed, one phrase each.
        obstacle: why no row can be carried over; empty when that is possible.
    """

    weight: str
    table: Table
    stored: Table
    differences: tuple[str, ...]
    obstacle: str = ""

    def __str__(self) -> str:
        where = f"table {self.table.name} ({', '.join(self.table.features) or self.weight})"
        return f"{where}: {'; '.join(self.differences)}"

    def sources(self) -> Any:
        """Returns (rows,) int64: row of the checkpoint of each row, -1 = it starts afresh."""
        old, new = self.stored.ids, self.table.ids
        if new and new[0].kind in GROWING:
            return _grown(self.stored.rows, self.table.rows, new[0].kind)
        if {i.fingerprint for i in old} == {i.fingerprint for i in new}:
            return _identity(self.stored.rows, self.table.rows)
        sources = np.full(self.table.rows, -1, np.int64)
        if new[0].kind == "num_buckets":
            return _identity(self.stored.rows, self.table.rows)
        if new[0].kind == "boundaries":
            _map_buckets(old[0], new[0], sources)
        else:
            _map_words(old[0], new[0], sources)
        return sources


def find_change(weight: str, table: Table, stored: Table) -> Change | None:
    """Returns how a table differs from the checkpoint's, or None."""
    differences, obstacle = [], ""
    if stored.dim != table.dim:
        differences.append(f"embedding_dim {stored.dim} → {table.dim}")
        obstacle = "the rows have another length"
    if stored.data_type != table.data_type:
        differences.append(f"data_type {stored.data_type} → {table.data_type}")
    old = [i for i in stored.ids if i.fingerprint not in {j.fingerprint for j in table.ids}]
    new = [i for i in table.ids if i.fingerprint not in {j.fingerprint for j in stored.ids}]
    if old and new:
        differences += _differences(old, new)
        obstacle = obstacle or _obstacle(stored, table)
    elif stored.rows != table.rows:
        differences.append(f"rows {stored.rows} → {table.rows}")
        if not (stored.ids and table.ids):
            obstacle = obstacle or "the checkpoint does not say what its rows stand for"
        elif stored.ids[0].kind == "hash_bucket_size":
            obstacle = obstacle or _HASHED
    if not differences:
        return None
    return Change(weight, table, stored, tuple(differences), obstacle)


def unknown_change(weight: str, shape: Sequence[int], stored: Sequence[int]) -> Change:
    """Returns the change of a table of which the checkpoint knows nothing but the shape."""
    name = weight.split(".")[-2] if "." in weight else weight
    old, new = (Table(name, size[0], size[1], "", (), ()) for size in (stored, shape))
    return Change(
        weight,
        new,
        old,
        (f"{list(stored)} in the checkpoint, {list(shape)} in the model",),
        "the checkpoint does not say what its rows stand for",
    )


def _obstacle(stored: Table, table: Table) -> str:
    if len(stored.ids) != 1 or len(table.ids) != 1:
        return "features with different ids share the table"
    old, new = stored.ids[0].kind, table.ids[0].kind
    if "hash_bucket_size" in (old, new):
        return _HASHED
    if old == new and new in GROWING:
        if table.rows < stored.rows:
            return "a hash table cannot shrink: its rows belong to ids"
        if stored.ids[0].facts.get("hash") != table.ids[0].facts.get("hash"):
            return "another hash makes other ids"
        return ""
    if old != new and not (old in _VOCABULARIES and new in _VOCABULARIES):
        return f"ids of {old} and of {new} have nothing in common"
    return ""


def _differences(old: Sequence[Ids], new: Sequence[Ids]) -> list[str]:
    if len(old) == len(new) == 1:
        return _compare(old[0], new[0])
    by_feature = {feature: ids for ids in old for feature in ids.features}
    return [
        f"{feature}: {'; '.join(_compare(by_feature[feature], ids))}"
        if feature in by_feature
        else f"{feature}: {_describe(ids)} is new"
        for ids in new
        for feature in ids.features
    ]


def _describe(ids: Ids) -> str:
    if "words" in ids.facts:
        return f"{ids.kind} ({ids.facts['words']} words)"
    if ids.kind == "boundaries":
        return f"boundaries ({len(ids.facts['boundaries'])} of them)"
    return f"{ids.kind} ({ids.facts['rows']})"


def _compare(old: Ids, new: Ids) -> list[str]:
    """Returns what makes the ids differ, at least one phrase."""
    both_words = "words" in old.facts and "words" in new.facts
    if old.kind != new.kind and not both_words:
        return [f"{_describe(old)} → {_describe(new)}"]
    found = []
    if old.kind != new.kind:
        found.append(f"{old.kind} → {new.kind}")
    if both_words:
        found += _compare_words(_own_words(old), _own_words(new), new.kind)
        before, after = _default_value(old), _default_value(new)
        if None not in (before, after) and before != after:
            found.append(f"default value {before!r} → {after!r}")
    elif new.kind == "boundaries":
        edges = old.facts["boundaries"], new.facts["boundaries"]
        found += [f"boundaries: {_sets(*edges, '')}"]
    if not found and old.facts["rows"] != new.facts["rows"]:
        what = "rows" if both_words else new.kind
        found.append(f"{what} {old.facts['rows']} → {new.facts['rows']}")
    facts = {"hash": "hash", "default_id": "id of the default value", "file": "tokenizer file"}
    for fact, text in facts.items():
        if old.facts.get(fact) != new.facts.get(fact):
            found.append(f"{text} {old.facts.get(fact)} → {new.facts.get(fact)}")
    if old.facts.get("oov_id") != new.facts.get("oov_id"):
        found.append(f"id of other words {old.facts.get('oov_id')} → {new.facts.get('oov_id')}")
    return found or [f"{_describe(old)} → {_describe(new)}"]


def _own_words(ids: Ids) -> dict[str, int]:
    """Returns the words without those of reserved ids."""
    if ids.facts["default_id"] is None:
        return dict(ids.words())
    reserved = (ids.facts["default_id"], ids.facts["oov_id"])
    return {word: row for word, row in ids.words().items() if row not in reserved}


def _default_value(ids: Ids) -> str | None:
    default_id = ids.facts["default_id"]
    return next((word for word, row in ids.words().items() if row == default_id), None)


def _compare_words(old: Mapping[str, int], new: Mapping[str, int], kind: str) -> list[str]:
    if old.keys() != new.keys():
        return [f"{kind}: {_sets(list(old), list(new), ' words')}"]
    moved = [word for word in new if old[word] != new[word]]
    if not moved:
        return []
    shown = ", ".join(f"{word} {old[word]} → {new[word]}" for word in moved[:_SHOWN])
    more = f" and {len(moved) - _SHOWN} more" if len(moved) > _SHOWN else ""
    return [f"{kind}: the same words with other ids ({shown}{more})"]


def _sets(old: Sequence[Any], new: Sequence[Any], what: str) -> str:
    """Returns ``2 words added (a, b), 1 removed (c)``."""
    known_old, known_new = set(old), set(new)
    parts: list[str] = []
    for found, verb in (
        ([item for item in new if item not in known_old], "added"),
        ([item for item in old if item not in known_new], "removed"),
    ):
        if found:
            shown = ", ".join(_text(item) for item in found[:_SHOWN])
            more = ", …" if len(found) > _SHOWN else ""
            noun = what if len(found) != 1 else what.removesuffix("s")
            parts.append(f"{len(found):,}{'' if parts else noun} {verb} ({shown}{more})")
    return ", ".join(parts)


def _text(item: Any) -> str:
    return f"{item:g}" if isinstance(item, float) else (str(item) or '""')


def _grown(old_rows: int, new_rows: int, kind: str) -> Any:
    """The rows of ids stay; those of ids without one move to the end."""
    spare = NUM_SPARE[kind]
    sources = _identity(old_rows - spare, new_rows)
    sources[new_rows - spare :] = np.arange(old_rows - spare, old_rows)
    return sources


def _identity(old_rows: int, new_rows: int) -> Any:
    sources = np.arange(new_rows, dtype=np.int64)
    sources[old_rows:] = -1
    return sources


def _map_words(old: Ids, new: Ids, sources: Any) -> None:
    before = old.words()
    for word, row in new.words().items():
        if word in before:
            sources[row] = before[word]
    # The ids of no word in particular, unless a word has taken them.
    for fact in ("oov_id", "default_id"):
        target, source = new.facts.get(fact), old.facts.get(fact)
        if target is not None and source is not None and sources[target] < 0:
            sources[target] = source


def _map_buckets(old: Ids, new: Ids, sources: Any) -> None:
    """A bucket is the same when both its edges are."""

    def buckets(ids: Ids) -> list[tuple[float, float]]:
        edges = [-np.inf, *ids.facts["boundaries"], np.inf]
        return list(itertools.pairwise(edges))

    before = {edges: row for row, edges in enumerate(buckets(old))}
    for index, edges in enumerate(buckets(new)):
        sources[index] = before.get(edges, -1)
