"""Measures of the overlap of two term lists (fg.md §10), vectorised over cells.

=====================  ================================================================
query_common_ratio     query terms that the title has / query terms
title_common_ratio     title terms that the query has / title terms
is_contain             1 if the query is a contiguous, ordered part of the title
is_equal               1 if both are the same list
index_of               position of the query as a part of the title, -1 if it is none
proximity_min_cover    terms of the shortest part of the title with all query terms, or 0
proximity_min_dist     smallest, largest and mean distance in the title of two different
proximity_max_dist     query terms, each pair at its closest; title terms + 1 if no pair
proximity_avg_dist     is there
=====================  ================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tzrec.fg.maps import find
from tzrec.fg.ragged import Ragged, ranges
from tzrec.fg.reading import as_text

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Side:
    """Terms of all cells as numbers.

    Attributes:
        terms: (n,) position of the first equal term in the title of the cell, counted over the
            titles of all cells; so numbers are equal where cell and term are. A term that the
            title lacks is negative.
        lengths: (cells,) terms per cell.
    """

    terms: Ints
    lengths: Ints

    @property
    def starts(self) -> Ints:
        """First term of each cell."""
        return np.cumsum(self.lengths) - self.lengths

    @property
    def owners(self) -> Ints:
        """Cell of each term."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @property
    def places(self) -> Ints:
        """Position of each term in its cell."""
        return np.arange(len(self.terms)) - np.repeat(self.starts, self.lengths)


@dataclass(frozen=True)
class Pairs:
    """A query and a title per cell, neither empty."""

    query: Side
    title: Side

    @property
    def num_cells(self) -> int:
        """Cells."""
        return len(self.query.lengths)


def term_pairs(query: Ragged, title: Ragged) -> Pairs:
    """Numbers the terms of both sides."""
    terms = as_text(title.values)
    sides = []
    for side in (query, title):
        numbers = find(terms, title.lengths, side)
        sides.append(Side(numbers, side.lengths.astype(np.int64)))
    return Pairs(*sides)


def _share(side: Side, found: NDArray[np.bool_]) -> Floats:
    return np.bincount(side.owners, found, len(side.lengths)) / side.lengths


def _share_of_query(pairs: Pairs) -> Floats:
    return _share(pairs.query, pairs.query.terms >= 0)


def _share_of_title(pairs: Pairs) -> Floats:
    wanted = pairs.query.terms
    in_query = np.zeros(len(pairs.title.terms), dtype=bool)
    in_query[wanted[wanted >= 0]] = True
    return _share(pairs.title, in_query[pairs.title.terms])


def _index_of(pairs: Pairs) -> Floats:
    """Returns the first offset at which all terms of the query stand in the title, or -1."""
    query, title = pairs.query, pairs.title
    owners, offsets = title.owners, title.places
    begins = title.terms == query.terms[query.starts][owners]
    first = np.flatnonzero(begins & (offsets <= (title.lengths - query.lengths)[owners]))
    cells, offset = owners[first], offsets[first]
    sizes = query.lengths[cells]
    of_query = ranges(query.starts[cells], sizes)
    of_title = ranges(first, sizes)
    same = query.terms[of_query] == title.terms[of_title]
    matches = np.bincount(np.repeat(np.arange(len(cells)), sizes), same, len(cells)) == sizes
    result = np.full(pairs.num_cells, -1.0)
    hits = np.flatnonzero(matches)[::-1]  # the first offset is written last
    result[cells[hits]] = offset[hits]
    return result


def _is_equal(pairs: Pairs) -> Floats:
    return ((pairs.query.lengths == pairs.title.lengths) & (_index_of(pairs) == 0)).astype(float)


