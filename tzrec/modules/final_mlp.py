"""The two parts that FinalMLP adds to MLPs: feature gates and fusion (arXiv 2304.00902)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.errors import ConfigError
from tzrec.modules.mlp import MLP


class FeatureGate(nn.Module):
    """Weights every column of the features by what a context says about it.

    ::

        y = 2 sigmoid(Linear(MLP(context))) * features

    Without a context it is a learnt vector, the same for all rows.

    Args:
        feature_dim: D.
        mlp: fields of the ``MLP`` message.
        context_dim: size of the context, 0 for a learnt vector.
        constant_dim: size of the learnt vector.
        device: where the parameters live.

    Raises:
        ConfigError: a learnt vector goes through an MLP with batch statistics, or what `MLP`
            refuses.
    """

    def __init__(
        self,
        feature_dim: int,
        *,
        mlp: Mapping[str, Any],
        context_dim: int = 0,
        constant_dim: int = 1,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.mlp = MLP(context_dim or constant_dim, **mlp, device=device)
        if not context_dim and self.mlp.uses_batch_statistics():
            raise ConfigError(
                "feature_selection normalises over the batch, but a gate without a group of its "
                "own has the same context in all rows",
                hint="use use_ln, or name groups fs1 and fs2",
            )
        self.linear = nn.Linear(self.mlp.output_dim(), feature_dim, device=device)
        self.context = None
        if not context_dim:
            self.context = nn.Parameter(torch.randn(1, constant_dim, device=device))

    def forward(self, features: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns (B, D) of ``features`` (B, D) and the context (B, C), if the gate takes one."""
        if self.context is not None:
            context = self.context
        return 2.0 * torch.sigmoid(self.linear(self.mlp(context))) * features


class BilinearFusion(nn.Module):
    """Output layer over two streams that also multiplies them, in chunks (heads).

    ::

        y = b + w_x . x + w_y . y + sum_h x_h' W_h y_h

    x_h and y_h are the h-th of ``num_heads`` equal parts of x and y.

    Args:
        x_dim: X, size of the first stream.
        y_dim: Y, size of the second.
        num_class: C, number of outputs.
        num_heads: number of parts, divides both sizes.
        device: where the parameters live.

    Raises:
        ConfigError: the heads do not divide the streams.
    """

    def __init__(
        self,
        x_dim: int,
        y_dim: int,
        *,
        num_class: int = 1,
        num_heads: int = 1,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if num_heads < 1 or x_dim % num_heads or y_dim % num_heads:
            raise ConfigError(
                f"num_heads is {num_heads}, it must divide the last layers of both MLPs "
                f"({x_dim} and {y_dim} units)"
            )
        self._parts = (num_heads, x_dim // num_heads)
        self._outputs = (num_class, y_dim // num_heads)
        self.linear_x = nn.Linear(x_dim, num_class, device=device)
        self.linear_y = nn.Linear(y_dim, num_class, bias=False, device=device)
        # (heads, X / heads, C Y / heads)
        weight = torch.empty(*self._parts, num_class * self._outputs[1], device=device)
        self.weight = nn.Parameter(weight)
        # As a linear layer over the X Y / heads products that a class adds up.
        bound = (num_heads / (x_dim * y_dim)) ** 0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns (B, C) of ``x`` (B, X) and ``y`` (B, Y)."""
        linear = self.linear_x(x) + self.linear_y(y)
        # (H, B, X / H) @ (H, X / H, C Y / H)
        mapped = torch.matmul(x.unflatten(1, self._parts).transpose(0, 1), self.weight)
        heads = y.unflatten(1, (self._parts[0], 1, self._outputs[1])).transpose(0, 1)
        return linear + (mapped.unflatten(2, self._outputs) * heads).sum(dim=(0, 3))
