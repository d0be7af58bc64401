"""Self-attention between features, the layer of AutoInt (arXiv 1810.11921)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tzrec.errors import ConfigError


class InteractingLayer(nn.Module):
    """Every feature looks at all features, with several heads.

    ::

        a_mk^h = softmax_k((Q_h e_m) . (K_h e_k))
        e'_m   = ReLU([sum_k a_mk^1 V_1 e_k, ..., sum_k a_mk^H V_H e_k] + R e_m)

    As in the paper the scores are not scaled. Without ``use_residual`` there is no R.

    Args:
        input_dim: D, size of a feature.
        num_heads: H.
        attention_dim: A, size of one head.
        use_residual: whether a feature keeps a projection of itself.
        device: where the parameters live.

    Raises:
        ConfigError: no head, or heads of no size.
    """

    def __init__(
        self,
        input_dim: int,
        *,
        num_heads: int = 2,
        attention_dim: int = 16,
        use_residual: bool = True,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if num_heads < 1 or attention_dim < 1:
            raise ConfigError(
                f"num_heads is {num_heads} and attention_dim {attention_dim}; "
                "both must be at least 1"
            )
        self._output_dim = num_heads * attention_dim
        self._use_residual = use_residual
        # Q, K, V and R of all heads in one product.
        self._parts = (4 if use_residual else 3, num_heads, attention_dim)
        width = self._parts[0] * self._output_dim
        self.projection = nn.Linear(input_dim, width, bias=False, device=device)

    def output_dim(self) -> int:
        """Returns H A, the size of a feature afterwards."""
        return self._output_dim

    def forward(self, features: Tensor) -> Tensor:
        """Returns (B, F, H A) of ``features`` (B, F, D)."""
        # (4, B, H, F, A)
        parts = self.projection(features).unflatten(2, self._parts).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(torch.matmul(parts[0], parts[1].transpose(2, 3)), dim=3)
        attended = torch.matmul(weights.to(parts.dtype), parts[2])
        if self._use_residual:
            attended = attended + parts[3]
        return torch.relu(attended.transpose(1, 2).flatten(2))