class _Occurrences:
    """Where each term of a query stands in the title."""

    def __init__(self, pairs: Pairs) -> None:
        title = pairs.title
        self._width = int(title.lengths.max(initial=0)) + 1
        keys = title.terms * self._width + title.places
        self.keys = np.sort(keys)

    def next(self, codes: Ints, places: Ints) -> Ints:
        """Returns the first place of a term at or behind ``places``; -1 where there is none."""
        found = np.searchsorted(self.keys, codes * self._width + places)
        inside = found < len(self.keys)
        keys = self.keys[np.where(inside, found, 0)] if len(self.keys) else np.zeros_like(found)
        return np.where(inside & (keys // self._width == codes), keys % self._width, -1)

    def last(self, codes: Ints, places: Ints) -> Ints:
        """Returns the last place of a term at or before ``places``; -1 where there is none."""
        found = np.searchsorted(self.keys, codes * self._width + places, side="right") - 1
        keys = self.keys[np.maximum(found, 0)] if len(self.keys) else np.zeros_like(found)
        return np.where((found >= 0) & (keys // self._width == codes), keys % self._width, -1)


def _distinct(pairs: Pairs) -> tuple[Ints, Ints]:
    """Returns the different query terms that the titles have, cell by cell, and their cells."""
    found = pairs.query.terms >= 0
    codes, first = np.unique(pairs.query.terms[found], return_index=True)
    return codes, pairs.query.owners[found][first]


def _min_cover(pairs: Pairs) -> Floats:
    """Returns the size of the smallest window; it starts at some term of the title."""
    title, where = pairs.title, _Occurrences(pairs)
    codes, cells = _distinct(pairs)
    sizes = title.lengths[cells]
    owners = np.repeat(np.arange(len(codes)), sizes)
    start = ranges(np.zeros(len(codes), np.int64), sizes)
    ends = where.next(codes[owners], start)
    ends = np.where(ends < 0, np.iinfo(np.int64).max // 2, ends)
    # A window from `start` must reach the farthest of all terms.
    window = title.starts[cells[owners]] + start
    farthest = np.full(len(title.terms), -1, np.int64)
    np.maximum.at(farthest, window, ends)
    covers = farthest - title.places + 1
    smallest = np.minimum.reduceat(covers, title.starts) if len(covers) else covers
    lacking = np.bincount(pairs.query.owners, pairs.query.terms < 0, pairs.num_cells)
    return np.where((lacking > 0) | (smallest > title.lengths), 0, smallest).astype(np.float64)


def _distances(pairs: Pairs) -> tuple[Floats, Ints]:
    """Returns the closest distance of each pair of query terms that the title has, and cells."""
    title, where = pairs.title, _Occurrences(pairs)
    codes, cells = _distinct(pairs)
    counts = np.bincount(cells, minlength=pairs.num_cells)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    rank = np.arange(len(codes)) - first
    left = np.repeat(np.arange(len(codes)), rank)
    right = ranges(first, rank)  # every earlier term of the same cell
    sizes = title.lengths[cells[left]]
    owners = np.repeat(np.arange(len(left)), sizes)
    place = ranges(np.zeros(len(left), np.int64), sizes)
    here = where.next(codes[left[owners]], place) == place
    owners, place = owners[here], place[here]
    others = codes[right[owners]]
    behind, before = where.next(others, place), where.last(others, place)
    far = np.iinfo(np.int64).max
    gaps = np.minimum(
        np.where(behind < 0, far, behind - place), np.where(before < 0, far, place - before)
    )
    closest = np.full(len(left), far)
    np.minimum.at(closest, owners, gaps)
    known = closest < far
    return closest[known].astype(np.float64), cells[left[known]]


def _distance(pairs: Pairs, how: Callable[[Floats, Ints, int], Floats]) -> Floats:
    gaps, cells = _distances(pairs)
    some = np.bincount(cells, minlength=pairs.num_cells) > 0
    return np.where(some, how(gaps, cells, pairs.num_cells), pairs.title.lengths + 1.0)


def _extreme(pick: Any, start: float) -> Callable[[Floats, Ints, int], Floats]:
    def of(gaps: Floats, cells: Ints, num_cells: int) -> Floats:
        result = np.full(num_cells, start)
        pick.at(result, cells, gaps)
        return result

    return of


def _mean(gaps: Floats, cells: Ints, num_cells: int) -> Floats:
    counts = np.bincount(cells, minlength=num_cells)
    return np.bincount(cells, gaps, num_cells) / np.maximum(counts, 1)


METHODS: Mapping[str, Callable[[Pairs], Floats]] = {
    "query_common_ratio": _share_of_query,
    "title_common_ratio": _share_of_title,
    "is_contain": lambda p: (_index_of(p) >= 0).astype(np.float64),
    "is_equal": _is_equal,
    "index_of": _index_of,
    "proximity_min_cover": _min_cover,
    "proximity_min_dist": lambda p: _distance(p, _extreme(np.minimum, np.inf)),
    "proximity_max_dist": lambda p: _distance(p, _extreme(np.maximum, 0.0)),
    "proximity_avg_dist": lambda p: _distance(p, _mean),
}
