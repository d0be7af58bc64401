"""What the values of a feature can be before ids are made of them: its bucketizer tells."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tzrec.config.vocab import read_vocab_file
from tzrec.demo.shape.domains import (
    MOST_DISTINCT,
    SOME,
    Between,
    Domain,
    Ids,
    Normal,
    Positive,
    Words,
)
from tzrec.fg.spec import FeatureSpec

# What the config's own vocabularies begin with.
_OOV_WORD = "<OOV>"


def domain_of(spec: FeatureSpec, *, numeric: bool) -> Domain:
    """Returns what a feature's values can be.

    Args:
        spec: the feature.
        numeric: they are numbers where nothing makes ids.
    """
    way = spec.bucketizer
    value = spec.options.get(way) if way else None
    if way == "hash_bucket_size":
        return Ids(min(int(value or 0), MOST_DISTINCT))
    if way == "num_buckets":
        return Ids(int(value or 0), strict=True)
    if way == "vocab_list":
        listed = [str(word) for word in value or ()]
        return Words(tuple(listed[2:] if listed[1:2] == [_OOV_WORD] else listed))
    if way == "vocab_dict":
        return Words(tuple(map(str, value or ())))
    if way == "vocab_file":
        return Words(tuple(word for word in read_vocab_file(str(value)) if word))
    if way == "boundaries":
        return Between(edges=_before(spec, [float(edge) for edge in value or ()]))
    return numbers_of(spec) if numeric else Ids(SOME)


def numbers_of(spec: FeatureSpec) -> Domain:
    """Returns numbers that a feature's normalizer makes small."""
    method, of = _normalizer(spec)
    if method == "zscore":
        return Normal(of["mean"], abs(of["standard_deviation"]))
    if method == "minmax":
        return Between(edges=(of["min"], of["max"]))
    return Positive()


def _before(spec: FeatureSpec, edges: list[float]) -> tuple[float, ...]:
    """Returns boundaries as they are before the normalizer."""
    method, of = _normalizer(spec)
    undo: dict[str, Callable[[float], float]] = {
        "zscore": lambda y: y * of["standard_deviation"] + of["mean"],
        "minmax": lambda y: y * (of["max"] - of["min"]) + of["min"],
        "log10": lambda y: math.pow(10.0, min(y, 300.0)),
    }
    return tuple(sorted(map(undo.get(method, lambda y: y), edges)))


def _normalizer(spec: FeatureSpec) -> tuple[str, dict[str, Any]]:
    """Returns the method of a normalizer and its numbers; those were checked before."""
    parts = [part.partition("=") for part in str(spec.options.get("normalizer") or "").split(",")]
    given = {key.strip(): value.strip() for key, _, value in parts}
    method = given.pop("method", "")
    return method, {} if method == "expression" else {k: float(v) for k, v in given.items() if v}
