"""Cross layers of the Deep & Cross Networks, versions 1 and 2."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tzrec.errors import ConfigError
from tzrec.modules.linear import Linear


class Cross(nn.Module):
    """Cross network with a vector per layer (Wang et al., ADKDD 2017, arXiv 1708.05123).

    ::

        x_{l+1} = (w_l . x_l) x_0 + b_l + x_l

    Every x_l is a multiple of x_0 plus a vector that is the same for all rows, so the layers
    only carry that multiple on::

        x_l = a_l x_0 + s_l        s_l = b_0 + ... + b_{l-1}
        a_0 = 1                    a_{l+1} = a_l (1 + w_l . x_0) + w_l . s_l

    Args:
        input_dim: D.
        cross_num: number of layers L.
        device: where the parameters live.

    Raises:
        ConfigError: there is no layer.

    Attributes:
        weight: (L, D), the w; each starts Xavier-uniform.
        bias: (L, D), the b; start at 0.
    """

    def __init__(
        self, input_dim: int, cross_num: int = 3, *, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        _check_layers(cross_num)
        self._output_dim = input_dim
        self._cross_num = cross_num
        self.weight = nn.Parameter(torch.empty(cross_num, input_dim, device=device))
        self.bias = nn.Parameter(torch.zeros(cross_num, input_dim, device=device))
        for row in self.weight.detach():
            nn.init.xavier_uniform_(row.unsqueeze(0))

    def output_dim(self) -> int:
        """Returns D."""
        return self._output_dim

    def forward(self, x: Tensor) -> Tensor:
        """Returns x_L (B, D) of ``x`` (B, D)."""
        # The multiple takes up all digits that x has, whatever the precision of products.
        dots = F.linear(x, self.weight).to(x.dtype).split(1, dim=1)
        sums = self.bias.cumsum(dim=0)
        constants = (self.weight * (sums - self.bias)).sum(dim=1)
        multiple = 1 + dots[0]
        for layer in range(1, self._cross_num):
            multiple = multiple * (1 + dots[layer]) + constants[layer]
        return multiple * x + sums[-1]


class CrossV2(nn.Module):
    """Cross network with a matrix per layer (Wang et al., WWW 2021, arXiv 2008.13535).

    ::

        x_{l+1} = x_0 * (V_l U_l x_l + b_l) + x_l        U_l (R, D), V_l (D, R)

    Args:
        input_dim: D.
        cross_num: number of layers.
        low_rank: R; 0 for one whole matrix (D, D) per layer instead of V U, the paper's
            DCN-V2 without its low-rank form.
        device: where the parameters live.

    Raises:
        ConfigError: there is no layer.
    """

    def __init__(
        self,
        input_dim: int,
        cross_num: int = 3,
        *,
        low_rank: int = 32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        _check_layers(cross_num)
        self._output_dim = input_dim
        self.layers: Any = nn.ModuleList()
        for _ in range(cross_num):
            linear = Linear(low_rank or input_dim, input_dim, device=device)
            if low_rank:
                down = Linear(input_dim, low_rank, bias=False, device=device)
                self.layers.append(nn.Sequential(down, linear))
            else:
                self.layers.append(linear)

    def output_dim(self) -> int:
        """Returns D."""
        return self._output_dim

    def forward(self, x: Tensor) -> Tensor:
        """Returns the output (B, D) of the last layer of ``x`` (B, D)."""
        crossed = x
        for layer in self.layers:
            crossed = torch.addcmul(crossed, x, layer(crossed).to(x.dtype))
        return crossed


def _check_layers(cross_num: int) -> None:
    if cross_num < 1:
        raise ConfigError(f"cross_num is {cross_num}, it must be at least 1")
