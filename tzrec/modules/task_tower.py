"""Head of one task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.modules.mlp import MLP


class TaskTower(nn.Module):
    """``Linear(num_class)`` behind an optional MLP (reference 06 section 6.2).

    Args:
        tower_feature_in: size of the input.
        num_class: size of the output.
        mlp: fields of the ``MLP`` message, None for none.
        device: where the parameters live.
    """

    def __init__(
        self,
        tower_feature_in: int,
        num_class: int,
        *,
        mlp: Mapping[str, Any] | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.tower_mlp = MLP(tower_feature_in, **mlp, device=device) if mlp else None
        width = self.tower_mlp.output_dim() if self.tower_mlp is not None else tower_feature_in
        self.linear = nn.Linear(width, num_class, device=device)

    def forward(self, features: Tensor) -> Tensor:
        """Returns the logits (B, num_class) of ``features`` (B, tower_feature_in)."""
        if self.tower_mlp is not None:
            features = self.tower_mlp(features)
        return self.linear(features)
