"""`Parsed`: what a feature makes of its columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tzrec.fg.ragged import Counts


@dataclass
class Parsed:
    """Values of one feature over B rows.

    ======================  =======================  ==============  ===========  =======
    kind                    values                   lengths         key_lengths  weights
    ======================  =======================  ==============  ===========  =======
    sparse                  int64 (ids,)             ids per row     None         if weighted
    dense                   float32 (B, value_dim)   None            None         None
    sparse sequence         int64 (ids,)             steps per row   ids per      None
                                                                     step
    dense sequence          float32 (steps,          steps per row   None         None
                            value_dim)
    ======================  =======================  ==============  ===========  =======

    Attributes:
        name: the feature.
        values: see above.
        lengths: int32 (B,).
        key_lengths: int32 (steps,).
        weights: float32 (ids,).
        counts: what there was before defaults, where that is counted.
    """

    name: str
    values: NDArray[Any]
    lengths: NDArray[np.int32] | None = None
    key_lengths: NDArray[np.int32] | None = None
    weights: NDArray[np.float32] | None = None
    counts: Counts | None = None


class SparseData(Parsed):
    """Ids: `values` and `lengths`, `weights` if weighted."""


class DenseData(Parsed):
    """Numbers: `values` (B, value_dim)."""


class SequenceSparseData(Parsed):
    """Ids of steps: `values`, `key_lengths`, `lengths` (steps per row)."""

    @property
    def seq_lengths(self) -> NDArray[np.int32] | None:
        """Steps per row."""
        return self.lengths


class SequenceDenseData(Parsed):
    """Numbers of steps: `values` (steps, value_dim), `lengths` (steps per row)."""

    @property
    def seq_lengths(self) -> NDArray[np.int32] | None:
        """Steps per row."""
        return self.lengths


ParsedData = Parsed
