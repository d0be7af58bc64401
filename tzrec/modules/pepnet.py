"""Embeddings and layers with personal gates (PEPNet, Chang et al., KDD 2023, arXiv 2302.01115)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.errors import ConfigError
from tzrec.modules.gate import Gate
from tzrec.modules.mlp import Perceptron


class EPNet(nn.Module):
    """Scales the columns of the shared embedding by what is known about the row's domain.

    ::

        e' = Gate([domain, stop_gradient(e)]) * e

    Args:
        in_features: D, size of e.
        domain_features: size of the domain's embedding.
        hidden_unit: hidden size of the gate, D if None.
        gamma: largest factor of the gate.
        device: where the parameters live.
    """

    def __init__(
        self,
        in_features: int,
        domain_features: int,
        *,
        hidden_unit: int | None = None,
        gamma: float = 2.0,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.gate = Gate(
            domain_features + in_features,
            in_features,
            hidden_features=hidden_unit,
            gamma=gamma,
            device=device,
        )

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        """Returns e' (B, D) of ``x`` (B, D) and ``domain`` (B, domain_features)."""
        return self.gate(torch.cat([domain, x.detach()], dim=1)) * x


class PPNet(nn.Module):
    """Layers per task whose units are scaled by what is known about the row's user and item.

    ::

        h_0 = e',  h_l = dropout(activation(Linear(h_{l-1})) * Gate_l([uia, stop_gradient(e')]))

    Each task has layers and gates of its own; a gate's hidden layer is as wide as its layer.

    Args:
        in_features: D, size of e'.
        uia_features: size of the embedding of user, item and author; 0 for layers without gates.
        num_task: T.
        hidden_units: sizes of the layers.
        activation: as that of an MLP.
        dropout_ratio: empty for none, one for all layers, or one per layer.
        gamma: largest factor of the gates.
        device: where the parameters live.

    Raises:
        ConfigError: no layers, or as many dropout ratios as neither one nor their number.
    """

    def __init__(
        self,
        in_features: int,
        uia_features: int,
        num_task: int,
        *,
        hidden_units: Sequence[int],
        activation: str = "nn.ReLU",
        dropout_ratio: Sequence[float] = (),
        gamma: float = 2.0,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        num_layers = len(hidden_units)
        if not num_layers:
            raise ConfigError("ppnet_hidden_units is empty; PPNet needs at least one layer")
        if len(dropout_ratio) not in (0, 1, num_layers):
            raise ConfigError(
                f"ppnet_dropout_ratio has {len(dropout_ratio)} values for {num_layers} "
                "ppnet_hidden_units; give none, one, or one per layer"
            )
        ratios = list(dropout_ratio) or [0.0]
        self._output_dim = hidden_units[-1]
        self._ratios = ratios * num_layers if len(ratios) == 1 else ratios
        sizes = [in_features, *hidden_units]
        self.layers: Any = nn.ModuleList(
            nn.ModuleList(
                Perceptron(sizes[i], sizes[i + 1], activation=activation, device=device)
                for i in range(num_layers)
            )
            for _ in range(num_task)
        )
        self.gates: Any = nn.ModuleList(
            nn.ModuleList(
                Gate(uia_features + in_features, width, gamma=gamma, device=device)
                for width in hidden_units
            )
            for _ in range(num_task if uia_features else 0)
        )
        self.dropouts: Any = nn.ModuleList(nn.Dropout(ratio) for ratio in self._ratios)

    def output_dim(self) -> int:
        """Returns H, the size of the last layer."""
        return self._output_dim

    def forward(self, x: Tensor, uia: Tensor | None = None) -> list[Tensor]:
        """Returns (B, H) for each task.

        Args:
            x: e', (B, D).
            uia: (B, uia_features), None if there are no gates.
        """
        known = None if uia is None else torch.cat([uia, x.detach()], dim=1)
        outputs = []
        for task, layers in enumerate(self.layers):
            h = x
            for i, layer in enumerate(layers):
                h = layer(h)
                if known is not None:
                    h = h * self.gates[task][i](known)
                h = self.dropouts[i](h)
            outputs.append(h)
        return outputs
