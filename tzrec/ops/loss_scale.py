"""`LossScale`: takes a gradient scaler's factor out of the gradients of embedding tables.

A scaler divides the gradients of parameters, and tables have none: ours sum up the gradients of
rows (`tzrec.ops.accumulation`), TorchRec's update inside the backward pass
(`unscale_torchrec_tables`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    SplitTableBatchedEmbeddingBagsCodegen,
)
from torch import Tensor, nn


@dataclasses.dataclass
class LossScale:
    """What the loss of the running backward pass was multiplied by.

    Attributes:
        value: the factor.
    """

    value: float = 1.0


def unscale_torchrec_tables(model: nn.Module, loss_scale: LossScale) -> None:
    """Lets TorchRec's tables take the scale out of their gradients in the backward pass.

    A gradient of a lookup's output that is not finite becomes zero.
    """

    def unscale(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:  # noqa: ARG001
        return _Unscale.apply(output, loss_scale)

    for module in model.modules():
        lookups: Any = getattr(module, "_lookups", [])
        for kernel in (kernel for lookup in lookups for kernel in lookup.modules()):
            if isinstance(kernel, SplitTableBatchedEmbeddingBagsCodegen):
                kernel.register_forward_hook(unscale)


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
