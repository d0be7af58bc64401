"""The rows of a batch with their tree nodes: what ``tdm_sampler`` makes of a batch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tzrec.errors import DataError


@dataclass(frozen=True)
class TreeRows:
    """Nodes that a batch of B rows is trained on, beside the leaf of each row.

    Attributes:
        columns: attribute field to B (P + N) values: P positives of row 0, of row 1, …, then N
            negatives of row 0, of row 1, …
        num_rows: B.
        num_positives: P, the ancestors of each row's leaf that are kept.
        num_negatives: N.
    """

    columns: dict[str, pa.Array]
    num_rows: int
    num_positives: int
    num_negatives: int

    @property
    def num_joined(self) -> int:
        """Rows after joining: B (1 + P + N)."""
        return self.num_rows * (1 + self.num_positives + self.num_negatives)

    def source(self) -> NDArray[np.int64]:
        """Returns the row of the batch that each joined row belongs to."""
        rows = np.arange(self.num_rows, dtype=np.int64)
        parts = [rows, rows.repeat(self.num_positives), rows.repeat(self.num_negatives)]
        return np.concatenate(parts)

    def is_negative(self) -> NDArray[np.bool_]:
        """Returns which joined rows are negatives; they are the last ones."""
        negatives = np.zeros(self.num_joined, dtype=bool)
        negatives[self.num_rows * (1 + self.num_positives) :] = True
        return negatives


def join_tree_rows(
    columns: Mapping[str, pa.Array], nodes: TreeRows, labels: Collection[str]
) -> dict[str, pa.Array]:
    """Returns the columns of a batch with its nodes: ``[B rows ; positives ; negatives]``.

    Attributes get the values of the nodes; labels are 1 in the first two parts and 0 in the third,
    as int64; every other column, sample weights among them, is repeated with its row.

    Args:
        columns: column to B values.
        nodes: of this batch.
        labels: label columns.

    Raises:
        DataError: an attribute has another type than the column that it joins.
    """
    if not nodes.num_rows:
        return dict(columns)
    source = pa.array(nodes.source())
    target = pa.array(1 - nodes.is_negative().astype(np.int64))
    joined: dict[str, pa.Array] = {}
    for name, column in columns.items():
        if name in labels:
            joined[name] = target
        elif name in nodes.columns:
            joined[name] = _append(name, column, nodes.columns[name])
        else:
            joined[name] = column.take(source)
    return joined


def _append(name: str, column: pa.Array, sampled: pa.Array) -> pa.Array:
    if sampled.type != column.type:
        raise DataError(
            f"column {name!r} is {column.type}, but the nodes' attribute is {sampled.type}"
        )
    return pa.concat_arrays([column, sampled])
