"""TransAct: a transformer over the candidate and the latest actions (arXiv 2306.00248)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.errors import ConfigError
from tzrec.modules import jagged
from tzrec.modules.linear import RaggedLinear
from tzrec.modules.sequence_base import SequenceEncoder

# Score of a padded step before the softmax.
_PADDING_SCORE = -1e30


class TransformerLayer(nn.Module):
    """Post-norm encoder layer (arXiv 1706.03762) on steps without padding.

    ::

        x = LayerNorm(x + dropout(Linear(MultiHead(x))))
        x = LayerNorm(x + dropout(Linear(dropout(ReLU(Linear(x))))))

    All but the attention itself runs on the steps that exist only. The attention weights pass no
    dropout: random numbers for T x T weights would cost as much as the rest of the attention.

    Args:
        dim: D, size of a step.
        num_heads: divides D.
        feedforward_dim: hidden units of the second part.
        dropout_ratio: of all dropouts.
        device: where the parameters live.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int = 2,
        feedforward_dim: int = 64,
        dropout_ratio: float = 0.0,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self._heads = (3, num_heads, dim // num_heads)
        self._scale = float(dim // num_heads) ** -0.5
        self.in_proj = RaggedLinear(dim, 3 * dim, device=device)
        self.out_proj = RaggedLinear(dim, dim, device=device)
        self.norm1 = nn.LayerNorm(dim, device=device)
        self.linear1 = RaggedLinear(dim, feedforward_dim, device=device)
        self.linear2 = RaggedLinear(feedforward_dim, dim, device=device)
        self.norm2 = nn.LayerNorm(dim, device=device)
        self.dropout = nn.Dropout(dropout_ratio)

    def forward(self, steps: Tensor, lengths: Tensor, exists: Tensor) -> Tensor:
        """Returns (N, D).

        Args:
            steps: (N, D), the steps of all rows, N = sum of lengths.
            lengths: (B,).
            exists: (B, T), which padded steps are looked at; at least one per row.
        """
        projected = jagged.pad(self.in_proj(steps), lengths, exists.size(1))
        attended = jagged.unpad(self._attend(projected, exists), lengths)
        steps = self.norm1(steps + self.dropout(self.out_proj(attended)))
        hidden = self.dropout(torch.relu(self.linear1(steps)))
        return self.norm2(steps + self.dropout(self.linear2(hidden)))

    def _attend(self, projected: Tensor, exists: Tensor) -> Tensor:
        """Returns (B, T, D) of ``projected`` (B, T, 3 D)."""
        # (3, B, H, T, D / H)
        heads = projected.unflatten(2, self._heads).permute(2, 0, 3, 1, 4)
        scores = torch.matmul(heads[0] * self._scale, heads[1].transpose(2, 3)).float()
        missing = exists.logical_not().unsqueeze(1).unsqueeze(1)
        weights = torch.softmax(scores.masked_fill_(missing, _PADDING_SCORE), dim=3)
        weights = weights.to(projected.dtype)
        return torch.matmul(weights, heads[2]).transpose(1, 2).flatten(2)


class TransActEncoder(SequenceEncoder):
    """The candidate fused into every step, transformer layers, the latest outputs and the maximum.

    ::

        x_t = [k_t, q]                                    for every step t
        z   = layer_L(... layer_1(x))
        y   = [z_1, ..., z_K, max_t z_t]

    z_1 belongs to the latest step. Shorter histories are filled with zeros, and an empty one gives
    zeros only. There is no position encoding: the order of the steps shows in the latest outputs
    only.

    Args:
        sequence_dim: Ds.
        query_dim: Dq.
        input: name of the sequence group.
        num_layers: L.
        num_latest: K.
        max_seq_length: keep the latest n steps, 0 keeps all.
        latest_first: the steps run from the latest back, as feature generation cuts histories;
            else from the oldest on.
        layer: fields ``num_heads``, ``feedforward_dim`` and ``dropout_ratio`` of
            `TransformerLayer`.
        device: where the parameters live.

    Raises:
        ConfigError: the group has no query, the heads do not divide Ds + Dq, or there is no
            layer.
    """

    def __init__(
        self,
        sequence_dim: int,
        query_dim: int,
        *,
        input: str,  # noqa: A002
        num_layers: int = 2,
        num_latest: int = 10,
        max_seq_length: int = 0,
        latest_first: bool = True,
        layer: Mapping[str, Any] | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        dim = sequence_dim + query_dim
        super().__init__(input, dim * (num_latest + 1), max_seq_length=max_seq_length)
        layer = dict(layer or {})
        num_heads = int(layer.get("num_heads", 2))
        if query_dim <= 0:
            raise ConfigError(
                f"transact_towers needs a query, but group {input!r} has only sequence features",
                hint="add the candidate's feature (no sequence) to the group",
            )
        if num_heads < 1 or dim % num_heads:
            raise ConfigError(
                f"transact_towers of group {input!r}: num_heads is {num_heads}, it must divide "
                f"the size of sequence and query together, {sequence_dim} + {query_dim} = {dim}"
            )
        if num_layers < 1:
            raise ConfigError(f"transact_towers of group {input!r}: num_layers is {num_layers} < 1")
        self._num_latest = num_latest
        self._latest_first = latest_first
        self.layers: Any = nn.ModuleList(
            TransformerLayer(dim, **layer, device=device) for _ in range(num_layers)
        )

    def forward(self, grouped: Mapping[str, Tensor]) -> Tensor:
        """Returns (B, (Ds + Dq) (K + 1))."""
        sequence, lengths = self._latest(grouped)
        query = grouped[f"{self._input}.query"].repeat_interleave(lengths, dim=0)
        steps = torch.cat([jagged.unpad(sequence, lengths), query], dim=1)
        # An empty row looks at its first padded step: without one its softmax would be over
        # nothing.
        exists = jagged.mask(sequence, lengths.clamp(min=1))
        for layer in self.layers:
            steps = layer(steps, lengths, exists)
        padded = jagged.pad(steps, lengths, exists.size(1))
        missing = exists.logical_not().unsqueeze(2)
        largest = padded.masked_fill(missing, _PADDING_SCORE).amax(dim=1)
        if not self._num_latest:
            return largest
        latest = jagged.pad(steps, lengths, self._num_latest)
        return torch.cat([latest.flatten(1), largest], dim=1)

    def _latest(self, grouped: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Returns the latest steps (B, T, Ds), from the latest back, and their lengths (B,)."""
        if self._latest_first:
            return self._sequence(grouped)
        key, lengths = f"{self._input}.sequence", grouped[f"{self._input}.sequence_length"]
        sequence = jagged.reverse(grouped[key], lengths)
        return self._sequence({key: sequence, f"{key}_length": lengths})
