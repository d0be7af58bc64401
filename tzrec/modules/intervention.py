"""Low-rank intervention of one representation on another."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tzrec.errors import ConfigError
from tzrec.modules.utils import BaseModule


class OrthonormalBasis(BaseModule):
    """A learnt subspace: R of r orthonormal columns in D dimensions.

    R is the Q of the QR decomposition of a free matrix (D, r), with the signs that make the
    diagonal of its R positive: the Gram-Schmidt basis, which is unique, hence smooth.

    Args:
        dim: D.
        rank: r, below D.
        device: where the parameter lives.

    Raises:
        ConfigError: the rank is not from 1 to D - 1.
    """

    def __init__(self, dim: int, rank: int, *, device: torch.device | str | None = None) -> None:
        super().__init__()
        if not 0 < rank < dim:
            raise ConfigError(
                f"low_rank_dim is {rank}, it must be at least 1 and below {dim}, the size of "
                "what it describes"
            )
        self.weight = nn.Parameter(torch.empty(dim, rank, device=device))
        nn.init.orthogonal_(self.weight)

    def forward(self) -> Tensor:
        """Returns R (D, r)."""
        # Not by its name, which would be traced: what is served holds R as a constant.
        weight = next(self.parameters()).detach() if self.is_inference else self.weight
        decomposed = torch.linalg.qr(weight)
        return decomposed[0] * torch.sign(decomposed[1].diagonal())


class Intervention(nn.Module):
    """Moves a representation, inside a learnt subspace, by another one.

    ::

        out = dropout(base + (base R_b - stop_gradient(source) R_s) R_b^T)

    R_b and R_s are orthonormal bases of rank r. Editing a representation in a low-rank
    orthonormal subspace is distributed interchange intervention (Geiger et al., arXiv 2303.02536;
    LoReFT, arXiv 2404.03592). The source does not learn from it.

    Args:
        base_dim: size of the representation that is moved.
        source_dim: size of the other.
        low_rank_dim: r, below both.
        dropout_ratio: of the output.
        device: where the parameters live.

    Raises:
        ConfigError: the rank does not fit, or the ratio is outside [0, 1).
    """

    def __init__(
        self,
        base_dim: int,
        source_dim: int,
        low_rank_dim: int,
        *,
        dropout_ratio: float = 0.0,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if not 0.0 <= dropout_ratio < 1.0:
            raise ConfigError(f"dropout_ratio is {dropout_ratio}, it must be in [0, 1)")
        self._output_dim = base_dim
        self.base_basis = OrthonormalBasis(base_dim, low_rank_dim, device=device)
        self.source_basis = OrthonormalBasis(source_dim, low_rank_dim, device=device)
        self.dropout = nn.Dropout(dropout_ratio)

    def output_dim(self) -> int:
        """Returns the size of the output, that of the base."""
        return self._output_dim

    def forward(self, base: Tensor, source: Tensor) -> Tensor:
        """Returns (B, base_dim) of ``base`` (B, base_dim) and ``source`` (B, source_dim)."""
        basis = self.base_basis()
        difference = base @ basis - source.detach() @ self.source_basis()
        return self.dropout(base + difference @ basis.t())
