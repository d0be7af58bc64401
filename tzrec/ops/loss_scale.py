"""`LossScale`: takes a gradient scaler's factor out of the gradients of embedding tables.

A scaler divides the gradients of parameters, and tables have none: ours sum up the gradients of
rows (`tzrec.ops.accumulation`), TorchRec's update inside the backward pass (`unscale_gradient`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor


@dataclasses.dataclass
class LossScale:
    """What the loss of the running backward pass was multiplied by.

    Attributes:
        value: the factor.
    """

    value: float = 1.0


def unscale_gradient(output: Tensor, loss_scale: LossScale) -> Tensor:
    """Returns ``output``; its gradient is divided by the scale, or zero if it is not finite."""
    return _Unscale.apply(output, loss_scale)


class _Unscale(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, loss_scale: LossScale) -> Tensor:
        ctx.loss_scale = loss_scale
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        if not torch.isfinite(gradient).all():
            return torch.zeros_like(gradient), None
        return gradient / ctx.loss_scale.value, None
