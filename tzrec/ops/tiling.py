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
def owners(counts: Tensor) -> Tensor:
    """Returns the number (B,) of the user that each row belongs to.

    Args:
        counts: (U,) rows of each user, B together.
    """
    return torch.repeat_interleave(counts)


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
def rows_of_keys(num_keys: int, counts: Tensor, owners: Tensor) -> Tensor:
    """Returns the rows (F * B,) that repeat F features of U rows each, one behind the other.

    Args:
        num_keys: F.
        counts: (U,) rows of each user.
        owners: (B,) the user of each row.
    """
    firsts = torch.arange(num_keys, device=owners.device) * counts.size(0)
    return (firsts.unsqueeze(1) + owners.unsqueeze(0)).flatten()


@torch.fx.wrap
def fill_up(lengths: Tensor, counts: Tensor, owners: Tensor) -> Tensor:
    """Returns (F * B,): of each feature its lengths, then zeros.

    Args:
        lengths: (F * U,), one feature behind the other.
        counts: (U,) rows of each user.
        owners: (B,) the user of each row.
    """
    by_feature = lengths.view(-1, counts.size(0))
    missing = owners.size(0) - counts.size(0)
    return torch.nn.functional.pad(by_feature, [0, missing]).flatten()
