"""Rows of parsed features, picked by number: `DataParser.parse` once, then any combination."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def pick_rows(parsed: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """Returns the parse keys of some rows, in their order and as often as they are named.

    Args:
        parsed: parse key → tensor.
        rows: (R,) numbers of rows.
    """
    picked: dict[str, Tensor] = {}
    for name in _features(parsed):
        found = {k: parsed[f"{name}.{k}"] for k in _PARTS if f"{name}.{k}" in parsed}
        if "lengths" not in found:  # dense
            picked[f"{name}.values"] = found["values"].index_select(0, rows)
            continue
        lengths = found["lengths"]
        picked[f"{name}.lengths"] = lengths.index_select(0, rows)
        places = _places(lengths, rows)
        if "key_lengths" in found:  # several values in a step
            steps = found["key_lengths"]
            picked[f"{name}.key_lengths"] = steps.index_select(0, places)
            places = _places(steps, places)
        for part in ("values", "weights"):
            if part in found:
                picked[f"{name}.{part}"] = found[part].index_select(0, places)
    return picked


def append_rows(pieces: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Returns the parse keys of pieces of rows together."""
    return {key: torch.cat([piece[key] for piece in pieces]) for key in pieces[0]}


_PARTS = ("values", "lengths", "weights", "key_lengths")


def _features(parsed: Mapping[str, Tensor]) -> list[str]:
    return [key.removesuffix(".values") for key in parsed if key.endswith(".values")]


def _places(lengths: Tensor, rows: Tensor) -> Tensor:
    """Returns where the values of some rows are."""
    ends = torch.cumsum(lengths, 0, dtype=torch.int64)
    picked = lengths.index_select(0, rows).to(torch.int64)
    first = (ends - lengths).index_select(0, rows)
    before = torch.cumsum(picked, 0) - picked
    shifts = torch.repeat_interleave(first - before, picked)
    return shifts + torch.arange(len(shifts))
