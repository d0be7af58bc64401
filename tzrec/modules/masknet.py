"""MaskNet: hidden layers whose inputs are gated by all features (arXiv 2102.07619)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.errors import ConfigError
from tzrec.modules.mlp import MLP


class MaskBlock(nn.Module):
    """A hidden layer on an input that is multiplied by a mask made of the features.

    ::

        mask = Linear(ReLU(Linear(features)))          D -> aggregation -> input_dim
        y = ReLU(LayerNorm(Linear(input * mask)))      input_dim -> hidden_dim

    Args:
        input_dim: size of the input.
        feature_dim: D, size of the features.
        hidden_dim: size of the output.
        reduction_ratio: the mask's hidden layer has ``int(D * reduction_ratio)`` units; 0 for
            ``aggregation_dim``.
        aggregation_dim: its number of units where ``reduction_ratio`` is 0.
        device: where the parameters live.

    Raises:
        ConfigError: the mask has no hidden unit, or the block no output.
    """

    def __init__(
        self,
        input_dim: int,
        feature_dim: int,
        *,
        hidden_dim: int,
        reduction_ratio: float = 1.0,
        aggregation_dim: int = 0,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        width = int(feature_dim * reduction_ratio) if reduction_ratio else aggregation_dim
        if width < 1:
            raise ConfigError(
                f"mask_block: reduction_ratio {reduction_ratio:g} of {feature_dim} columns and "
                f"aggregation_dim {aggregation_dim} give a mask without hidden units",
                hint="set reduction_ratio: 1, or reduction_ratio: 0 and aggregation_dim",
            )
        if hidden_dim < 1:
            raise ConfigError(f"mask_block.hidden_dim is {hidden_dim}, it must be at least 1")
        self._hidden_dim = hidden_dim
        self.mask_generator = nn.Sequential(
            nn.Linear(feature_dim, width, device=device),
            nn.ReLU(),
            nn.Linear(width, input_dim, device=device),
        )
        self.hidden_layer = nn.Sequential(
            nn.Linear(input_dim, hidden_dim, device=device),
            nn.LayerNorm(hidden_dim, device=device),
            nn.ReLU(),
        )

    def output_dim(self) -> int:
        """Returns the size of the output."""
        return self._hidden_dim

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """Returns (B, hidden_dim) of ``x`` (B, input_dim) and ``features`` (B, D)."""
        return self.hidden_layer(x * self.mask_generator(features))


class MaskNetModule(nn.Module):
    """Mask blocks side by side or one after the other, and an MLP on top.

    ::

        parallel:  y = top_mlp([block_1(LN(x), x), ..., block_n(LN(x), x)])
        serial:    h_0 = LN(x),  h_i = block_i(h_{i-1}, x),  y = top_mlp(h_n)

    Takes the fields of the ``MaskNetModule`` message:
    ``MaskNetModule(input_dim, **config_to_kwargs(message))``.

    Args:
        input_dim: D, size of the features.
        n_mask_blocks: number of blocks.
        mask_block: fields of the ``MaskBlock`` message, the same for all blocks.
        top_mlp: fields of the ``MLP`` message, None for none.
        use_parallel: the blocks stand side by side.
        device: where the parameters live.

    Raises:
        ConfigError: there is no block, or what `MaskBlock` and `MLP` refuse.
    """

    def __init__(
        self,
        input_dim: int,
        *,
        n_mask_blocks: int,
        mask_block: Mapping[str, Any],
        top_mlp: Mapping[str, Any] | None = None,
        use_parallel: bool = True,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if n_mask_blocks < 1:
            raise ConfigError(f"n_mask_blocks is {n_mask_blocks}, it must be at least 1")
        self._use_parallel = use_parallel
        self.ln_emb = nn.LayerNorm(input_dim, device=device)
        hidden = int(mask_block["hidden_dim"])
        self.mask_blocks: Any = nn.ModuleList(
            MaskBlock(
                input_dim if use_parallel or i == 0 else hidden,
                input_dim,
                **mask_block,
                device=device,
            )
            for i in range(n_mask_blocks)
        )
        self._output_dim = hidden * n_mask_blocks if use_parallel else hidden
        self.top_mlp = None
        if top_mlp:
            self.top_mlp = MLP(self._output_dim, **top_mlp, device=device)
            self._output_dim = self.top_mlp.output_dim()

    def output_dim(self) -> int:
        """Returns the size of the output."""
        return self._output_dim

    def forward(self, features: Tensor) -> Tensor:
        """Returns (B, output_dim) of ``features`` (B, D)."""
        x = self.ln_emb(features)
        if self._use_parallel:
            x = torch.cat([block(x, features) for block in self.mask_blocks], dim=1)
        else:
            for block in self.mask_blocks:
                x = block(x, features)
        if self.top_mlp is not None:
            x = self.top_mlp(x)
        return x
