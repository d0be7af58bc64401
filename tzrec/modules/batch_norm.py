"""Batch norm that takes a batch of one row."""

# TorchScript needs the annotations themselves, not their text.

import torch
from torch import Tensor, nn
from torch.nn import functional as F


# One node of a traced graph, where its size is not known yet.
@torch.fx.wrap
def _batch_norm(
    input: Tensor,  # noqa: A002 (name of torch)
    running_mean: Tensor,
    running_var: Tensor,
    num_batches_tracked: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """Returns the normalised ``input``, by the running statistics if it is one value a column."""
    learns = training and input.numel() > input.size(1)
    if learns:
        num_batches_tracked.add_(1)
    return F.batch_norm(
        input, running_mean, running_var, weight, bias, training=learns, momentum=momentum, eps=eps
    )


class BatchNorm(nn.BatchNorm1d):
    """`nn.BatchNorm1d`, but one value per column is normalised by the running statistics.

    One value has no variance, and the last batch of an epoch may be a single row: there torch
    stops the training. The running statistics do not learn from such a batch.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (name of torch)
        """Returns the normalised ``input``, (B, C) or (B, C, T)."""
        return _batch_norm(
            input,
            self.running_mean,  # type: ignore[arg-type]
            self.running_var,  # type: ignore[arg-type]
            self.num_batches_tracked,  # type: ignore[arg-type]
            self.weight,
            self.bias,
            self.training,
            self.momentum,  # type: ignore[arg-type]
            self.eps,
        )
