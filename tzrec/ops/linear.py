"""`linear`: the gradient of an input whose width is odd, without the price of odd addresses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Floats of a cache line.
_LINE = 16


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Returns ``x weight^T + bias``, what torch's ``linear`` does.

    A CPU's product takes half as long again where the rows of its result begin in the midst of
    a cache line: with 13 numbers among 26 vectors of 16 an input has 429 columns, and so has its
    gradient. Here the rows of such a gradient lie a whole number of lines apart.

    Args:
        x: (N, I).
        weight: (O, I).
        bias: (O,), None for none.
    """
    if (
        x.dim() != 2
        or x.size(1) % _LINE == 0
        or not x.requires_grad
        or not x.is_cpu
        or not x.dtype == weight.dtype == torch.float32
        or torch.is_autocast_enabled("cpu")
    ):
        return F.linear(x, weight, bias)
    result: Tensor = _Linear.apply(x, weight, bias)
    return result


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        width = x.size(1)
        of_x = x.new_empty(x.size(0), -(-width // _LINE) * _LINE)[:, :width]
        torch.mm(gradient, weight, out=of_x)
        of_weight = gradient.t() @ x if ctx.needs_input_grad[1] else None
        of_bias = gradient.sum(0) if ctx.has_bias and ctx.needs_input_grad[2] else None
        return of_x, of_weight, of_bias
