"""Experts on shared and on task-specific embeddings (STEM-Net, Su et al., AAAI 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.errors import ConfigError
from tzrec.modules.expert_gate import ExpertGate, mix_experts
from tzrec.modules.mlp import MLP
from tzrec.modules.utils import BaseModule


class StemExperts(BaseModule):
    """All experts forward, but only a task's own and the shared ones learn from it.

    ::

        S = [experts of x_shared, experts of x_1, ..., experts of x_T]
        h_t = sum_e softmax(Gate_t([x_t, x_shared]))_e s_te

    s_te is expert e for the shared experts and those of task t, and stop_gradient of it for those
    of the other tasks (arXiv 2308.13537, "all forward, task-specific backward"): each table of
    embeddings then learns what its own task wants.

    Args:
        shared_dim: size of x_shared.
        task_dims: sizes of x_1 … x_T.
        expert_mlp: fields of the ``MLP`` message of an expert.
        num_shared_expert: number of experts of x_shared.
        num_task_expert: number of experts of each x_t.
        gate_mlp: fields of the ``MLP`` message before a gate's last layer, None for none.
        device: where the parameters live.

    Raises:
        ConfigError: there is no task, no shared expert or none of a task.
    """

    _learns: Tensor

    def __init__(
        self,
        shared_dim: int,
        task_dims: Sequence[int],
        expert_mlp: Mapping[str, Any],
        *,
        num_shared_expert: int = 1,
        num_task_expert: int = 1,
        gate_mlp: Mapping[str, Any] | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        num_task = len(task_dims)
        if min(num_task, num_shared_expert, num_task_expert) < 1:
            raise ConfigError(
                f"STEM needs tasks, shared experts and experts per task, got {num_task} tasks, "
                f"num_shared_expert {num_shared_expert}, num_task_expert {num_task_expert}"
            )

        def experts(dim: int, count: int) -> nn.ModuleList:
            return nn.ModuleList(MLP(dim, **expert_mlp, device=device) for _ in range(count))

        self.shared_experts: Any = experts(shared_dim, num_shared_expert)
        self.task_experts: Any = nn.ModuleList(experts(dim, num_task_expert) for dim in task_dims)
        num_expert = num_shared_expert + num_task * num_task_expert
        self.gates: Any = nn.ModuleList(
            ExpertGate(dim + shared_dim, num_expert, mlp=gate_mlp, device=device)
            for dim in task_dims
        )
        # (T, E): 1 where expert e learns from task t.
        owners = torch.arange(num_task, device=device).repeat_interleave(num_task_expert)
        own = (torch.arange(num_task, device=device)[:, None] == owners).float()
        shared = torch.ones(num_task, num_shared_expert, device=device)
        self.register_buffer("_learns", torch.cat([shared, own], dim=1), persistent=False)

    def output_dim(self) -> int:
        """Returns D, the size of an expert's last layer."""
        dim: int = self.shared_experts[0].output_dim()
        return dim

    def forward(self, shared: Tensor, tasks: Sequence[Tensor]) -> list[Tensor]:
        """Returns (B, D) for each task.

        Args:
            shared: x_shared, (B, shared_dim).
            tasks: x_t for each task, (B, task_dims[t]).
        """
        outputs = [expert(shared) for expert in self.shared_experts]
        for x, experts in zip(tasks, self.task_experts, strict=True):
            outputs += [expert(x) for expert in experts]
        gates = [
            gate(torch.cat([x, shared], dim=1)) for gate, x in zip(self.gates, tasks, strict=True)
        ]
        if self.is_inference:
            return mix_experts(gates, outputs)
        return self._mix(torch.stack(gates, dim=1), torch.stack(outputs, dim=1))

    def _mix(self, gates: Tensor, experts: Tensor) -> list[Tensor]:
        """Mixes ``experts`` (B, E, D) by ``gates`` (B, T, E); the values are `mix_experts`'."""
        learning = gates * self._learns
        mixed = torch.bmm(learning, experts) + torch.bmm(gates - learning, experts.detach())
        return [mixed[:, task] for task in range(len(self.gates))]
