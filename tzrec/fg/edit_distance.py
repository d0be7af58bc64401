"""Levenshtein distances of many pairs of texts at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_CELLS = 1 << 18


def edit_distances(
    left: Sequence[str | bytes], right: Sequence[str | bytes], pairs: tuple[Ints, Ints]
) -> Ints:
    """Returns the smallest number of insertions, deletions and replacements between texts.

    Pairs of about the same length are computed together, one row of the table of Wagner and
    Fischer (1974) after the other.

    Args:
        left: texts (code points count) or bytes.
        right: the same.
        pairs: numbers of the texts of each pair, in ``left`` and in ``right``.
    """
    texts = [[_codes(text) for text in side] for side in (left, right)]
    sizes = [np.array([len(codes) for codes in side], np.int64) for side in texts]
    of_left, of_right = sizes[0][pairs[0]], sizes[1][pairs[1]]
    order = np.lexsort((of_right, of_left))[::-1]
    distances = np.zeros(len(order), np.int64)
    start = 0
    while start < len(order):
        widest = int(of_right[order[start:]].max()) + 1
        chosen = order[start : start + max(_CELLS // widest, 1)]
        first = [texts[0][i] for i in pairs[0][chosen]]
        second = [texts[1][i] for i in pairs[1][chosen]]
        distances[chosen] = _block(first, second)
        start += len(chosen)
    return distances


def _codes(text: str | bytes) -> NDArray[np.uint32]:
    if isinstance(text, bytes):
        return np.frombuffer(text, np.uint8).astype(np.uint32)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _block(left: Sequence[NDArray[np.uint32]], right: Sequence[NDArray[np.uint32]]) -> Ints:
    """Returns the distances of pairs that come with the longest left side first."""
    a, of_left = _padded(left)
    b, of_right = _padded(right)
    steps = np.arange(b.shape[1] + 1, dtype=np.int32)
    rows = np.tile(steps, (len(left), 1))
    for number in range(1, a.shape[1] + 1):
        live = rows[: int(np.searchsorted(-of_left, -number, side="right"))]
        differs = b[: len(live)] != a[: len(live), number - 1 : number]
        best = np.minimum(live[:, :-1] + differs, live[:, 1:] + 1) - steps[1:]
        # Insertions run along the row: a running minimum once their cost is taken out.
        np.minimum.accumulate(best, axis=1, out=best)
        live[:, 0] = number
        live[:, 1:] = np.minimum(best, number) + steps[1:]
    return rows[np.arange(len(left)), of_right].astype(np.int64)


def _padded(texts: Sequence[NDArray[np.uint32]]) -> tuple[NDArray[np.uint32], Ints]:
    lengths = np.array([len(codes) for codes in texts], np.int64)
    padded = np.zeros((len(texts), int(lengths.max(initial=0))), np.uint32)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = np.concatenate(texts)
    return padded, lengths
