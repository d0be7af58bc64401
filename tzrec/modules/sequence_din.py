"""Encoders that score every step against the query: DIN and multi-window DIN."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tzrec.errors import ConfigError
from tzrec.modules import jagged
from tzrec.modules.linear import RaggedLinear
from tzrec.modules.mlp import MLP
from tzrec.modules.sequence_base import SequenceEncoder, attend, pad_query, query_padding
from tzrec.ops.linear import ragged_linear


class DINEncoder(SequenceEncoder):
    """Attention of the Deep Interest Network (arXiv 1706.06978).

    ``MLP([q, k, q - k, q * k])`` → ``Linear(1)`` → softmax over the steps → weighted sum of k;
    q is padded with zeros to Ds.

    Args:
        sequence_dim: Ds.
        query_dim: Dq.
        input: name of the sequence group.
        attn_mlp: fields of the ``MLP`` message.
        max_seq_length: keep the first n steps, 0 keeps all.
        name: name of the encoder.
        device: where the parameters live.

    Raises:
        ConfigError: the group has no query, or one wider than the sequence.
    """

    def __init__(
        self,
        sequence_dim: int,
        query_dim: int,
        *,
        input: str,  # noqa: A002
        attn_mlp: Mapping[str, Any],
        max_seq_length: int = 0,
        name: str | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(input, sequence_dim, max_seq_length=max_seq_length, name=name)
        self._query_padding = query_padding(input, "din_encoder", query_dim, sequence_dim)
        self.mlp = MLP(sequence_dim * 4, **attn_mlp, ragged=True, device=device)
        self.linear = RaggedLinear(self.mlp.output_dim(), 1, device=device)
        # Row by row the padded steps need no scores, which saves their matrix products. Batch
        # statistics run over all (B, T), the 3-D mode of the reference.
        self._ragged = not self.mlp.uses_batch_statistics()

    def forward(self, grouped: Mapping[str, Tensor]) -> Tensor:
        """Returns (B, Ds)."""
        sequence, lengths = self._sequence(grouped)
        query = pad_query(grouped[f"{self._input}.query"], self._query_padding)
        steps = _Steps(sequence, lengths, repeated=self._is_repeated(grouped))
        scores = _step_scores(self, query, steps, with_difference=True)
        return attend(scores, sequence, lengths)


class MultiWindowDINEncoder(SequenceEncoder):
    """DIN scores pooled over windows of the sequence.

    ``MLP([k, q * k, q])`` → ``Linear(1)`` → PReLU, without softmax; the weighted steps of each
    window are averaged over the window's steps that exist; the windows and q are concatenated.
    q is padded with zeros to Ds.

    Args:
        sequence_dim: Ds.
        query_dim: Dq.
        input: name of the sequence group.
        attn_mlp: fields of the ``MLP`` message.
        windows_len: steps of each window, from the first step on; no sequence may be longer
            than their sum.
        name: name of the encoder.
        device: where the parameters live.

    Raises:
        ConfigError: no window, one of length 0, no query, or a query wider than the sequence.
    """

    windows: Tensor

    def __init__(
        self,
        sequence_dim: int,
        query_dim: int,
        *,
        input: str,  # noqa: A002
        attn_mlp: Mapping[str, Any],
        windows_len: Sequence[int],
        name: str | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(input, sequence_dim * (len(windows_len) + 1), name=name)
        if not windows_len or min(windows_len) < 1:
            raise ConfigError(
                f"multi_window_din_encoder of group {input!r}: windows_len is "
                f"{list(windows_len)}; it needs at least one positive length"
            )
        padding = query_padding(input, "multi_window_din_encoder", query_dim, sequence_dim)
        self._query_padding = padding
        self.mlp = MLP(sequence_dim * 3, **attn_mlp, ragged=True, device=device)
        self.linear = RaggedLinear(self.mlp.output_dim(), 1, device=device)
        self.active = nn.PReLU(device=device)
        self._ragged = not self.mlp.uses_batch_statistics()
        # (W, sum of windows): 1 where a step belongs to a window.
        window_of_step = torch.arange(len(windows_len)).repeat_interleave(torch.tensor(windows_len))
        windows = F.one_hot(window_of_step, len(windows_len)).T.float()
        self.register_buffer("windows", windows.to(device), persistent=False)

    def forward(self, grouped: Mapping[str, Tensor]) -> Tensor:
        """Returns (B, Ds (W + 1)).

        Raises:
            DataError: a sequence is longer than all windows together.
        """
        sequence, lengths = self._sequence(grouped)
        query = pad_query(grouped[f"{self._input}.query"], self._query_padding)
        windows = jagged.cut_windows(self.windows, sequence, self._input).to(sequence.dtype)
        steps = _Steps(sequence, lengths, repeated=self._is_repeated(grouped))
        scores = _step_scores(self, query, steps, with_difference=False)
        exists = jagged.mask(sequence, lengths).to(sequence.dtype)
        weighted = self.active(scores) * exists
        # (B, W, T) @ (B, T, Ds): one product for all windows.
        total = torch.bmm(weighted.unsqueeze(1) * windows, sequence)
        count = torch.matmul(exists, windows.T).clamp(min=1.0)
        return torch.cat([(total / count.unsqueeze(2)).flatten(1), query], dim=1)


@dataclasses.dataclass(frozen=True)
class _Steps:
    """What is scored.

    Attributes:
        sequence: (B, T, Ds).
        lengths: (B,).
        repeated: many rows are those of one user, so that few steps are padding.
    """

    sequence: Tensor
    lengths: Tensor
    repeated: bool


def _step_scores(
    encoder: DINEncoder | MultiWindowDINEncoder,
    query: Tensor,
    steps: _Steps,
    *,
    with_difference: bool,
) -> Tensor:
    """Returns (B, T), ``linear(mlp(.))`` of every step beside the query.

    DIN reads ``[q, k, q - k, q * k]``, the multi-window encoder ``[k, q * k, q]``. Scores of
    padded steps are not defined.
    """
    # The first linear map, split by input: what only depends on the query is computed once per
    # row instead of once per step, and q - k needs no product of its own.
    linear = encoder.mlp.first_linear()
    if with_difference:
        w_q, w_k, w_difference, w_product = linear.weight.chunk(4, dim=1)
        w_q, w_k = w_q + w_difference, w_k - w_difference
    else:
        w_k, w_product, w_q = linear.weight.chunk(3, dim=1)
    per_row = F.linear(query, w_q, linear.bias)
    sequence, lengths = steps.sequence, steps.lengths
    num_steps = sequence.size(1)
    if steps.repeated:
        # k W_k + (q * k) W_p = k (W_k + diag(q) W_p): half the products, and no row of them is
        # written that is not an input of the next layer.
        weights = torch.addcmul(w_k.T, query.unsqueeze(2), w_product.T)
        hidden = torch.baddbmm(per_row.unsqueeze(1), sequence, weights).flatten(0, 1)
    else:
        repeats: Tensor | int = num_steps
        flat = sequence.flatten(0, 1)
        if encoder._ragged:
            repeats, flat = lengths, jagged.unpad(sequence, lengths)
        q = query.repeat_interleave(repeats, dim=0)
        inputs, weight = torch.cat([flat, q * flat], dim=1), torch.cat([w_k, w_product], dim=1)
        hidden = ragged_linear(inputs, weight, None)
        hidden = hidden + per_row.repeat_interleave(repeats, dim=0)
    scores = encoder.linear(encoder.mlp.after_first_linear(hidden))
    if encoder._ragged and not steps.repeated:
        return jagged.pad(scores, lengths, num_steps).squeeze(2)
    return scores.view(sequence.size(0), num_steps)
