"""Compiled loops of the samplers: id tables, alias tables, adjacency lists, draws.

Import this module inside the function that needs it: it loads numba. Random numbers are those of
SplitMix64 (Steele, Lea, Flood 2014) from a seed of 64 bits: number i depends on the seed and i
only. One number gives a place among ``n`` (upper half of its product with ``n``, Lemire 2019)
and, from the lower half, how far into the place it is.

Places of items and users are int32. A free slot of an id table holds 0, a used one the place
plus 1. A cell of an alias table holds a 32-bit limit above the place of the other item.
"""

# No `from __future__ import annotations`: numba's typing decorators look at real objects.

from typing import Any

import numpy as np
from numba import types

from tzrec.fg.kernels.compiled_base import (
    FLOATS,
    INTS,
    LENGTHS,
    OUT_INTS,
    OUT_LENGTHS,
    OUT_WORDS,
    WORDS,
    helper,
    high_product,
    kernel,
)
from tzrec.ops.cpu.jit import prefetch

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX1, _MIX2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_AHEAD = 12  # look-ups that wait for memory at the same time
_SHORT = 24  # places up to which insertion sorts faster


@helper
def _scramble(word: Any) -> Any:
    word = (word ^ (word >> np.uint64(30))) * _MIX1
    word = (word ^ (word >> np.uint64(27))) * _MIX2
    return word ^ (word >> np.uint64(31))


@helper
def _slot_of(key: Any, mask: Any) -> Any:
    return np.int64(_scramble(np.uint64(key)) & np.uint64(mask))


@helper
def _fetch(ids: Any, i: Any, keys: Any, slots: Any, mask: Any) -> None:
    """Asks the cache for what the next ids will need: memory is what look-ups wait for."""
    if i + 2 * _AHEAD < len(ids):
        prefetch(slots, _slot_of(ids[i + 2 * _AHEAD], mask))
        place = slots[_slot_of(ids[i + _AHEAD], mask)]
        if place > 0:
            prefetch(keys, np.int64(place - 1))


@kernel(INTS, OUT_LENGTHS)
def fill_slots(keys: Any, slots: Any) -> None:
    """Enters keys that are all different into free slots."""
    mask = len(slots) - 1
    for i in range(len(keys)):
        if i + _AHEAD < len(keys):
            prefetch(slots, _slot_of(keys[i + _AHEAD], mask))
        slot = _slot_of(keys[i], mask)
        while slots[slot] != 0:
            slot = (slot + 1) & mask
        slots[slot] = i + 1


@kernel(INTS, OUT_INTS, OUT_LENGTHS, types.int64, OUT_LENGTHS, returns=types.int64)
def add_ids(ids: Any, keys: Any, slots: Any, count: int, places: Any) -> Any:
    """Finds the place of each id, the next free one for a new id; returns the new count."""
    mask = len(slots) - 1
    for i in range(len(ids)):
        _fetch(ids, i, keys, slots, mask)
        slot = _slot_of(ids[i], mask)
        while slots[slot] != 0 and keys[slots[slot] - 1] != ids[i]:
            slot = (slot + 1) & mask
        if slots[slot] == 0:
            keys[count] = ids[i]
            count += 1
            slots[slot] = count
        places[i] = slots[slot] - 1
    return count


@kernel(INTS, INTS, LENGTHS, OUT_LENGTHS)
def find_ids(ids: Any, keys: Any, slots: Any, places: Any) -> None:
    """Finds the place of each id, -1 where there is none."""
    mask = len(slots) - 1
    for i in range(len(ids)):
        _fetch(ids, i, keys, slots, mask)
        slot = _slot_of(ids[i], mask)
        while slots[slot] != 0 and keys[slots[slot] - 1] != ids[i]:
            slot = (slot + 1) & mask
        places[i] = slots[slot] - 1


@helper
def _heaviest(weights: Any) -> Any:
    best = 0
    for i in range(len(weights)):
        if weights[i] > weights[best]:
            best = i
    return best


