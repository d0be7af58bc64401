"""The kernel of balanced k-means. Import it inside the function that runs it: it loads numba."""

# No `from __future__ import annotations`: numba's typing decorators look at real objects.

from typing import Any

import numpy as np

from tzrec.ops.cpu.jit import kernel


@kernel
def _random(state: Any) -> Any:
    """Returns a uniform number in [0, 1) and moves ``state`` on (SplitMix64)."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return float(z >> np.uint64(11)) / 9007199254740992.0


@kernel
def _distances(columns: Any, center: Any, out: Any) -> None:
    """Writes the squared distance of each item, a column of ``columns`` (D, M), to a center."""
    out[:] = 0.0
    for d in range(columns.shape[0]):
        c = center[d]
        for i in range(columns.shape[1]):
            difference = columns[d, i] - c
            out[i] += difference * difference


@kernel
def _first_centers(columns: Any, centers: Any, distances: Any, state: Any) -> None:
    """Chooses items as centers, far ones with more probability (k-means++)."""
    num_items = columns.shape[1]
    chosen = min(int(_random(state) * num_items), num_items - 1)
    centers[0] = columns[:, chosen]
    nearest = np.full(num_items, np.inf, np.float32)
    for k in range(1, centers.shape[0]):
        _distances(columns, centers[k - 1], distances)
        total = 0.0
        for i in range(num_items):
            nearest[i] = min(nearest[i], distances[i])
            total += nearest[i]
        goal, chosen = _random(state) * total, 0
        for i in range(num_items):
            goal -= nearest[i]
            if nearest[i] > 0.0:
                chosen = i
                if goal < 0.0:
                    break
        centers[k] = columns[:, chosen]


@kernel
def _assign(distances: Any, sizes: Any, child: Any) -> Any:
    """Gives each item the nearest child that has room; returns whether any has changed.

    Items go in the order of what the second nearest child would cost them more.
    """
    num_children, num_items = distances.shape
    loss = np.empty(num_items, np.float32)
    for i in range(num_items):
        best, second = np.float32(np.inf), np.float32(np.inf)
        for k in range(num_children):
            distance = distances[k, i]
            if distance < best:
                best, second = distance, best
            elif distance < second:
                second = distance
        loss[i] = best - second
    room = sizes.copy()
    changed = False
    for i in np.argsort(loss, kind="mergesort"):
        best, choice = np.float32(np.inf), -1
        for k in range(num_children):
            if room[k] > 0 and (choice < 0 or distances[k, i] < best):
                best, choice = distances[k, i], k
        room[choice] -= 1
        if child[i] != choice:
            child[i] = choice
            changed = True
    return changed


@kernel
def _move_centers(columns: Any, child: Any, sizes: Any, centers: Any) -> None:
    for d in range(columns.shape[0]):
        total = np.zeros(len(sizes), np.float64)
        for i in range(columns.shape[1]):
            total[child[i]] += columns[d, i]
        for k in range(len(sizes)):
            if sizes[k] > 0:
                centers[k, d] = total[k] / sizes[k]


@kernel
def split_nodes(vectors: Any, order: Any, edges: Any, seed: Any, iterations: Any) -> None:
    """Orders the items of nodes so that those of a child lie one behind the other.

    Args:
        vectors: (N, D) float32.
        order: (N,) numbers of the items; written.
        edges: (S, n + 1) where the children of each node begin in ``order``, and the last ends.
        seed: of the first centers.
        iterations: rounds, fewer where nothing changes any more.
    """
    num_children, dim = edges.shape[1] - 1, vectors.shape[1]
    for s in range(edges.shape[0]):
        start, stop = edges[s, 0], edges[s, num_children]
        num_items = stop - start
        if num_items <= num_children:
            continue
        sizes = edges[s, 1:] - edges[s, :-1]
        items = order[start:stop].copy()
        columns = np.empty((dim, num_items), np.float32)
        for i in range(num_items):
            for d in range(dim):
                columns[d, i] = vectors[items[i], d]
        state = np.empty(1, np.uint64)
        state[0] = np.uint64(seed) * np.uint64(0xD1342543DE82EF95) + np.uint64(start)
        centers = np.empty((num_children, dim), np.float32)
        distances = np.empty((num_children, num_items), np.float32)
        child = np.full(num_items, -1, np.int64)
        _first_centers(columns, centers, distances[0], state)
        for _ in range(iterations):
            for k in range(num_children):
                _distances(columns, centers[k], distances[k])
            if not _assign(distances, sizes, child):
                break
            _move_centers(columns, child, sizes, centers)
        place = edges[s, :-1].copy()
        for i in range(num_items):
            order[place[child[i]]] = items[i]
            place[child[i]] += 1
