"""Dot products of all pairs of a row's vectors."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tzrec.ops.cpu.parallel import for_each


def pair_dots(vectors: Tensor) -> Tensor:
    """Returns ``[v_i . v_j for i < j]`` of each row, for training on a CPU.

    ::

        P = V V^T, its part above the diagonal         dV = (dP + dP^T) V

    Torch takes single elements of 16-bit numbers slowly, and its backward pass makes two products
    of matrices where one does.

    Args:
        vectors: (B, F, D) float32. Under autocast they are multiplied in its precision.

    Returns:
        (B, F (F - 1) / 2) float32: (0, 1), (0, 2), ..., (F - 2, F - 1).
    """
    result: Tensor = _PairDots.apply(vectors)
    return result


class _PairDots(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        from tzrec.ops.cpu.pairs import take_above

        if torch.is_autocast_enabled("cpu"):
            vectors = vectors.to(torch.get_autocast_dtype("cpu"))
        ctx.save_for_backward(vectors)
        count = vectors.size(1)
        with torch.autocast("cpu", enabled=False):
            products = torch.bmm(vectors, vectors.transpose(1, 2)).float()
        dots = products.new_empty(len(vectors), count * (count - 1) // 2)
        return _by_rows(take_above, products, dots)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        from tzrec.ops.cpu.pairs import mirror

        (vectors,) = ctx.saved_tensors
        count = vectors.size(1)
        gradient = gradient.float().contiguous()
        both = _by_rows(mirror, gradient, gradient.new_empty(len(vectors), count, count))
        return torch.bmm(both.to(vectors.dtype), vectors).float()


def _by_rows(kernel: Callable[..., None], source: Tensor, target: Tensor) -> Tensor:
    """Returns ``target`` after the kernel went over all rows, some in each thread."""
    rows, threads = len(target), torch.get_num_threads()
    cuts = [rows * i // threads for i in range(threads + 1)]
    arrays = source.detach().numpy(), target.numpy()
    shares = list(itertools.pairwise(cuts))
    for_each(lambda share: kernel(*arrays, *share), shares, [target.numel() // threads] * threads)
    return target
