"""Gated cross network of GDCN (arXiv 2311.04635)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tzrec.errors import ConfigError


class GatedCross(nn.Module):
    """Cross layers whose every order passes a gate.

    ::

        c_{l+1} = c_0 * (W_l c_l + b_l) * sigmoid(G_l c_l) + c_l

    The gate G_l lets through those crosses of order l + 2 that help; without it the layer is that
    of DCN v2.

    Args:
        input_dim: D.
        cross_num: number of layers.
        device: where the parameters live.

    Raises:
        ConfigError: there is no layer.
    """

    def __init__(
        self,
        input_dim: int,
        *,
        cross_num: int = 3,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if cross_num < 1:
            raise ConfigError(f"cross_num is {cross_num}, it must be at least 1")
        self._output_dim = input_dim
        self.crosses: Any = nn.ModuleList(
            nn.Linear(input_dim, input_dim, device=device) for _ in range(cross_num)
        )
        self.gates: Any = nn.ModuleList(
            nn.Linear(input_dim, input_dim, bias=False, device=device) for _ in range(cross_num)
        )

    def output_dim(self) -> int:
        """Returns D."""
        return self._output_dim

    def forward(self, features: Tensor) -> Tensor:
        """Returns (B, D) of ``features`` (B, D)."""
        x = features
        for cross, gate in zip(self.crosses, self.gates, strict=True):
            gated = torch.sigmoid(gate(x)).to(x.dtype)
            x = torch.addcmul(x, features * cross(x), gated)
        return x
