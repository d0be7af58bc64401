"""Batch norm that takes a batch of one row."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class BatchNorm(nn.BatchNorm1d):
    """`nn.BatchNorm1d`, but one value per column is normalised by the running statistics.

    One value has no variance, and the last batch of an epoch may be a single row: there torch
    stops the training. The running statistics do not learn from such a batch.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (name of torch)
        """Returns the normalised ``input``, (B, C) or (B, C, T)."""
        if self.training and input.numel() > input.size(1):
            return super().forward(input)
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )
