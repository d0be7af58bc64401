"""Gates of a mixture of experts, and the mixture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.modules.mlp import MLP


class ExpertGate(nn.Module):
    """``softmax(Linear(MLP(x)))``: how much each of E experts counts for a row.

    With one expert there is nothing to choose: the gate is 1 and has no parameters.

    Args:
        in_features: size of the input.
        num_expert: E.
        mlp: fields of the ``MLP`` message of the layers before the last, None for none.
        device: where the parameters live.
    """

    def __init__(
        self,
        in_features: int,
        num_expert: int,
        *,
        mlp: Mapping[str, Any] | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.mlp: nn.Module | None = None
        self.linear: nn.Module | None = None
        if num_expert > 1:
            width = in_features
            if mlp:
                layers = MLP(in_features, **mlp, device=device)
                self.mlp, width = layers, layers.output_dim()
            self.linear = nn.Linear(width, num_expert, device=device)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the weights (B, E), which sum to 1, of ``x`` (B, in_features)."""
        if self.linear is None:
            return torch.ones_like(x[:, :1])
        if self.mlp is not None:
            x = self.mlp(x)
        return torch.softmax(self.linear(x), dim=1)


def mix_experts(gates: Sequence[Tensor], experts: Sequence[Tensor]) -> list[Tensor]:
    """Returns ``sum_e gate_e expert_e`` (B, D) for each gate.

    Args:
        gates: (B, E) each.
        experts: E outputs (B, D).
    """
    if len(experts) == 1:
        return [experts[0] * gate for gate in gates]
    # One product of (gates, E) and (E, D) per row: much faster than a weighted sum per gate.
    mixed = torch.bmm(torch.stack(list(gates), dim=1), torch.stack(list(experts), dim=1))
    return [mixed[:, index] for index in range(len(gates))]
