"""Regrouping of pooled columns by concatenation.

The columns of a feature are found by key, since a sharded collection has its own order. Keys
that are neighbours both in the collection and in all groups move as one piece: copying a slab
is several times faster than concatenating its features one by one.
No ``from __future__ import annotations`` here: TorchScript reads the annotations.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import List  # noqa: UP035 (TorchScript)

import torch
from torch import Tensor

from tzrec.batch import KeyedTensor

# A group is a list of codes: i >= 0 is piece i, -1 - i is extra tensor i.
Codes = Sequence[Sequence[int]]


def merge_runs(lengths: Sequence[int], groups: Codes) -> tuple[list[int], list[list[int]]]:
    """Merges neighbouring columns into pieces.

    Args:
        lengths: width of each key in the order of the collection.
        groups: per group the codes of its parts, a key's position being its code.

    Returns:
        The widths of the pieces, which cover all keys in order, and the groups with codes of
        pieces instead of keys.
    """
    # A new piece starts at key i unless every group that has i - 1 or i has them side by side.
    starts = {0}
    for group in groups:
        for before, after in itertools.pairwise([-1, *group, -1]):
            if before < 0 or after != before + 1:
                starts |= {before + 1} if before >= 0 else set()
                starts |= {after} if after >= 0 else set()
    cuts = sorted(start for start in starts if start < len(lengths))
    bounds = [*cuts, len(lengths)]
    widths = [sum(lengths[i:j]) for i, j in itertools.pairwise(bounds)]
    piece_at = {start: piece for piece, start in enumerate(cuts)}
    merged = [[piece_at[c] if c >= 0 else c for c in g if c < 0 or c in piece_at] for g in groups]
    return widths, merged


@functools.lru_cache(maxsize=64)
def _reordered(
    keys: tuple[str, ...],
    lengths: tuple[int, ...],
    wanted: tuple[str, ...],
    groups: tuple[tuple[int, ...], ...],
) -> tuple[list[int], list[list[int]]]:
    """`merge_runs` for a collection that has the ``wanted`` keys in the order ``keys``."""
    position = {key: i for i, key in enumerate(keys)}
    codes = [[position[wanted[c]] if c >= 0 else c for c in group] for group in groups]
    return merge_runs(lengths, codes)


@torch.fx.wrap
def regroup(
    pooled: KeyedTensor,
    extras: List[Tensor],  # noqa: UP006
    keys: List[str],  # noqa: UP006
    groups: List[List[int]],  # noqa: UP006
    widths: List[int],  # noqa: UP006
    pieces: List[List[int]],  # noqa: UP006
) -> List[Tensor]:  # noqa: UP006
    """Returns per group its columns (B, sum of dims); one that is a single piece is a view.

    Args:
        pooled: output of the collection, (B, all columns).
        extras: other columns, (B, dim) each.
        keys: keys of the collection in the order that ``widths`` and ``pieces`` are made for.
        groups: per group the codes of its parts, by position in ``keys``.
        widths: see `merge_runs`.
        pieces: see `merge_runs`.
    """
    result: List[Tensor] = []  # noqa: UP006
    if pooled.keys() != keys:
        if torch.jit.is_scripting():
            columns = pooled.to_dict()
            for group in groups:
                parts = [columns[keys[c]] if c >= 0 else extras[-1 - c] for c in group]
                result.append(torch.cat(parts, dim=1))
            return result
        else:  # noqa: RET505 (TorchScript compiles one branch only)
            widths, pieces = _reordered(
                tuple(pooled.keys()),
                tuple(pooled.length_per_key()),
                tuple(keys),
                tuple([tuple(group) for group in groups]),
            )
    # The backward of one split is one cat; that of a slice would fill a whole matrix.
    split = pooled.values().split(widths, dim=1)
    for group in pieces:
        parts = [split[c] if c >= 0 else extras[-1 - c] for c in group]
        result.append(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1))
    return result


@dataclasses.dataclass(frozen=True)
class ColumnPlan:
    """Where the columns of groups come from; arguments of `regroup`.

    Attributes:
        keys: keys of the collection, in its unsharded order.
        groups: per group the codes of its parts by key.
        widths: widths of the pieces.
        pieces: per group the codes of its parts by piece.
    """

    keys: list[str]
    groups: list[list[int]]
    widths: list[int]
    pieces: list[list[int]]

    @classmethod
    def of(cls, keys: list[str], lengths: list[int], groups: list[list[int]]) -> "ColumnPlan":
        """Returns the plan for a collection with ``keys`` of width ``lengths``."""
        widths, pieces = merge_runs(lengths, groups)
        return cls(keys, groups, widths, pieces)

    def extended(self, more: list[list[int]]) -> "ColumnPlan":
        """Returns the plan with codes of extra tensors appended to each group."""
        if not any(more):
            return self
        groups = [group + extra for group, extra in zip(self.groups, more, strict=True)]
        pieces = [group + extra for group, extra in zip(self.pieces, more, strict=True)]
        return ColumnPlan(self.keys, groups, self.widths, pieces)

    def regroup(self, pooled: KeyedTensor, extras: list[Tensor]) -> list[Tensor]:
        """Returns per group its columns (B, sum of dims); see `regroup`."""
        columns: list[Tensor] = regroup(
            pooled, extras, self.keys, self.groups, self.widths, self.pieces
        )
        return columns
