"""A linear map of outer products that never makes all of them at once.

No ``from __future__ import annotations`` here: TorchScript reads the annotations.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def outer_linear(a: Tensor, b: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Returns ``weight (a_n x b_n) + bias`` for every row n.

    On a CPU the rows are taken piece by piece, forward and backward, and the backward makes the
    outer products again: this is 2-3 times faster than through memory, which holds N H F numbers
    less.

    Args:
        a: (N, H).
        b: (N, F).
        weight: (O, H F); column ``i F + j`` belongs to ``a_i b_j``.
        bias: (O,).

    Returns:
        (N, O).
    """
    if torch.jit.is_scripting():
        step = _rows_of_a_piece(a, b)
        pieces = [_products(a[:step], b[:step], weight, bias)]
        for start in range(step, a.size(0), step):
            end = start + step
            pieces.append(_products(a[start:end], b[start:end], weight, bias))
        return torch.cat(pieces)
    else:  # noqa: RET505 (TorchScript compiles one branch only)
        if a.device.type != "cpu":
            return _products(a, b, weight, bias)
        if torch.is_autocast_enabled("cpu"):
            # As autocast does it: matrix products in half precision, the outer products as given.
            dtype = torch.get_autocast_dtype("cpu")
            weight, bias = weight.to(dtype), bias.to(dtype)
        with torch.autocast("cpu", enabled=False):
            result: Tensor = _OuterLinear.apply(a, b, weight, bias)
        return result


def _products(a: Tensor, b: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.linear(_outer(a, b).to(weight.dtype), weight, bias)


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return (a.unsqueeze(2) * b.unsqueeze(1)).flatten(1)


def _rows_of_a_piece(a: Tensor, b: Tensor) -> int:
    # As many outer products as stay in a core's cache.
    return max(16, 262144 // (a.size(1) * b.size(1)))


class _OuterLinear(torch.autograd.Function):
    """`outer_linear` on a CPU; the backward needs the inputs only."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(a, b, weight)
        step = _rows_of_a_piece(a, b)
        pieces = zip(a.split(step), b.split(step), strict=True)
        return torch.cat([_products(x, y, weight, bias) for x, y in pieces])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        a, b, weight = ctx.saved_tensors
        step = _rows_of_a_piece(a, b)
        of_a, of_b = torch.empty_like(a), torch.empty_like(b)
        # Sums over many rows take up more digits than half precision has.
        of_weight = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float))
        for start in range(0, a.size(0), step):
            rows = slice(start, start + step)
            x, y, g = a[rows], b[rows], gradient[rows]
            of_weight += g.t() @ _outer(x, y).to(g.dtype)
            of_outer = (g @ weight).unflatten(1, (a.size(1), b.size(1)))
            of_a[rows] = torch.bmm(of_outer, y.to(g.dtype).unsqueeze(2)).squeeze(2)
            of_b[rows] = torch.bmm(x.to(g.dtype).unsqueeze(1), of_outer).squeeze(1)
        return of_a, of_b, of_weight.to(weight.dtype), gradient.sum(0)
