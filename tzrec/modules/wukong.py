"""Layer of WuKong: a factorization machine block beside a linear compression."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.modules.mlp import MLP


class WuKongLayer(nn.Module):
    """Stacked factorization machines (Zhang et al., ICML 2024, arXiv 2403.02545).

    With X (n, D) the features of a row::

        LCB = W_L X                                                   (lcb, D)
        FMB = reshape(Linear(MLP(LN(flatten(X (W_F X)^T)))))          (fmb, D)
        out = LN([FMB, LCB] + residual)                               (fmb + lcb, D)

    ``X X^T`` has the dots of all pairs of features; ``W_F`` (k, n) compresses it to (n, k) without
    making it. The residual is X, or W_R X where the number of features changes. The last norm
    runs over D.

    Args:
        num_features: n.
        dim: D.
        lcb_feature_num: rows of the linear compression block.
        fmb_feature_num: rows of the factorization machine block.
        compressed_feature_num: k.
        feature_num_mlp: fields of the ``MLP`` message.
        device: where the parameters live.
    """

    def __init__(
        self,
        num_features: int,
        dim: int,
        *,
        lcb_feature_num: int,
        fmb_feature_num: int,
        feature_num_mlp: Mapping[str, Any],
        compressed_feature_num: int = 16,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self._fmb_shape = (fmb_feature_num, dim)
        self._num_outputs = fmb_feature_num + lcb_feature_num
        self.lcb_weight = _matrix(lcb_feature_num, num_features, device)
        self.fmb_weight = _matrix(compressed_feature_num, num_features, device)
        self.residual_weight = None
        if self._num_outputs != num_features:
            self.residual_weight = _matrix(self._num_outputs, num_features, device)
        width = num_features * compressed_feature_num
        self.fmb_norm = nn.LayerNorm(width, device=device)
        self.fmb_mlp = MLP(width, **feature_num_mlp, device=device)
        self.fmb_linear = nn.Linear(self.fmb_mlp.output_dim(), fmb_feature_num * dim, device=device)
        self.norm = nn.LayerNorm(dim, device=device)

    def output_feature_num(self) -> int:
        """Returns fmb + lcb."""
        return self._num_outputs

    def forward(self, features: Tensor) -> Tensor:
        """Returns (B, fmb + lcb, D) of ``features`` (B, n, D)."""
        linear = torch.matmul(self.lcb_weight, features)
        compressed = torch.matmul(self.fmb_weight, features)
        dots = torch.bmm(features, compressed.transpose(1, 2).to(features.dtype)).flatten(1)
        machine = self.fmb_linear(self.fmb_mlp(self.fmb_norm(dots)))
        residual = features
        if self.residual_weight is not None:
            residual = torch.matmul(self.residual_weight, features)
        blocks = torch.cat([machine.unflatten(1, self._fmb_shape), linear], dim=1)
        return self.norm(blocks + residual)


def _matrix(rows: int, columns: int, device: torch.device | str | None) -> nn.Parameter:
    """Returns a parameter (rows, columns), Kaiming-uniform for ``columns`` inputs."""
    weight = torch.empty(rows, columns, device=device)
    nn.init.kaiming_uniform_(weight)
    return nn.Parameter(weight)