@kernel(FLOATS, types.float64, OUT_WORDS)
def build_alias(weights: Any, total: float, cells: Any) -> None:
    """Builds the alias table (Walker 1977, Vose 1991) of weights >= 0 with this sum."""
    count = len(weights)
    scale = count / total
    rest = np.empty(count, dtype=np.float64)
    # Both lists in one array: light ones from the front, heavy ones from the back.
    lists = np.empty(count, dtype=np.int32)
    light, heavy = 0, count
    for i in range(count):
        rest[i] = weights[i] * scale
        cells[i] = (_LOW << _HALF) | np.uint64(i)
        if rest[i] < 1.0:
            lists[light] = i
            light += 1
        else:
            heavy -= 1
            lists[heavy] = i
    while light > 0 and heavy < count:
        light -= 1
        small, large = lists[light], lists[heavy]
        limit = np.uint64(min(rest[small] * 4294967296.0, 4294967295.0))
        cells[small] = (limit << _HALF) | np.uint64(large)
        rest[large] -= 1.0 - rest[small]
        if rest[large] < 1.0:
            heavy += 1
            lists[light] = large
            light += 1
    # What rounding left over is as good as 1, except for a weight of nothing.
    while light > 0:
        light -= 1
        small = lists[light]
        if weights[small] <= 0.0:
            cells[small] = np.uint64(_heaviest(weights))


@helper
def _among(places: Any, mask: Any, place: Any) -> Any:
    slot = _slot_of(place, mask)
    while places[slot] != 0:
        if places[slot] == place + 1:
            return True
        slot = (slot + 1) & mask
    return False


@kernel(WORDS, types.int64, LENGTHS, types.uint64, OUT_LENGTHS, OUT_LENGTHS)
def draw_weighted(cells: Any, count: int, excluded: Any, seed: int, taken: Any, out: Any) -> None:
    """Draws places below ``count`` by an alias table (empty: uniformly) that are not excluded.

    Some place that can be drawn must not be excluded, and not by a hair only: an excluded place
    is drawn anew.

    Args:
        cells: the alias table.
        count: number of places.
        excluded: places that are not drawn; -1 counts for nothing.
        seed: of the draws.
        taken: zeros, a power of two, more than twice as many as are excluded.
        out: the draws.
    """
    mask = len(taken) - 1
    any_excluded = False
    for place in excluded:
        if place >= 0:
            any_excluded = True
            slot = _slot_of(place, mask)
            while taken[slot] != 0 and taken[slot] != place + 1:
                slot = (slot + 1) & mask
            taken[slot] = place + 1
    state, wide = np.uint64(seed), np.uint64(count)
    for k in range(len(out)):
        while True:
            state += _STEP
            word = _scramble(state)
            place = np.int64(high_product(word, wide))
            if len(cells) > 0:
                cell = cells[place]
                if ((word * wide) >> _HALF) >= (cell >> _HALF):
                    place = np.int64(cell & _LOW)
            if not any_excluded or not _among(taken, mask, place):
                break
        out[k] = place


