"""Beam search in an item tree: one pass of the model for a level, over all rows of a batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tzrec.datasets.samplers.tdm_predict import TDMPredictSampler
from tzrec.errors import ConfigError
from tzrec.retrieval.exact import Found
from tzrec.retrieval.tree_codes import Ints, depth_of

# (rows, nodes) → how well each node fits its row: arrays of one length.
Score = Callable[[Ints, NDArray[np.int32]], NDArray[np.float32]]


def beam_search(tree: TDMPredictSampler, score: Score, num_rows: int, k: int) -> Found:
    """Returns the best k leaves of each row.

    The search begins on level ``ceil(log_n(2 n k))``, with n children a node, or on that of the
    leaves where the tree is lower. The best 2 k nodes of a level are followed to their children;
    of the leaves the best k are kept.

    Args:
        tree: the nodes and their children.
        score: of nodes.
        num_rows: B.
        k: leaves of a row.

    Returns:
        Places of nodes (B, k) and their scores.

    Raises:
        ConfigError: k is not at least 1.
    """
    if k < 1:
        raise ConfigError(f"{k} items are asked for; at least 1")
    last = tree.nodes.num_levels - 1
    level = min(depth_of(2 * tree.branching * k, max(tree.branching, 2)), last)
    first = tree.nodes.on_level(level)
    rows = np.arange(num_rows, dtype=np.int64).repeat(len(first))
    nodes = np.tile(first, num_rows)
    scores = score(rows, nodes)
    while level < last:
        kept = _best(rows, scores, 2 * k)
        owners, nodes = tree.expand(nodes[kept])
        rows = rows[kept][owners]
        scores = score(rows, nodes)
        level += 1
    kept = _best(rows, scores, k)
    rows = rows[kept]
    found = Found(np.full((num_rows, k), -1), np.full((num_rows, k), -np.inf, np.float32))
    numbers = _numbers(rows)
    found.positions[rows, numbers] = nodes[kept]
    found.scores[rows, numbers] = scores[kept]
    return found


def _best(rows: Ints, scores: NDArray[np.float32], k: int) -> Ints:
    """Returns which entries are among the k best of their row: row by row, best first.

    Of equal scores the earlier one comes first.
    """
    order = np.lexsort((-scores, rows))
    return order[_numbers(rows[order]) < k]


def _numbers(rows: Ints) -> Ints:
    """Returns the number of each entry within its row; rows are ascending."""
    return np.arange(len(rows)) - np.searchsorted(rows, rows)
