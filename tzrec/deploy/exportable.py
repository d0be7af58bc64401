"""What torch.export cannot look into, said with operators that it knows.

Every function does what the one of the same name in `tzrec.modules`, `tzrec.ops` or FBGEMM does.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tzrec.deploy.jagged_index import rows_of, starts_of, steps_of

# Outer products of a row that exist at one time.
_PRODUCTS = 256


def complete_cumsum(lengths: Tensor) -> Tensor:
    """Returns (..., B + 1), the sums of all lengths before each row of (..., B), and of all."""
    return F.pad(torch.cumsum(lengths, -1, dtype=lengths.dtype), [1, 0])


def pool(values: Tensor, lengths: Tensor, mean: bool) -> Tensor:
    """Returns (B, D), the sum or the mean of each row's values; see `tzrec.modules.jagged`."""
    return F.embedding_bag(
        torch.arange(values.size(0), device=values.device),
        values,
        complete_cumsum(lengths.to(torch.int64)),
        mode="mean" if mean else "sum",
        include_last_offset=True,
    )


def max_length(lengths: Tensor) -> int:
    """Returns the largest of ``lengths`` (B,), at least 2.

    One padded step more changes nothing, and 1 is a special size to torch.export.
    """
    return torch.sym_max(lengths.max().item(), 2)


def num_padded(lengths: Tensor) -> int:
    """Returns the largest of ``lengths`` (B,), at least 2; see `max_length`."""
    return torch.sym_max(lengths.max().item(), 2)


def cut_windows(windows: Tensor, sequence: Tensor, name: str) -> Tensor:
    """Returns the first T columns of ``windows`` (W, S) for a sequence (B, T, D), T <= S."""
    torch._check(
        sequence.size(1) <= windows.size(1),
        lambda: f"sequence group {name} has a row with more steps than the sum of windows_len",
    )
    return windows[:, : sequence.size(1)]


def cat_steps(values: list[Tensor], lengths: list[Tensor], names: list[str]) -> Tensor:
    """Returns (sum of lengths, sum of dims), the features of each step side by side."""
    for other, name in zip(lengths[1:], names[1:], strict=True):
        torch._assert_async(
            (other == lengths[0]).all(),
            f"sequence features {names[0]} and {name} of one JAGGED_SEQUENCE group differ in "
            "length; every row needs equal lengths",
        )
    return torch.cat(values, dim=1)


def outer_linear(a: Tensor, b: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Returns ``weight (a_n x b_n) + bias`` (N, O), a few columns of ``a`` at a time.

    The number of pieces must not depend on the number of rows.

    Args:
        a: (N, H).
        b: (N, F).
        weight: (O, H F).
        bias: (O,).
    """
    width = b.size(1)
    step = max(1, _PRODUCTS // width)
    result = bias
    for start in range(0, a.size(1), step):
        products = (a[:, start : start + step].unsqueeze(2) * b.unsqueeze(1)).flatten(1)
        part = weight[:, start * width : (start + step) * width]
        result = result + F.linear(products.to(weight.dtype), part)
    return result


def places_of(lengths: Tensor, rows: Tensor) -> Tensor:
    """Returns which elements are those of the rows numbered ``rows``.

    Args:
        lengths: (U,).
        rows: numbers of rows, in any order and any number of times.
    """
    repeated = lengths.index_select(0, rows)
    owners = rows_of(repeated)
    starts = starts_of(lengths).index_select(0, rows)
    return starts.index_select(0, owners) + steps_of(repeated, owners)


def repeat_jagged(values: Tensor, places: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the values of repeated rows, and their lengths.

    Args:
        values: (sum of the lengths before, ...).
        places: see `places_of`.
        lengths: of the repeated rows.
    """
    return values.index_select(0, places), lengths
