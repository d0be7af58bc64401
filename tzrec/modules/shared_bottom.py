"""What tasks share before their towers: mask net, MLP, mixture of experts, each if asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.modules.masknet import MaskNetModule
from tzrec.modules.mlp import MLP
from tzrec.modules.mmoe import MMoE


class SharedBottom(nn.Module):
    """The layers of DBMTL and DC2VR below the tasks.

    ::

        h = bottom_mlp(mask_net(x)),  h_t = MMoE_t(h)      what is not configured is left out

    Args:
        in_features: size of x.
        num_task: T.
        mask_net: fields of the ``MaskNetModule`` message, None for none.
        bottom_mlp: fields of the ``MLP`` message, None for none.
        expert_mlp: the same of an expert; None for no mixture.
        gate_mlp: the same of a gate before its last layer, None for none.
        num_expert: number of experts.
        device: where the parameters live.
    """

    def __init__(
        self,
        in_features: int,
        num_task: int,
        *,
        mask_net: Mapping[str, Any] | None = None,
        bottom_mlp: Mapping[str, Any] | None = None,
        expert_mlp: Mapping[str, Any] | None = None,
        gate_mlp: Mapping[str, Any] | None = None,
        num_expert: int = 3,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self._num_task = num_task
        self._output_dim = in_features
        self.mask_net = self.bottom_mlp = self.mmoe = None
        if mask_net:
            self.mask_net = MaskNetModule(in_features, **mask_net, device=device)
            self._output_dim = self.mask_net.output_dim()
        if bottom_mlp:
            self.bottom_mlp = MLP(self._output_dim, **bottom_mlp, device=device)
            self._output_dim = self.bottom_mlp.output_dim()
        if expert_mlp:
            self.mmoe = MMoE(
                self._output_dim, expert_mlp, num_expert, num_task, gate_mlp=gate_mlp, device=device
            )
            self._output_dim = self.mmoe.output_dim()

    def output_dim(self) -> int:
        """Returns D, the size of the output for each task."""
        return self._output_dim

    def forward(self, x: Tensor) -> list[Tensor]:
        """Returns (B, D) for each task, from ``x`` (B, in_features)."""
        if self.mask_net is not None:
            x = self.mask_net(x)
        if self.bottom_mlp is not None:
            x = self.bottom_mlp(x)
        if self.mmoe is not None:
            return self.mmoe(x)
        return [x] * self._num_task
