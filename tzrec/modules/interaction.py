"""Products of all pairs of features (DLRM)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tzrec.errors import ConfigError
from tzrec.ops.pair_dots import pair_dots


class InteractionArch(nn.Module):
    """Dot products of all pairs of feature vectors (Naumov et al., arXiv 1906.00091).

    ::

        out = [v_i . v_j for i < j]        (0, 1), (0, 2), ..., (F - 2, F - 1)

    Args:
        num_features: F.
        device: where the positions live.

    Raises:
        ConfigError: there is no pair.
    """

    positions: Tensor

    def __init__(self, num_features: int, device: torch.device | str | None = None) -> None:
        super().__init__()
        if num_features < 2:
            raise ConfigError(f"{num_features} feature makes no pair to multiply; it takes two")
        rows, columns = torch.triu_indices(num_features, num_features, offset=1)
        positions = (rows * num_features + columns).to(device)
        self.register_buffer("positions", positions, persistent=False)

    def output_dim(self) -> int:
        """Returns the number of pairs, F (F - 1) / 2."""
        return self.positions.numel()

    def forward(self, features: Tensor) -> Tensor:
        """Returns the dots (B, F (F - 1) / 2) of ``features`` (B, F, D)."""
        if (
            self.training
            and isinstance(features, Tensor)  # no values are there while a graph is traced
            and features.is_cpu
            and features.dtype == torch.float32
            and not torch.compiler.is_compiling()
        ):
            return pair_dots(features)
        products = torch.bmm(features, features.transpose(1, 2))
        return products.flatten(1).index_select(1, self.positions)
