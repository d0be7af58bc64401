"""`Bucketizer`: the one owner of a table's rows and of the out-of-vocabulary and default ids.

`tzrec.fg.bucketize.Bucketize` makes the ids, of the entry that `tzrec.fg.config_source` writes.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tzrec.config.feature_facts import GROWING, RESERVED_WORDS
from tzrec.config.vocab import read_vocab_file, vocab_path
from tzrec.errors import ConfigError
from tzrec.features.hash_table import hash_table_spec
from tzrec.fg.config_source import OOV_ID, OOV_WORD
from tzrec.fg.spec import BUCKETIZERS

# Which field sizes the table, and which turns values into ids: the first that is set
# (reference 04 §4.1.3). They differ for num_buckets beside a vocabulary.
SIZE_ORDER = (
    "hash_bucket_size",
    "num_buckets",
    "vocab_list",
    "vocab_dict",
    "vocab_file",
    "boundaries",
)
ID_ORDER = BUCKETIZERS
_DEFAULT_ID = 0


@dataclass(frozen=True)
class Bucketizer:
    """How values become ids, 0 ≤ id < rows.

    Attributes:
        kind: the field that makes ids, one of `ID_ORDER`, or the hash table that gives them rows.
        rows: rows of the table.
        oov_id: id of a word that is not in the vocabulary; None where every value has an id.
        default_id: id kept for ``default_value``; None where it is bucketised like any value.
        farm_hash: texts are hashed with FarmHash Fingerprint64 instead of MurmurHash64A.
    """

    kind: str
    rows: int
    oov_id: int | None = None
    default_id: int | None = None
    _config: Any = field(default=None, repr=False, compare=False)
    farm_hash: bool = False

    @functools.cached_property
    def vocabulary(self) -> Mapping[str, int]:
        """Word → id, reserved ids included; empty where there are no words."""
        if self.kind == "vocab_list":
            words = list(self._config.vocab_list)
            if self.default_id is not None:
                words = [self._config.default_value, OOV_WORD, *words]
            return {word: index for index, word in enumerate(words)}
        if self.kind == "vocab_dict":
            ids: dict[str, int] = dict(self._config.vocab_dict)
            if self.default_id is not None and self._config.default_value:
                ids[self._config.default_value] = self.default_id
            return ids
        return _file_words(self._config) if self.kind == "vocab_file" else {}

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What decides which id a value gets, as plain JSON values; read only.

        Of a vocabulary there is only the number of words, reserved ids left out; `fingerprint`
        also covers the words.
        """
        facts: dict[str, Any] = {"kind": self.kind, "rows": self.rows}
        if self.kind == "hash_bucket_size" or self.kind in GROWING:
            facts["hash"] = "farm_fingerprint64" if self.farm_hash else "murmur_hash64a"
        elif self.kind == "boundaries":
            facts["boundaries"] = _edges(self._config).tolist()
        elif self.kind != "num_buckets":
            facts |= {"oov_id": self.oov_id, "default_id": self.default_id}
            reserved = () if self.default_id is None else (self.default_id, self.oov_id)
            facts["words"] = sum(index not in reserved for index in self.vocabulary.values())
        return facts

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of everything that decides which id a value gets: 24 hexadecimal digits."""
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode())
        # By id: the fields of a vocab_dict come in any order.
        for word, index in sorted(self.vocabulary.items(), key=operator.itemgetter(1, 0)):
            digest.update(f"{len(word)}:{word}={index};".encode())
        return digest.hexdigest()[:24]


def create_bucketizer(config: Any, *, farm_hash: bool = False) -> Bucketizer | None:
    """Returns the bucketizer of a feature's message; None if nothing in it makes ids.

    Args:
        config: the message.
        farm_hash: hash with FarmHash Fingerprint64.

    Raises:
        ConfigError: the parts disagree, or a vocabulary cannot be used.
    """
    spec = hash_table_spec(config)
    if spec is not None:
        return Bucketizer(spec.kind, spec.num_rows, farm_hash=farm_hash)
    known = config.DESCRIPTOR.fields_by_name
    makers = {
        "vocab_list": _from_list,
        "vocab_dict": _from_dict,
        "vocab_file": _from_file,
        "boundaries": _from_boundaries,
    }
    parts: dict[str, Bucketizer] = {}
    for kind in SIZE_ORDER:
        if kind not in known:
            continue
        if kind in ("hash_bucket_size", "num_buckets"):
            if config.HasField(kind):
                parts[kind] = _from_size(kind, config)
        elif getattr(config, kind):
            parts[kind] = makers[kind](config)
    if not parts:
        return None
    size_kind = next(kind for kind in SIZE_ORDER if kind in parts)
    maker = parts[next(kind for kind in ID_ORDER if kind in parts)]
    rows = parts[size_kind].rows
    if maker.rows > rows:
        raise ConfigError(
            f"{size_kind} {rows} is smaller than the ids of {maker.kind} "
            f"(0 to {maker.rows - 1}{', two of them reserved' if _reserves(maker) else ''})",
            hint=f"drop {size_kind}, or set it to at least {maker.rows}",
        )
    hashes = farm_hash and maker.kind == "hash_bucket_size"
    return Bucketizer(maker.kind, rows, maker.oov_id, maker.default_id, config, hashes)


def _reserves(part: Bucketizer) -> bool:
    return part.kind == "vocab_list" and part.default_id is not None


def _from_size(kind: str, config: Any) -> Bucketizer:
    rows = int(getattr(config, kind))
    if rows == 0:
        raise ConfigError(f"{kind} is 0, must be at least 1")
    return Bucketizer(kind, rows)


def _from_list(config: Any) -> Bucketizer:
    if config.HasField("default_bucketize_value"):
        return _verbatim("vocab_list", len(config.vocab_list), config)
    rows = len(config.vocab_list) + RESERVED_WORDS
    return Bucketizer("vocab_list", rows, OOV_ID, _DEFAULT_ID)


def _from_dict(config: Any) -> Bucketizer:
    rows = max(config.vocab_dict.values()) + 1
    if config.HasField("default_bucketize_value"):
        return _verbatim("vocab_dict", rows, config)
    # A dictionary may name the reserved ids only, or not even those.
    return Bucketizer("vocab_dict", max(rows, RESERVED_WORDS), OOV_ID, _DEFAULT_ID)


def _from_file(config: Any) -> Bucketizer:
    if not config.HasField("default_bucketize_value"):
        raise ConfigError(
            "vocab_file needs default_bucketize_value, the id of words that are not in the file",
            hint="for example default_bucketize_value: 0",
        )
    return _verbatim("vocab_file", max(_file_words(config).values()) + 1, config)


def _from_boundaries(config: Any) -> Bucketizer:
    edges = list(config.boundaries)
    if any(math.isnan(edge) for edge in edges):
        raise ConfigError("boundaries hold nan")
    for left, right in itertools.pairwise(edges):
        if left >= right:
            raise ConfigError(f"boundaries must ascend, but {right:g} follows {left:g}")
    return Bucketizer("boundaries", len(edges) + 1)


def _verbatim(kind: str, rows: int, config: Any) -> Bucketizer:
    oov_id = int(config.default_bucketize_value)
    if oov_id >= rows:
        raise ConfigError(
            f"default_bucketize_value {oov_id} is no id of {kind}, which has 0 to {rows - 1}"
        )
    return Bucketizer(kind, rows, oov_id)


def _file_words(config: Any) -> dict[str, int]:
    return read_vocab_file(vocab_path(config.asset_dir, config.vocab_file))


def _edges(config: Any) -> Any:
    return np.array(config.boundaries, dtype=np.float32)
