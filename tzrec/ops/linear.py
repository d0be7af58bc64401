"""Products of rows and weights: for inputs of odd width, and for rows whose number changes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Floats of a cache line.
_LINE = 16
# Ragged products are made for multiples of a part of the next power of two, and of this.
_PARTS, _LEAST = 32, 64


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
        or torch.compiler.is_compiling()
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


def ragged_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Returns ``x weight^T + bias`` of rows whose number is another in each batch.

    oneDNN, which computes products of 16 bits, makes and keeps code for every shape it meets. The
    steps of a batch's histories are a new number each time: memory grows by tens of MB per step
    of training, as the code lies between the freed activations. So under autocast on a CPU rows
    are filled up with zeros to one of few numbers, at most a sixteenth (or 63 rows) more.

    Args:
        x: (N, I).
        weight: (O, I).
        bias: (O,), None for none.
    """
    if (
        not isinstance(x, Tensor)
        or x.dim() != 2
        or not x.is_cpu
        or x.dtype == torch.float64
        or not torch.is_autocast_enabled("cpu")
        or torch.compiler.is_compiling()
    ):
        return F.linear(x, weight, bias)
    result: Tensor = _RaggedLinear.apply(x, weight, bias, torch.get_autocast_dtype("cpu"))
    return result


def padded_rows(num_rows: int) -> int:
    """Returns the number of rows that ``num_rows`` are filled up to."""
    power = 1 << max(num_rows - 1, 0).bit_length()
    step = max(power // _PARTS, _LEAST)
    return -(-num_rows // step) * step


def _filled(x: Tensor, num_rows: int, dtype: torch.dtype) -> Tensor:
    """Returns (num_rows, I) in ``dtype``: ``x`` (N, I), then zeros."""
    filled = x.new_empty(num_rows, x.size(1), dtype=dtype)
    filled[: x.size(0)].copy_(x)
    filled[x.size(0) :].zero_()
    return filled


class _RaggedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        filled, narrow = _filled(x, padded_rows(x.size(0)), dtype), weight.to(dtype)
        ctx.save_for_backward(filled, narrow)
        ctx.num_rows, ctx.types = x.size(0), (x.dtype, weight.dtype)
        ctx.bias_type = bias.dtype if bias is not None else None
        product = F.linear(filled, narrow, bias.to(dtype) if bias is not None else None)
        return product[: x.size(0)]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        filled, weight = ctx.saved_tensors
        of_rows, of_weights = ctx.types
        upstream = _filled(gradient, filled.size(0), filled.dtype)
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = (upstream @ weight)[: ctx.num_rows].to(of_rows)
        if ctx.needs_input_grad[1]:
            of_weight = (upstream.t() @ filled).to(of_weights)
        if ctx.bias_type is not None and ctx.needs_input_grad[2]:
            of_bias = gradient.sum(0, dtype=torch.float32).to(ctx.bias_type)
        return of_x, of_weight, of_bias, None
