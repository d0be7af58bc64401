"""`Bucketizer`: the one owner of a table's rows and of the out-of-vocabulary and default ids."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tzrec.errors import FeatureError, Unsupported

_RESERVED = 2  # id 0 = default_value, id 1 = out of vocabulary
_DEFAULT_ID, _OOV_ID = 0, 1


@dataclass(frozen=True)
class Bucketizer:
    """How raw values become ids 0 ≤ id < rows.

    Attributes:
        kind: the field that decides: ``hash_bucket_size``, ``num_buckets``, ``vocab_list``,
            ``vocab_dict``, ``vocab_file`` or ``boundaries``.
        rows: rows of the table.
        oov_id: id of a value that is not in the vocabulary; None where every value has one.
        default_id: id of the default value where the kind reserves one.
    """

    kind: str
    rows: int
    oov_id: int | None = None
    default_id: int | None = None


def create_bucketizer(config: Any) -> Bucketizer | None:
    """Returns the bucketizer of a feature's message; None when it has none (a dense feature).

    Of several, the first of hash_bucket_size, num_buckets, vocab_list, vocab_dict, vocab_file,
    boundaries sizes the table; parts that disagree are an error.

    Raises:
        FeatureError: the parts disagree, or a vocabulary is unusable.
        Unsupported: zch and dynamicemb.
    """
    fields = {field.name for field in config.DESCRIPTOR.fields}
    for growing in ("zch", "dynamicemb"):
        if growing in fields and config.HasField(growing):
            raise Unsupported(f"{config.feature_name}: {growing} comes with a later version")
    found: list[Bucketizer] = []
    for kind in ("hash_bucket_size", "num_buckets"):
        if kind in fields and config.HasField(kind):
            found.append(Bucketizer(kind, getattr(config, kind)))
    if "vocab_list" in fields and config.vocab_list:
        found.append(_from_list(config))
    if "vocab_dict" in fields and config.vocab_dict:
        found.append(_from_dict(config))
    if "vocab_file" in fields and config.vocab_file:
        found.append(_from_file(config))
    if "boundaries" in fields and config.boundaries:
        found.append(_from_boundaries(config))
    if not found:
        return None
    _check(config, found)
    return found[0]


def _from_list(config: Any) -> Bucketizer:
    if config.HasField("default_bucketize_value"):
        rows = len(config.vocab_list)
        return Bucketizer("vocab_list", rows, oov_id=config.default_bucketize_value)
    rows = len(config.vocab_list) + _RESERVED
    return Bucketizer("vocab_list", rows, oov_id=_OOV_ID, default_id=_DEFAULT_ID)


def _from_dict(config: Any) -> Bucketizer:
    rows = max(config.vocab_dict.values()) + 1
    if config.HasField("default_bucketize_value"):
        return Bucketizer("vocab_dict", rows, oov_id=config.default_bucketize_value)
    return Bucketizer("vocab_dict", max(rows, _RESERVED), oov_id=_OOV_ID, default_id=_DEFAULT_ID)


def _from_boundaries(config: Any) -> Bucketizer:
    boundaries = list(config.boundaries)
    if any(b <= a for a, b in itertools.pairwise(boundaries)):
        raise FeatureError(
            f"{config.feature_name}: boundaries must increase, got {boundaries}",
        )
    return Bucketizer("boundaries", len(boundaries) + 1)


def _from_file(config: Any) -> Bucketizer:
    if not config.HasField("default_bucketize_value"):
        raise FeatureError(
            f"{config.feature_name}: vocab_file needs default_bucketize_value, the id of words "
            "that are not in the file"
        )
    path = Path(getattr(config, "asset_dir", "")) / config.vocab_file
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise FeatureError(
            f"{config.feature_name}: vocab_file {path} cannot be read: {error}"
        ) from error
    lines = [line for line in lines if line]
    if not lines:
        raise FeatureError(f"{config.feature_name}: vocab_file {path} has no word")
    rows = len({line[0] for line in lines})
    if all(len(line) == 2 for line in lines):
        rows = _max_id(config, path, lines) + 1
    return Bucketizer("vocab_file", rows, oov_id=config.default_bucketize_value)


def _max_id(config: Any, path: Path, lines: list[list[str]]) -> int:
    for number, line in enumerate(lines, 1):
        if not line[1].isdigit():
            raise FeatureError(
                f"{config.feature_name}: vocab_file {path}:{number}: {line[1]!r} is not an id"
            )
    return max(int(line[1]) for line in lines)


def _check(config: Any, found: list[Bucketizer]) -> None:
    first = found[0]
    if first.rows <= 0:
        raise FeatureError(f"{config.feature_name}: {first.kind} must be above 0")
    for other in found[1:]:
        if other.rows > first.rows:
            raise FeatureError(
                f"{config.feature_name}: {first.kind} gives a table of {first.rows} rows, "
                f"{other.kind} needs {other.rows}",
                hint=f"keep one of them, or set {first.kind} to at least {other.rows}",
            )
    for part in found:
        if part.oov_id is not None and part.oov_id >= part.rows:
            raise FeatureError(
                f"{config.feature_name}: default_bucketize_value {part.oov_id} is outside "
                f"{part.kind}, which has {part.rows} rows"
            )
