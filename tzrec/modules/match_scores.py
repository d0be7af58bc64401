"""Scores of users against their items, shared negatives and hard negatives in one matrix."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

# Score of a candidate that is not there: a softmax gives it 0, and so no gradient.
ABSENT = -1e32
# Rows of a product that are computed at once.
_BLOCK = 256


@dataclasses.dataclass(frozen=True)
class ItemRows:
    """What the rows of an item matrix are: ``[R positives | N shared | H hard]``.

    Attributes:
        num_positives: R; positive r is that of user row r.
        hard_rows: (H,) user row of each hard negative, None without any.
        hard_columns: (H,) its running number within that row.
        in_batch: the positives of other rows are negatives too.
        own_shared: (R,) a shared item that is no negative of the row, None without any.
        ids: (R + N + H,) ids that tell items apart, -1 = unknown. With them, negatives that are
            the row's positive are left out.
    """

    num_positives: int
    hard_rows: Tensor | None = None
    hard_columns: Tensor | None = None
    in_batch: bool = False
    own_shared: Tensor | None = None
    ids: Tensor | None = None

    @classmethod
    def of(cls, num_positives: int, hard_neg_indices: Tensor | None, **more: Any) -> ItemRows:
        """Makes the rows of a batch of ``hard_neg_indices`` (H, 2): user row, running number."""
        if hard_neg_indices is None:
            return cls(num_positives, **more)
        rows, columns = hard_neg_indices.long().unbind(dim=1)
        return cls(num_positives, hard_rows=rows, hard_columns=columns, **more)

    @property
    def first_shared(self) -> int:
        """The first item row that all users are compared with."""
        return 0 if self.in_batch else self.num_positives

    @property
    def first_column(self) -> int:
        """The column of the first of these: without ``in_batch`` the positive comes before."""
        return 0 if self.in_batch else 1

    @property
    def num_hard(self) -> int:
        """H."""
        return 0 if self.hard_rows is None else self.hard_rows.numel()

    def targets(self, device: torch.device) -> Tensor:
        """Returns the column (R,) of each row's positive."""
        if self.in_batch:
            return torch.arange(self.num_positives, device=device)
        return torch.zeros(self.num_positives, dtype=torch.int64, device=device)


def match_scores(users: Tensor, items: Tensor, rows: ItemRows) -> Tensor:
    """Returns inner products, float32, in one matrix.

    With ``in_batch`` the columns are ``[R positives | N shared | hard]``, and that of the row's
    own positive is r; otherwise ``[the row's positive | N shared | hard]``. The hard columns are
    as many as the row with most hard negatives has; `ABSENT` fills the others.

    Nothing is computed in half precision, whatever autocast says: a temperature of 0.01 makes its
    rounding of a cosine an error of 0.4 in the score. There is one matrix: no part of it is made
    first and put together then.

    Args:
        users: (R, D).
        items: (R + N + H, D).
        rows: what the rows of ``items`` are.
    """
    with torch.autocast(users.device.type, enabled=False):
        scores: Tensor = _MatchScores.apply(users.float(), items.float(), rows)
    return scores


class _MatchScores(torch.autograd.Function):
    """`match_scores`, its gradients without a copy of the matrix."""

    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, rows: ItemRows) -> Tensor:
        ctx.save_for_backward(users, items)
        ctx.rows = rows
        num, first = rows.num_positives, rows.first_column
        shared = items[rows.first_shared : items.size(0) - rows.num_hard]
        last = first + shared.size(0)
        scores = users.new_empty(num, last + _hard_width(rows))
        if first:
            scores[:, 0] = (users * items[:num]).sum(dim=1)
        _multiply(users, shared, scores[:, first:last])
        if rows.hard_rows is not None and rows.hard_columns is not None and rows.num_hard:
            scores[:, last:] = ABSENT
            hard = (users[rows.hard_rows] * items[-rows.num_hard :]).sum(dim=1)
            scores[rows.hard_rows, last + rows.hard_columns] = hard
        if rows.own_shared is not None:
            at = (first + rows.own_shared).unsqueeze(1)
            scores[:, :last].scatter_(1, at, ABSENT)
        if rows.ids is not None:
            _leave_out_hits(scores, rows, last)
        return scores

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        users, items = ctx.saved_tensors
        rows: ItemRows = ctx.rows
        num, first = rows.num_positives, rows.first_column
        end = items.size(0) - rows.num_hard
        shared, of_shared = items[rows.first_shared : end], slice(first, None)
        if rows.num_hard:
            of_shared = slice(first, first + shared.size(0))
        of_users = torch.mm(grad[:, of_shared], shared)
        of_items = torch.empty_like(items)
        torch.mm(grad[:, of_shared].t(), users, out=of_items[rows.first_shared : end])
        if first:
            of_users.addcmul_(grad[:, :1], items[:num])
            torch.mul(grad[:, :1], users, out=of_items[:num])
        if rows.num_hard and rows.hard_rows is not None:
            at = grad[rows.hard_rows, first + shared.size(0) + rows.hard_columns].unsqueeze(1)
            of_users.index_add_(0, rows.hard_rows, at * items[end:])
            of_items[end:] = at * users[rows.hard_rows]
        return of_users, of_items, None


def _multiply(users: Tensor, items: Tensor, out: Tensor) -> None:
    """Writes the inner products of users (R, D) and items (N, D) to ``out`` (R, N).

    Where rows of ``out`` do not begin at a round address, a CPU's product takes twice as long as
    one block at a time in a buffer that stays in its cache.
    """
    if out.is_cuda or out.is_contiguous():
        torch.mm(users, items.t(), out=out)
        return
    block = out.new_empty(min(_BLOCK, out.size(0)), out.size(1))
    for start in range(0, out.size(0), _BLOCK):
        part = users[start : start + _BLOCK]
        out[start : start + _BLOCK] = torch.mm(part, items.t(), out=block[: part.size(0)])


def _hard_width(rows: ItemRows) -> int:
    if rows.hard_columns is None or not rows.num_hard:
        return 0
    return int(rows.hard_columns.max()) + 1


def _leave_out_hits(scores: Tensor, rows: ItemRows, last: int) -> None:
    """Marks negatives that are the row's positive as `ABSENT`."""
    assert rows.ids is not None
    num, end = rows.num_positives, rows.ids.numel() - rows.num_hard
    # An unknown item is none of the others.
    own = rows.ids[:num].masked_fill(rows.ids[:num] < 0, -2)
    same = own.unsqueeze(1) == rows.ids[rows.first_shared : end].unsqueeze(0)
    if rows.in_batch:
        same.fill_diagonal_(False)
    scores[:, rows.first_column : last].masked_fill_(same, ABSENT)
    if rows.hard_rows is not None and rows.hard_columns is not None and rows.num_hard:
        hit = own[rows.hard_rows] == rows.ids[end:]
        scores[rows.hard_rows[hit], last + rows.hard_columns[hit]] = ABSENT
