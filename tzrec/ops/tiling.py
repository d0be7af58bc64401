"""Rows of users repeated for their candidates (input tiling).

Each function is a leaf of symbolic tracing and compiles under TorchScript. Call them through
the module (``tiling.owners(...)``): a name imported from here would escape the tracer.
No ``from __future__ import annotations`` here: TorchScript reads the annotations.
"""

from typing import Optional, Tuple  # noqa: UP035 (TorchScript)

import torch
import torchrec  # noqa: F401 (registers the fbgemm operators)
from torch import Tensor


@torch.fx.wrap
def counts_of(batch_size: Tensor, users: Tensor) -> Tensor:
    """Returns the rows (U,) of each user.

    Args:
        batch_size: rows of every user, a number; or (U,) rows of each.
        users: (U, ...), any tensor with one row a user.
    """
    return batch_size.reshape(-1).expand(users.size(0))


@torch.fx.wrap
def owners(counts: Tensor, rows: Optional[Tensor] = None) -> Tensor:  # noqa: UP045
    """Returns the number (B,) of the user that each row belongs to.

    Args:
        counts: (U,) rows of each user, B together.
        rows: (B, ...), any tensor with all rows; an error if ``counts`` are others.
    """
    if rows is None:
        return torch.repeat_interleave(counts)
    return torch.repeat_interleave(counts, output_size=rows.size(0))


@torch.fx.wrap
def repeat_jagged(values: Tensor, lengths: Tensor, rows: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
    """Returns values and lengths of the rows numbered ``rows``.

    Args:
        values: (sum of lengths, ...).
        lengths: (N,).
        rows: (M,) numbers of rows, in any order and any number of times.
    """
    places = torch.arange(values.size(0), device=values.device)
    taken: Tuple[Tensor, Tensor, Optional[Tensor]] = (  # noqa: UP006, UP045
        torch.ops.fbgemm.permute_1D_sparse_data(rows.to(torch.int32), lengths, places, None, None)
    )
    return values.index_select(0, taken[1]), taken[0]


@torch.fx.wrap
def fill_up(lengths: Tensor, owners: Tensor) -> Tensor:
    """Returns (F, B): of each feature its lengths, then zeros.

    Args:
        lengths: (F, U).
        owners: (B,) the user of each row.
    """
    return torch.nn.functional.pad(lengths, [0, owners.size(0) - lengths.size(1)])
