"""What the values of a column can be, and how often each is."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Codes = NDArray[Any]

# A share of the words is in no vocabulary.
_UNKNOWN_SHARE = 0.02
_UNKNOWN = "something else"
# Distinct values of a table that says how large it is, but takes anything.
MOST_DISTINCT = 10_000_000
# Distinct values of a column of which nothing is known.
SOME = 50


class Domain(Protocol):
    """Values by code: whole numbers that stand for tokens, or the numbers themselves."""

    def draw(self, rng: np.random.Generator, count: int) -> Codes:
        """Returns the codes of ``count`` values."""

    def values(self, codes: Codes) -> pa.Array:
        """Returns the values of codes."""


def _head_heavy(rng: np.random.Generator, count: int, size: int) -> NDArray[np.int64]:
    """Codes below ``size``, code i with a share of about 1 / (i + 1), as in any log of ids."""
    codes = np.floor((size + 1.0) ** rng.random(count)).astype(np.int64) - 1
    return np.minimum(codes, size - 1)


@dataclasses.dataclass(frozen=True)
class Ids:
    """Whole numbers from 0; small ones are frequent.

    Attributes:
        size: all are below.
        strict: larger ones, or words, would be wrong.
    """

    size: int
    strict: bool = False

    def draw(self, rng: np.random.Generator, count: int) -> Codes:
        """Returns ids."""
        return _head_heavy(rng, count, self.size)

    def values(self, codes: Codes) -> pa.Array:
        """Returns the ids as integers."""
        return pa.array(codes, pa.int64())


@dataclasses.dataclass(frozen=True)
class Words:
    """Words of a list; the first ones are frequent.

    Attributes:
        words: the list.
        others: now and then there is a word that the list lacks.
    """

    words: tuple[str, ...]
    others: bool = True

    def draw(self, rng: np.random.Generator, count: int) -> Codes:
        """Returns positions in the list, its length for another word."""
        codes = _head_heavy(rng, count, len(self.words))
        if self.others:
            codes[rng.random(count) < _UNKNOWN_SHARE] = len(self.words)
        return codes

    def values(self, codes: Codes) -> pa.Array:
        """Returns the words."""
        return pa.array([*self.words, _UNKNOWN]).take(pa.array(codes))


@dataclasses.dataclass(frozen=True)
class Normal:
    """Normal numbers of a mean and a deviation."""

    mean: float = 0.0
    deviation: float = 1.0

    def draw(self, rng: np.random.Generator, count: int) -> Codes:
        """Returns numbers with four digits behind the point."""
        return np.round(self.mean + self.deviation * rng.normal(size=count), 4)

    def values(self, codes: Codes) -> pa.Array:
        """Returns the numbers."""
        return pa.array(codes, pa.float64())


@dataclasses.dataclass(frozen=True)
class Positive(Normal):
    """Positive numbers with a long tail, as counts and prices have; their logarithm is normal."""

    def draw(self, rng: np.random.Generator, count: int) -> Codes:
        """Returns numbers with four digits behind the point."""
        return np.round(np.exp(self.mean + self.deviation * rng.normal(size=count)), 4)


@dataclasses.dataclass(frozen=True)
class Between(Normal):
    """Numbers of which each bucket between the edges gets its share.

    Attributes:
        edges: ascending; half a step below the first and above the last come numbers too.
    """

    edges: tuple[float, ...] = (0.0, 1.0)

    def draw(self, rng: np.random.Generator, count: int) -> Codes:
        """Returns numbers with six digits."""
        edges = np.array(self.edges)
        step = max((edges[-1] - edges[0]) / len(edges), abs(edges[0]) / 2, 1e-3)
        bounds = np.concatenate([[edges[0] - step], edges, [edges[-1] + step]])
        if edges[0] > 0:
            bounds[0] = max(bounds[0], 0.0)
        bucket = rng.integers(0, len(bounds) - 1, count)
        low, high = bounds[bucket], bounds[bucket + 1]
        # Of each bucket the middle, so that rounding cannot carry a number over an edge.
        return np.round(low + (0.1 + 0.8 * rng.random(count)) * (high - low), 6)


def settle(claims: list[Domain]) -> Domain:
    """Returns values that all readers of a column can take, as far as there are such.

    Args:
        claims: what each reader wants; none if no reader says anything.
    """
    words = [c for c in claims if isinstance(c, Words)]
    strict = [c for c in claims if isinstance(c, Ids) and c.strict]
    numbers = [c for c in claims if isinstance(c, Normal)]
    loose = [c for c in claims if isinstance(c, Ids)]
    if strict:
        return min(strict, key=lambda c: c.size)
    listed = [c for c in words if c.others]
    if numbers and not (listed and all(map(_is_number, listed[0].words))):
        # A reader that knows its range, before one that takes any number.
        return max(numbers, key=lambda c: (isinstance(c, Between), c != Positive()))
    if listed:
        return _common(listed)
    if loose:
        return max(loose, key=lambda c: c.size)
    return words[0] if words else Ids(SOME)


def _common(lists: list[Words]) -> Words:
    common = [w for w in lists[0].words if all(w in other.words for other in lists)]
    return Words(tuple(common) or lists[0].words)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
