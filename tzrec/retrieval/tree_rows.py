"""Rows of parsed features, picked by number: `DataParser.parse` once, then any combination."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tzrec.datasets.tiling import feature_names, take


def pick_rows(parsed: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """Returns the parse keys of some rows, in their order and as often as they are named.

    Args:
        parsed: parse key → tensor.
        rows: (R,) numbers of rows.
    """
    picked: dict[str, Tensor] = {}
    for name in feature_names(parsed):
        picked |= take(parsed, name, rows)
    return picked


def append_rows(pieces: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Returns the parse keys of pieces of rows together."""
    return {key: torch.cat([piece[key] for piece in pieces]) for key in pieces[0]}
