"""The gate of PEPNet: a factor per column (Chang et al., KDD 2023, arXiv 2302.01115)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tzrec.errors import ConfigError


class Gate(nn.Module):
    """How much each of D columns counts for a row, from 0 to gamma; the paper's "Gate NU".

    ::

        gate(x) = gamma sigmoid(Linear(ReLU(Linear(x))))      in_features -> hidden -> D

    With gamma 2 a gate that knows nothing is about 1.

    Args:
        in_features: size of the input.
        out_features: D.
        hidden_features: size of the layer between, D if None.
        gamma: the largest factor.
        device: where the parameters live.

    Raises:
        ConfigError: a size is below 1, or gamma is not above 0.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden_features: int | None = None,
        gamma: float = 2.0,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        hidden = out_features if hidden_features is None else hidden_features
        if hidden < 1 or out_features < 1:
            raise ConfigError(f"a gate needs sizes of at least 1, got {hidden} and {out_features}")
        if not gamma > 0:
            raise ConfigError(f"gamma of a gate is {gamma:g}, it must be above 0")
        self._gamma = gamma
        self.hidden = nn.Linear(in_features, hidden, device=device)
        self.linear = nn.Linear(hidden, out_features, device=device)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the factors (B, out_features) of ``x`` (B, in_features)."""
        return torch.sigmoid(self.linear(torch.relu(self.hidden(x)))) * self._gamma
