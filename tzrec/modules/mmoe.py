"""Multi-gate mixture of experts (Ma et al., KDD 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.errors import ConfigError
from tzrec.modules.expert_gate import ExpertGate, mix_experts
from tzrec.modules.mlp import MLP


class MMoE(nn.Module):
    """Experts that all tasks share, and a gate per task that weighs them.

    ::

        output_t = sum_e softmax(Linear_t(MLP_t(x)))_e MLP_e(x)          for each task t

    Args:
        in_features: size of the input.
        expert_mlp: fields of the ``MLP`` message of an expert.
        num_expert: E.
        num_task: number of gates.
        gate_mlp: fields of the ``MLP`` message before a gate's last layer, None for none.
        device: where the parameters live.

    Raises:
        ConfigError: there are no experts or no tasks.
    """

    def __init__(
        self,
        in_features: int,
        expert_mlp: Mapping[str, Any],
        num_expert: int,
        num_task: int,
        *,
        gate_mlp: Mapping[str, Any] | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if num_expert < 1 or num_task < 1:
            raise ConfigError(
                f"a mixture of experts needs experts and tasks, got num_expert {num_expert} "
                f"and {num_task} tasks"
            )
        self.experts: Any = nn.ModuleList(
            MLP(in_features, **expert_mlp, device=device) for _ in range(num_expert)
        )
        self.gates: Any = nn.ModuleList(
            ExpertGate(in_features, num_expert, mlp=gate_mlp, device=device)
            for _ in range(num_task)
        )

    def output_dim(self) -> int:
        """Returns D, the size of an expert's last layer."""
        dim: int = self.experts[0].output_dim()
        return dim

    def forward(self, x: Tensor) -> list[Tensor]:
        """Returns (B, D) for each task, from ``x`` (B, in_features)."""
        experts = [expert(x) for expert in self.experts]
        return mix_experts([gate(x) for gate in self.gates], experts)
