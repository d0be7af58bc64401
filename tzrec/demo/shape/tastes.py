"""The planted tastes: which items a user takes, one after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_MOST_KINDS = 16
_ITEMS_OF_CELL = 8
_SECOND, _FOLLOW, _ANYTHING = 0.25, 0.5, 0.1
_SEED = 20240103
# Primes: they deal out cells like cards, so that frequent and rare items are in each.
_DEAL, _SHIFT = 167, 59
_CEILING_ROWS = 2000


class Tastes:
    """Users who take items.

    An item is of one of K kinds and of one of K looks; small numbers are popular. A user has two
    interests, each a kind and a look. Each time, one of 10 users takes any popular item. The
    others take a popular one of the kind of their first interest, or at times of their second;
    it has the look of this interest, or as often the look behind that of the item before. So
    the past says much about the next item, its last step most of all.

    Args:
        num_items: how many there are.
        num_users: how many there are.

    Attributes:
        kinds: K.
        weights: how popular items are (num_items,).
        facets: kind and look of items (2, num_items).
        interests: users' interests (num_users, 2), each with kind and look (…, 2).
    """

    def __init__(self, num_items: int, num_users: int) -> None:
        self.kinds = min(max(math.isqrt(num_items // _ITEMS_OF_CELL), 1), _MOST_KINDS)
        num_cells = self.kinds**2
        order = np.arange(num_items)
        self._cells = (order * _DEAL + order // num_cells * _SHIFT) % num_cells
        self.facets = np.stack(np.divmod(self._cells, self.kinds))
        self.weights = 1.0 / (order + 10.0) ** 0.6
        self.weights /= self.weights.sum()
        rng = np.random.default_rng(_SEED)
        self.interests = rng.integers(0, self.kinds, (num_users, 2, 2))
        self._sorted = np.argsort(self._cells, kind="stable")
        self._ends = np.cumsum(self.weights[self._sorted])
        self.shares = np.bincount(self._cells, self.weights, num_cells)

    def past(self, users: Ints, lengths: Ints, rng: np.random.Generator) -> Ints:
        """Returns what users took before (B, T), -1 before the first one.

        Args:
            users: (B,).
            lengths: items of each, at most T.
            rng: decides.
        """
        most = int(lengths.max(initial=0))
        found = np.full((len(users), most + 1), -1)
        for step in range(most):
            there = step >= most - lengths
            found[there, step + 1] = self.next(users[there], found[there, step], rng)
        return found[:, 1:]

    def next(self, users: Ints, last: Ints, rng: np.random.Generator) -> Ints:
        """Returns what users take (B,).

        Args:
            users: (B,).
            last: what each took before, -1 = nothing.
            rng: decides.
        """
        second = (rng.random(len(users)) < _SECOND).astype(np.int64)
        kind, look = self.interests[users, second].T
        follows = (rng.random(len(users)) < _FOLLOW) & (last >= 0)
        look = np.where(follows, self._behind(last), look)
        cell = kind * self.kinds + look
        anything = rng.random(len(users)) < _ANYTHING
        places = self._ends.searchsorted(self._place(cell, rng), side="right")
        found: Ints = self._sorted[np.minimum(places, len(self._sorted) - 1)]
        return np.where(anything, self.popular(len(users), rng), found)

    def popular(self, count: int, rng: np.random.Generator) -> Ints:
        """Returns items as frequent as they are popular."""
        places = self._ends.searchsorted(rng.random(count) * self._ends[-1], side="right")
        found: Ints = self._sorted[np.minimum(places, len(self._sorted) - 1)]
        return found

    def unwanted(self, count: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """Returns (user, item): popular items of kinds that the user has no interest in.

        Args:
            count: items that each user has seen; some of them were wanted.
            rng: decides.
        """
        users = np.repeat(np.arange(len(self.interests)), count)
        items = self.popular(len(users), rng)
        kinds = self.interests[users, :, 0]
        other = (kinds != self.facets[0, items][:, None]).all(axis=1) | (self.kinds == 1)
        pairs = np.unique(np.stack([users[other], items[other]]), axis=1)
        return pairs[0], pairs[1]

    def scores(self, users: Ints, last: Ints, items: Ints) -> Floats:
        """Returns how much likelier users take items than their popularity says (B, N).

        Args:
            users: (B,).
            last: what each took before (B,), -1 = nothing.
            items: (B, N).
        """
        kind, look = self.facets[0][items], self.facets[1][items]
        follow = np.where(last >= 0, _FOLLOW, 0.0)[:, None]
        behind = self._behind(last)[:, None]
        found = np.zeros(items.shape)
        for interest, share in enumerate((1 - _SECOND, _SECOND)):
            wanted, liked = (self.interests[users, interest, facet, None] for facet in (0, 1))
            looks = follow * (look == behind) + (1 - follow) * (look == liked)
            found += share * (kind == wanted) * looks
        return _ANYTHING + (1 - _ANYTHING) * found / self.shares[self._cells[items]]

    def ceilings(self, num_negatives: int, tops: Sequence[int], *, past: bool) -> dict[int, float]:
        """Returns the recall at some K of who knows all tastes, about.

        Args:
            num_negatives: drawn by popularity, that an item is ranked among.
            tops: values of K.
            past: rows tell what users took before.
        """
        rng = np.random.default_rng(_SEED)
        users = rng.integers(0, len(self.interests), _CEILING_ROWS)
        last = np.full(_CEILING_ROWS, -1)
        if past:
            last = self.next(users, last, rng)
        wanted = self.next(users, last, rng)
        before = np.zeros(_CEILING_ROWS)
        for start in range(0, _CEILING_ROWS, 100):
            rows = slice(start, start + 100)
            size = (100, num_negatives)
            negatives = self.popular(100 * num_negatives, rng).reshape(size)
            own = self.scores(users[rows], last[rows], wanted[rows, None])
            others = self.scores(users[rows], last[rows], negatives)
            counts = negatives != wanted[rows, None]
            same = (counts & (others == own)).sum(axis=1)
            before[rows] = (counts & (others > own)).sum(axis=1) + rng.integers(0, same + 1)
        return {top: float((before < top).mean()) for top in tops}

    def _behind(self, last: Ints) -> Ints:
        found: Ints = (self.facets[1][last] + 1) % self.kinds
        return found

    def _place(self, cells: Ints, rng: np.random.Generator) -> Floats:
        """Returns a place among the weights of a cell for each cell."""
        ends = np.cumsum(self.shares)
        found: Floats = ends[cells] - self.shares[cells] * (1 - rng.random(len(cells)))
        return found
