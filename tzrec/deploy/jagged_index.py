"""Jagged rows by index: what torch.export takes instead of operators with sizes of their own.

Which element of a jagged tensor stands where is found once, where sizes may depend on data (the
first four functions). All else are lookups by that index, and no size depends on data.
No ``from __future__ import annotations`` here: TorchScript reads the annotations.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def rows_of(lengths: Tensor) -> Tensor:
    """Returns the row (N,) of each element; ``lengths`` (B,), their sum is N."""
    return torch.repeat_interleave(lengths.to(torch.int64))


def steps_of(lengths: Tensor, rows: Tensor) -> Tensor:
    """Returns which element of its row each one is (N,).

    Args:
        lengths: (B,), their sum is N.
        rows: see `rows_of`.
    """
    places = torch.arange(rows.size(0), device=lengths.device)
    return places - starts_of(lengths).index_select(0, rows)


def starts_of(lengths: Tensor) -> Tensor:
    """Returns how many elements stand before each row (B,)."""
    lengths = lengths.to(torch.int64)
    return torch.cumsum(lengths, 0) - lengths


def as_size(number: int, device: torch.device) -> Tensor:
    """Returns an empty tensor (number, 0), by which a size goes from one graph to another."""
    return torch.empty([number, 0], device=device)


def repeat(values: Tensor, rows: Tensor) -> Tensor:
    """Returns (N, ...): row ``rows[n]`` of ``values`` (B, ...)."""
    return values.index_select(0, rows)


def repeat_each(values: Tensor, number: int) -> Tensor:
    """Returns (B * number, ...), every row of ``values`` (B, ...) ``number`` times."""
    places = torch.arange(values.size(0) * number, device=values.device)
    return values.index_select(0, torch.div(places, number, rounding_mode="floor"))


def unpad(padded: Tensor, rows: Tensor, steps: Tensor) -> Tensor:
    """Returns (N, D), the steps of (B, T, D) that exist.

    Args:
        padded: (B, T, D); no row has more than T steps.
        rows: see `rows_of`.
        steps: see `steps_of`.
    """
    return padded[rows, steps]


def pad(values: Tensor, starts: Tensor, lengths: Tensor, num_steps: int) -> Tensor:
    """Returns (B, T, D): row b holds its first T of ``lengths[b]`` values, then zeros.

    Args:
        values: (N, D).
        starts: see `starts_of`.
        lengths: (B,).
        num_steps: T.
    """
    steps = torch.arange(num_steps, device=values.device).unsqueeze(0)
    exists = steps < lengths.unsqueeze(1)
    # Steps that do not exist read a row of zeros behind all others.
    place = torch.where(exists, starts.unsqueeze(1) + steps, values.size(0))
    return F.pad(values, [0, 0, 0, 1])[place]
