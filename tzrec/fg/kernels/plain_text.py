"""Scans and copies of text in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Lengths = NDArray[np.int32]
Text = tuple[Bytes, Ints, Ints]

# What `survey` tells: each text is one token; some are empty, else so; some may be several.
SINGLE, EMPTY, MANY = 0, 1, 2


def text_lengths(starts: Ints, ends: Ints) -> Ints:
    """Returns the number of bytes of each token."""
    return ends - starts


def ranges(first: Ints, counts: NDArray[Any]) -> Ints:
    """Returns the numbers ``first[i], first[i] + 1, …`` (``counts[i]`` of them) for all i."""
    ends = np.cumsum(counts, dtype=np.int64)
    shift = np.repeat(first - ends + counts, counts)
    return np.asarray(shift + np.arange(len(shift), dtype=np.int64))


def pick(data: Bytes, starts: Ints, ends: Ints, chosen: Any) -> list[bytes]:
    """Returns the chosen tokens as Python bytes."""
    pairs = zip(starts[chosen].tolist(), ends[chosen].tolist(), strict=True)
    return [data[start:end].tobytes() for start, end in pairs]


def _separators(text: Text, sep1: int, sep2: int) -> tuple[Ints, Ints, Ints]:
    """Returns all places of separators, each text's first of them, and their number."""
    data, starts, ends = text
    low = int(starts.min()) if len(starts) else 0
    part = data[low : int(ends.max()) if len(ends) else 0]
    hit = part == sep1 if sep2 < 0 else (part == sep1) | (part == sep2)
    places = np.flatnonzero(hit) + low
    first = np.searchsorted(places, starts)
    return places, first, np.maximum(np.searchsorted(places, ends) - first, 0)


def survey(data: Bytes, starts: Ints, ends: Ints, sep1: int, sep2: int) -> int:
    """Tells whether texts must be split on either of two bytes (-1 for no second one).

    Returns:
        ``SINGLE``: each text is one token, that is not empty and has no separator. ``EMPTY``:
        there are empty texts, and no separators. ``MANY``: all other cases; between texts that
        do not follow each other separators may be taken for theirs.
    """
    sizes = ends - starts
    low, high = int(starts.min(initial=len(data))), int(ends.max(initial=0))
    if high - low > 2 * int(sizes.sum()) + len(starts):  # mostly bytes of no text
        return MANY
    part = data[low : max(low, high)]
    if (part == sep1).any() or (sep2 >= 0 and (part == sep2).any()):
        return MANY
    return SINGLE if sizes.all() else EMPTY


def split(
    data: Bytes, starts: Ints, ends: Ints, sep1: int, sep2: int, keep_empty: bool
) -> tuple[Ints, Ints, Lengths]:
    """Splits each text on either of two bytes.

    Args:
        data: bytes of the texts.
        starts: where the texts start.
        ends: where they end.
        sep1: a separator.
        sep2: another one, or -1.
        keep_empty: empty tokens count, also the one behind a last separator. An empty text
            has no tokens in any case.

    Returns:
        The starts and ends of all tokens, and the number of tokens of each text.
    """
    places, first, counts = _separators((data, starts, ends), sep1, sep2)
    filled = ends > starts
    counts = np.where(filled, counts + 1, 0)
    inner = places[ranges(first, np.maximum(counts - 1, 0))]
    last = np.cumsum(counts)[filled] - 1
    new_ends = np.empty(int(counts.sum()), dtype=np.int64)
    is_last = np.zeros(len(new_ends), dtype=np.bool_)
    is_last[last] = True
    new_ends[is_last], new_ends[~is_last] = ends[filled], inner
    new_starts = np.empty_like(new_ends)
    is_first = np.zeros(len(new_ends), dtype=np.bool_)
    is_first[last - counts[filled] + 1] = True
    new_starts[is_first], new_starts[~is_first] = starts[filled], inner + 1
    if not keep_empty:
        kept = new_ends > new_starts
        owners = np.repeat(np.arange(len(counts)), counts)[kept]
        counts = np.bincount(owners, minlength=len(counts))
        new_starts, new_ends = new_starts[kept], new_ends[kept]
    return new_starts, new_ends, counts.astype(np.int32)


def split_pairs(
    data: Bytes, starts: Ints, ends: Ints, sep: int
) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Finds the first separator of each token.

    Returns:
        Where the keys end and where the values start (both the token's end where there is no
        separator), and whether there is a separator.
    """
    places, first, counts = _separators((data, starts, ends), sep, -1)
    found = counts > 0
    key_ends, value_starts = ends.copy(), ends.copy()
    key_ends[found] = places[first[found]]
    value_starts[found] = key_ends[found] + 1
    return key_ends, value_starts, found


def same_texts(left: Text, right: Text) -> NDArray[np.bool_]:
    """Tells for each i whether the i-th tokens are equal."""
    sizes = left[2] - left[1]
    same = np.asarray(sizes == right[2] - right[1])
    sizes = np.where(same, sizes, 0)
    differ = left[0][ranges(left[1], sizes)] != right[0][ranges(right[1], sizes)]
    same[np.repeat(np.arange(len(sizes)), sizes)[differ]] = False
    return same


def gather_text(data: Bytes, starts: Ints, ends: Ints) -> Text:
    """Returns a copy of the tokens, one behind the other."""
    return concat(((data, starts, ends),), np.empty(0, dtype=np.uint8))


def concat(pieces: tuple[Text, ...], joiner: Bytes) -> Text:
    """Joins the i-th tokens of all pieces, with ``joiner`` between them."""
    return join_pieces(pieces, joiner, _scatter)


def _scatter(data: Bytes, starts: Ints, ends: Ints, out: Bytes, places: Ints) -> None:
    sizes = ends - starts
    out[ranges(places, sizes)] = data[ranges(starts, sizes)]


def join_pieces(
    pieces: tuple[Text, ...],
    joiner: Bytes,
    scatter: Callable[[Bytes, Ints, Ints, Bytes, Ints], None],
) -> Text:
    """Concatenates tokens; ``scatter`` copies those of one piece to their places."""
    num = len(pieces[0][1])
    if len(joiner):
        zeros = np.zeros(num, dtype=np.int64)
        between = (joiner, zeros, zeros + len(joiner))
        pieces = tuple(piece for part in pieces for piece in (between, part))[1:]
    sizes = [ends - starts for _, starts, ends in pieces]
    new_ends = np.cumsum(sum(sizes[1:], sizes[0]))
    new_starts = np.zeros(num, dtype=np.int64)
    new_starts[1:] = new_ends[:-1]
    out = np.empty(int(new_ends[-1]) if num else 0, dtype=np.uint8)
    places = new_starts
    for (data, starts, ends), size in zip(pieces, sizes, strict=True):
        scatter(data, starts, ends, out, places)
        places = places + size
    return out, new_starts, new_ends
