"""Customized gate control, the layer of PLE (Tang et al., RecSys 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tzrec.errors import ConfigError
from tzrec.modules.expert_gate import ExpertGate, mix_experts
from tzrec.modules.mlp import MLP


class ExtractionNet(nn.Module):
    """Experts of each task beside experts that all tasks share.

    ::

        own_t    = MLP_t1(x_t) ... MLP_tn(x_t)             n = expert_num_per_task
        shared   = MLP_1(s) ... MLP_m(s)                   m = share_num
        output_t = gate_t(x_t) . [own_t, shared]           gate(x) = softmax(Linear(x))
        output_s = gate(s) . [own_1, ..., own_T, shared]   the shared input of the next layer

    Args:
        in_features: size of the input of each task, T of them.
        in_shared: size of the shared input.
        expert_num_per_task: n.
        task_expert_net: fields of the ``MLP`` message of a task's expert.
        share_num: m, which may be 0.
        share_expert_net: fields of the ``MLP`` message of a shared expert.
        has_shared_output: False where no later layer reads the shared output.
        device: where the parameters live.

    Raises:
        ConfigError: there are no experts, or those that a gate mixes differ in width.
    """

    def __init__(
        self,
        in_features: Sequence[int],
        in_shared: int,
        *,
        expert_num_per_task: int,
        task_expert_net: Mapping[str, Any],
        share_num: int = 0,
        share_expert_net: Mapping[str, Any] | None = None,
        has_shared_output: bool = True,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        _check(expert_num_per_task, task_expert_net, share_num, share_expert_net)
        num_task = len(in_features)
        self._num_own, self._num_task = expert_num_per_task, num_task
        self.task_experts: Any = nn.ModuleList(
            nn.ModuleList(
                MLP(dim, **task_expert_net, device=device) for _ in range(expert_num_per_task)
            )
            for dim in in_features
        )
        self.share_experts: Any = nn.ModuleList(
            MLP(in_shared, **(share_expert_net or {}), device=device) for _ in range(share_num)
        )
        self.task_gates: Any = nn.ModuleList(
            ExpertGate(dim, expert_num_per_task + share_num, device=device) for dim in in_features
        )
        self.share_gate: ExpertGate | None = None
        if has_shared_output:
            num_all = num_task * expert_num_per_task + share_num
            self.share_gate = ExpertGate(in_shared, num_all, device=device)

    def output_dim(self) -> int:
        """Returns D, the size of an expert's last layer."""
        dim: int = self.task_experts[0][0].output_dim()
        return dim

    def forward(
        self, task_inputs: Sequence[Tensor], shared_input: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Runs the layer.

        Args:
            task_inputs: (B, in_features) per task.
            shared_input: (B, in_shared).

        Returns:
            Output (B, D) per task, and the shared output (B, D); without one the shared input.
        """
        experts = [
            expert(x)
            for own, x in zip(self.task_experts, task_inputs, strict=True)
            for expert in own
        ]
        experts += [expert(shared_input) for expert in self.share_experts]
        gates = [
            self._spread(gate(x), task)
            for task, (gate, x) in enumerate(zip(self.task_gates, task_inputs, strict=True))
        ]
        if self.share_gate is not None:
            gates.append(self.share_gate(shared_input))
        mixed = mix_experts(gates, experts)
        shared = mixed[-1] if self.share_gate is not None else shared_input
        return mixed[: self._num_task], shared

    def _spread(self, gate: Tensor, task: int) -> Tensor:
        """Returns the gate (B, n + m) of a task over all experts, 0 for those of other tasks."""
        n = self._num_own
        own = F.pad(gate[:, :n], (task * n, (self._num_task - 1 - task) * n))
        return torch.cat([own, gate[:, n:]], dim=1)


def _check(
    num_own: int, own: Mapping[str, Any], num_shared: int, shared: Mapping[str, Any] | None
) -> None:
    if num_own < 1:
        raise ConfigError(f"expert_num_per_task is {num_own}; each task needs at least one expert")
    if not num_shared:
        return
    if shared is None:
        raise ConfigError(f"share_num is {num_shared}, but there is no share_expert_net")
    widths = [net["hidden_units"][-1] for net in (own, shared) if net["hidden_units"]]
    if len(set(widths)) > 1:
        raise ConfigError(
            f"experts of tasks are {widths[0]} wide and shared ones {widths[1]}, but a gate adds "
            "them up",
            hint="end hidden_units of task_expert_net and share_expert_net with one number",
        )
