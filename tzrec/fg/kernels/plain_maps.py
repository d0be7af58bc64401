"""Searches in NumPy: words of a vocabulary, keys of the maps of cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tzrec.fg.kernels.plain_hashing import hash_text
from tzrec.fg.kernels.plain_text import Bytes, Ints, Lengths, gather_text, pick, same_texts

# Slots with the number of a word or -1, their hashes, and data, starts, ends, ids of the words.
Table = tuple[Ints, NDArray[np.uint64], Bytes, Ints, Ints, Ints]

_SPREAD = np.uint64(0x9E3779B97F4A7C15)


def table_size(num_words: int) -> int:
    """Returns the number of slots: a power of two, at least half of them free."""
    return 1 << max(1, 2 * num_words - 1).bit_length()


def build_vocabulary(data: Bytes, starts: Ints, ends: Ints, ids: Ints) -> Table:
    """Builds the table of `lookup_vocabulary`; the last of equal words wins."""
    data, starts, ends = gather_text(data, starts, ends)
    size = table_size(len(starts))
    slots, hashes = np.full(size, -1, dtype=np.int64), np.zeros(size, dtype=np.uint64)
    word_ids = np.zeros(len(starts), dtype=np.int64)
    codes = hash_text(data, starts, ends, False)
    first_of: dict[bytes, int] = {}
    taken = bytearray(size)
    for i, word in enumerate(pick(data, starts, ends, slice(None))):
        first = first_of.setdefault(word, i)
        word_ids[first] = ids[i]
        if first == i:
            slot = int(codes[i]) & (size - 1)
            while taken[slot]:
                slot = (slot + 1) & (size - 1)
            taken[slot] = 1
            slots[slot], hashes[slot] = i, codes[i]
    return slots, hashes, data, starts, ends, word_ids


def lookup_vocabulary(
    table: Table, data: Bytes, starts: Ints, ends: Ints, missing_id: int
) -> NDArray[np.int64]:
    """Returns the id of each token, ``missing_id`` where the table does not hold it."""
    slots, hashes, words, word_starts, word_ends, word_ids = table
    out = np.full(len(starts), missing_id, dtype=np.int64)
    codes = hash_text(data, starts, ends, False)
    at = (codes & np.uint64(len(slots) - 1)).astype(np.int64)
    open_ = np.arange(len(starts))
    while len(open_):
        open_ = open_[slots[at[open_]] >= 0]
        word, alike = slots[at[open_]], hashes[at[open_]] == codes[open_]
        tokens, word = open_[alike], word[alike]
        same = same_texts(
            (data, starts[tokens], ends[tokens]), (words, word_starts[word], word_ends[word])
        )
        out[tokens[same]] = word_ids[word[same]]
        alike[alike] = same
        open_ = open_[~alike]
        at[open_] = (at[open_] + 1) & (len(slots) - 1)
    return out


def find_keys(
    map_data: Bytes,
    map_starts: Ints,
    map_ends: Ints,
    map_lengths: Lengths,
    key_data: Bytes,
    key_starts: Ints,
    key_ends: Ints,
    key_lengths: Lengths,
) -> Ints:
    """Finds the keys of each cell in the cell's own map.

    Args:
        map_data: bytes of the keys of the maps' entries.
        map_starts: where they start.
        map_ends: where they end.
        map_lengths: entries of each cell's map.
        key_data: bytes of the keys to look for.
        key_starts: where they start.
        key_ends: where they end.
        key_lengths: keys of each cell.

    Returns:
        For every key the first entry with equal bytes, numbered over the entries of all cells;
        -1 where there is none.
    """
    entry_cells = np.repeat(np.arange(len(map_lengths)), map_lengths)
    key_cells = np.repeat(np.arange(len(key_lengths)), key_lengths)
    entry_codes = _cell_codes(map_data, map_starts, map_ends, entry_cells)
    key_codes = _cell_codes(key_data, key_starts, key_ends, key_cells)
    order = np.argsort(entry_codes, kind="stable")
    entry_codes = entry_codes[order]
    left = np.searchsorted(entry_codes, key_codes, side="left")
    right = np.searchsorted(entry_codes, key_codes, side="right")
    positions = np.full(len(key_codes), -1, dtype=np.int64)
    open_ = np.flatnonzero(left < right)
    while len(open_):  # more than one round only where two hashes are equal by chance
        entry = order[left[open_]]
        keys = (key_data, key_starts[open_], key_ends[open_])
        same = same_texts(keys, (map_data, map_starts[entry], map_ends[entry]))
        same &= entry_cells[entry] == key_cells[open_]
        positions[open_[same]] = entry[same]
        open_ = open_[~same]
        left[open_] += 1
        open_ = open_[left[open_] < right[open_]]
    return positions


def _cell_codes(data: Bytes, starts: Ints, ends: Ints, cells: Ints) -> NDArray[np.uint64]:
    return hash_text(data, starts, ends, False) ^ cells.astype(np.uint64) * _SPREAD
