"""Compressed Interaction Network of xDeepFM."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.errors import ConfigError
from tzrec.ops.outer_linear import outer_linear

# One node of a traced graph: TorchScript compiles its loop.
torch.fx.wrap("outer_linear")


class CIN(nn.Module):
    """Explicit interactions of bounded degree, per column of the vectors.

    Lian et al., "xDeepFM", KDD 2018, arXiv 1803.05170. With X^0 (F, D) the features of a row and
    H_0 = F::

        X^k_h = sum_ij W^k_hij (X^{k-1}_i * X^0_j) + b^k_h        (H_k, D), no activation
        out = [sum_d X^1, sum_d X^2, ...]                         (H_1 + H_2 + ...)

    Args:
        feature_num: F.
        cin_layer_size: H_1, H_2, ...
        device: where the parameters live.

    Raises:
        ConfigError: there is no layer.
    """

    def __init__(
        self,
        feature_num: int,
        cin_layer_size: Sequence[int],
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if not cin_layer_size or min(cin_layer_size) < 1:
            raise ConfigError(
                f"cin.cin_layer_size is {list(cin_layer_size)}; it needs at least one positive size"
            )
        self._output_dim = sum(cin_layer_size)
        sizes = [feature_num, *cin_layer_size]
        self.layers: Any = nn.ModuleList(
            nn.Linear(before * feature_num, after, device=device)
            for before, after in itertools.pairwise(sizes)
        )

    def output_dim(self) -> int:
        """Returns the number of outputs, H_1 + H_2 + ..."""
        return self._output_dim

    def forward(self, features: Tensor) -> Tensor:
        """Returns (B, H_1 + H_2 + ...) of ``features`` (B, F, D)."""
        num_rows, num_columns = features.size(0), features.size(2)
        # One row per column of the vectors: the feature maps are where a matrix product has them.
        columns = features.transpose(1, 2).flatten(0, 1)
        maps = columns
        sums = []
        for layer in self.layers:
            maps = outer_linear(maps, columns, layer.weight, layer.bias)
            sums.append(maps.view(num_rows, num_columns, layer.out_features).sum(dim=1))
        return torch.cat(sums, dim=1)
