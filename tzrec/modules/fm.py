"""Factorization machine, second-order part (Rendle, ICDM 2010, equation 5)."""

from __future__ import annotations

from torch import Tensor, nn


class FactorizationMachine(nn.Module):
    """Sum of the products of all pairs of feature vectors: ``((sum v)^2 - sum v^2) / 2``."""

    def forward(self, features: Tensor) -> Tensor:
        """Returns the FM vector (B, D) of ``features`` (B, F, D); its sum over D is the FM term."""
        sum_of_features = features.sum(dim=1)
        sum_of_squares = features.square().sum(dim=1)
        return 0.5 * (sum_of_features.square() - sum_of_squares)