@helper
def _below(places: Any, first: Any, last: Any, value: Any) -> Any:
    """Returns how many of the sorted places [first, last) are less than a value."""
    low, high = first, last
    while low < high:
        middle = (low + high) >> 1
        if places[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low - first


@helper
def _missing(places: Any, first: Any, last: Any, number: Any) -> Any:
    """Returns the ``number``-th (from 0) of the places that a sorted range does not have."""
    low, high = first, last
    while low < high:
        middle = (low + high) >> 1
        if places[middle] - (middle - first) <= number:
            low = middle + 1
        else:
            high = middle
    return number + (low - first)


@helper
def _fetch_list(starts: Any, stops: Any, places: Any, users: Any, row: Any, more: Any) -> None:
    """Asks the cache for the list of a coming row, and for where that of a later one lies."""
    if row < len(users) and users[row] >= 0:
        prefetch(places, starts[users[row]])
    if row + more < len(users) and users[row + more] >= 0:
        prefetch(starts, np.int64(users[row + more]))
        prefetch(stops, np.int64(users[row + more]))


@kernel(
    *(INTS, INTS, LENGTHS, LENGTHS, LENGTHS),
    *(types.int64, types.int64, types.uint64, OUT_LENGTHS),
    returns=types.int64,
)
def draw_missing(
    starts: Any,
    stops: Any,
    places: Any,
    users: Any,
    own: Any,
    count: int,
    repeat: int,
    seed: int,
    out: Any,
) -> Any:
    """Draws for each row places below ``count`` that its user's list does not have, uniformly.

    Args:
        starts: where each user's list begins.
        stops: where it ends.
        places: the lists, each sorted, without repetition.
        users: (P,) each row's user, -1 for none.
        own: (P,) one more place that the row may not draw, -1 for none.
        count: number of places.
        repeat: draws of a row.
        seed: of the draws.
        out: the draws, row by row; the last rows may get fewer or none.

    Returns:
        Draws of rows for which no place was left; they may have any place.
    """
    state, failed = np.uint64(seed), 0
    for k in range(len(out)):
        state += _STEP
        word = _scramble(state)
        row = k // repeat
        _fetch_list(starts, stops, places, users, (k + _AHEAD) // repeat, _AHEAD // repeat)
        first, last, skipped = 0, 0, -1
        if row < len(users):
            if users[row] >= 0:
                first, last = starts[users[row]], stops[users[row]]
            if own[row] >= 0:
                before = _below(places, first, last, own[row])
                if first + before == last or places[first + before] != own[row]:
                    skipped = own[row] - before
        left = count - (last - first) - (1 if skipped >= 0 else 0)
        if left <= 0:
            failed += 1
            out[k] = np.int64(high_product(word, np.uint64(count)))
            continue
        number = np.int64(high_product(word, np.uint64(left)))
        if skipped >= 0 and number >= skipped:
            number += 1
        out[k] = _missing(places, first, last, number)
    return failed


@kernel(INTS, INTS, LENGTHS, LENGTHS, types.int64, types.uint64, OUT_LENGTHS, OUT_LENGTHS)
def draw_neighbours(
    starts: Any, stops: Any, places: Any, users: Any, most: int, seed: int, out: Any, rows: Any
) -> None:
    """Takes each row's neighbours, ``most`` of them at random where there are more.

    Args:
        starts: where each user's list begins.
        stops: where it ends.
        places: the lists, without repetition.
        users: (P,) each row's user, -1 for none.
        most: neighbours of a row.
        seed: of the choice.
        out: (H,) the neighbours.
        rows: (2 * H,) the row of each and its number within the row, by turns.
    """
    state, count = np.uint64(seed), 0
    for row in range(len(users)):
        if users[row] < 0:
            continue
        first, last = starts[users[row]], stops[users[row]]
        number = min(most, last - first)
        for i in range(number):
            chosen = first + i
            if last - first > most:
                # Floyd's choice without repetition (Bentley, Floyd 1987).
                limit = last - first - number + i
                state += _STEP
                drawn = np.int64(high_product(_scramble(state), np.uint64(limit + 1)))
                chosen = first + drawn
                for other in range(count, count + i):
                    if out[other] == places[chosen]:
                        chosen = first + limit
                        break
            out[count + i] = places[chosen]
            rows[2 * (count + i)] = row
            rows[2 * (count + i) + 1] = i
        count += number


@kernel(LENGTHS, OUT_INTS)
def count_edges(users: Any, counts: Any) -> None:
    """Counts the edges of each user."""
    for i in range(len(users)):
        if i + _AHEAD < len(users):
            prefetch(counts, np.int64(users[i + _AHEAD]))
        counts[users[i]] += 1


@kernel(LENGTHS, LENGTHS, OUT_INTS, OUT_LENGTHS)
def scatter_edges(users: Any, items: Any, nexts: Any, places: Any) -> None:
    """Puts each edge's item where its user's list goes on."""
    for i in range(len(users)):
        if i + 2 * _AHEAD < len(users):
            prefetch(nexts, np.int64(users[i + 2 * _AHEAD]))
            prefetch(places, nexts[users[i + _AHEAD]])
        places[nexts[users[i]]] = items[i]
        nexts[users[i]] += 1


@kernel(INTS, OUT_INTS, OUT_LENGTHS)
def sort_lists(starts: Any, stops: Any, places: Any) -> None:
    """Sorts each list and drops repetitions: ``stops`` moves back to its new end."""
    for user in range(len(starts)):
        first, last = starts[user], stops[user]
        if last - first <= _SHORT:
            for i in range(first + 1, last):
                value, j = places[i], i
                while j > first and places[j - 1] > value:
                    places[j] = places[j - 1]
                    j -= 1
                places[j] = value
        else:
            places[first:last].sort()
        kept = first
        for i in range(first, last):
            if kept == first or places[i] != places[kept - 1]:
                places[kept] = places[i]
                kept += 1
        stops[user] = kept
