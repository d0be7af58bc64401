"""Sequence encoders: a padded sequence (and a query) to one vector (reference 05 section 5.5).

Every encoder reads ``{input}.query`` (B, Dq) where it needs one, ``{input}.sequence``
(B, T, Ds) and ``{input}.sequence_length`` (B,) from the outputs of the embedding group. Padding
never changes a result: a row gives the same whatever T the batch has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tzrec.errors import ConfigError, did_you_mean
from tzrec.modules import jagged
from tzrec.modules.mlp import MLP

# Score of a padded step before the softmax.
_PADDING_SCORE = float(-(2**31) + 1)


class SequenceEncoder(nn.Module):
    """Base of the encoders.

    Args:
        input: name of the sequence group.
        output_dim: size of the output.
        max_seq_length: keep the first n steps, 0 keeps all.
        name: name of the encoder in the config.

    Raises:
        ConfigError: ``max_seq_length`` is negative.
    """

    def __init__(
        self,
        input: str,  # noqa: A002 (name of the config field)
        output_dim: int,
        *,
        max_seq_length: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__()
        if max_seq_length < 0:
            raise ConfigError(f"max_seq_length of the encoder of {input!r} is {max_seq_length} < 0")
        self._input = input
        self._output_dim = output_dim
        self._max_seq_length = max_seq_length
        self._name = name or ""

    def input(self) -> str:
        """Returns the name of the sequence group that is encoded."""
        return self._input

    def output_dim(self) -> int:
        """Returns the size of the output."""
        return self._output_dim

    def _sequence(self, grouped: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Returns the sequence (B, T, Ds) and its lengths (B,), cut to ``max_seq_length``."""
        sequence = grouped[f"{self._input}.sequence"]
        lengths = grouped[f"{self._input}.sequence_length"]
        if self._max_seq_length > 0:
            sequence = sequence[:, : self._max_seq_length]
            lengths = torch.clamp(lengths, max=self._max_seq_length)
        return sequence, lengths


def _attend(scores: Tensor, sequence: Tensor, lengths: Tensor) -> Tensor:
    """Returns (B, Ds), the sum of the steps weighted by the softmax of ``scores`` (B, T).

    An empty row gives 0. The softmax is in float32: the padding score overflows half precision.
    """
    exists = jagged.mask(sequence, lengths)
    weights = torch.softmax(scores.float().masked_fill(~exists, _PADDING_SCORE), dim=1) * exists
    return torch.bmm(weights.to(sequence.dtype).unsqueeze(1), sequence).squeeze(1)


def _pad_query(query: Tensor, missing: int) -> Tensor:
    """Returns (B, Dq + missing), the query with zeros appended."""
    return F.pad(query, (0, missing)) if missing > 0 else query


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
        self._query_padding = _query_padding(input, "din_encoder", query_dim, sequence_dim)
        self.mlp = MLP(sequence_dim * 4, **attn_mlp, device=device)
        self.linear = nn.Linear(self.mlp.output_dim(), 1, device=device)
        # Row by row the padded steps need no scores, which saves their matrix products. Batch
        # statistics run over all (B, T), the 3-D mode of the reference.
        self._ragged = not self.mlp.uses_batch_statistics()

    def forward(self, grouped: Mapping[str, Tensor]) -> Tensor:
        """Returns (B, Ds)."""
        sequence, lengths = self._sequence(grouped)
        query = _pad_query(grouped[f"{self._input}.query"], self._query_padding)
        scores = _step_scores(self, query, sequence, lengths, with_difference=True)
        return _attend(scores, sequence, lengths)


def _query_padding(input_name: str, encoder: str, query_dim: int, sequence_dim: int) -> int:
    if query_dim <= 0:
        raise ConfigError(
            f"{encoder} needs a query, but group {input_name!r} has only sequence features",
            hint="add the candidate's feature (no sequence) to the group",
        )
    if query_dim > sequence_dim:
        raise ConfigError(
            f"{encoder} of group {input_name!r}: query dim {query_dim} is larger than sequence "
            f"dim {sequence_dim}",
            hint="the query features of the group must not be wider than its sequence features",
        )
    return sequence_dim - query_dim


def _step_scores(
    encoder: DINEncoder | MultiWindowDINEncoder,
    query: Tensor,
    sequence: Tensor,
    lengths: Tensor,
    *,
    with_difference: bool,
) -> Tensor:
    """Returns (B, T), ``linear(mlp(.))`` of every step beside the query.

    DIN reads ``[q, k, q - k, q * k]``, the multi-window encoder ``[k, q * k, q]``. Scores of
    padded steps are not defined.
    """
    num_steps = sequence.size(1)
    if encoder._ragged:
        steps = jagged.unpad(sequence, lengths)
        q = query.repeat_interleave(lengths, dim=0)
    else:
        steps = sequence.flatten(0, 1)
        q = query.repeat_interleave(num_steps, dim=0)
    # The first linear map, split by input: what only depends on the query is computed once per
    # row instead of once per step, and q - k needs no product of its own.
    linear = encoder.mlp.first_linear()
    if with_difference:
        w_q, w_k, w_difference, w_product = linear.weight.chunk(4, dim=1)
        w_q, w_k = w_q + w_difference, w_k - w_difference
    else:
        w_k, w_product, w_q = linear.weight.chunk(3, dim=1)
    hidden = F.linear(torch.cat([steps, q * steps], dim=1), torch.cat([w_k, w_product], dim=1))
    per_row = F.linear(query, w_q, linear.bias)
    repeats = lengths if encoder._ragged else num_steps
    hidden = hidden + per_row.repeat_interleave(repeats, dim=0)
    scores = encoder.linear(encoder.mlp.after_first_linear(hidden))
    if encoder._ragged:
        return jagged.pad(scores, lengths, num_steps).squeeze(2)
    return scores.view(sequence.size(0), num_steps)


class SimpleAttention(SequenceEncoder):
    """Dot-product attention: softmax over the steps of ``q k``, weighted sum of k.

    Args:
        sequence_dim: Ds.
        query_dim: Dq, must equal Ds.
        input: name of the sequence group.
        max_seq_length: keep the first n steps, 0 keeps all.
        name: name of the encoder.

    Raises:
        ConfigError: query and sequence differ in size.
    """

    def __init__(
        self,
        sequence_dim: int,
        query_dim: int,
        *,
        input: str,  # noqa: A002
        max_seq_length: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(input, sequence_dim, max_seq_length=max_seq_length, name=name)
        if _query_padding(input, "simple_attention", query_dim, sequence_dim):
            raise ConfigError(
                f"simple_attention of group {input!r}: query dim {query_dim} and sequence dim "
                f"{sequence_dim} must be equal"
            )

    def forward(self, grouped: Mapping[str, Tensor]) -> Tensor:
        """Returns (B, Ds)."""
        sequence, lengths = self._sequence(grouped)
        query = grouped[f"{self._input}.query"]
        scores = torch.bmm(sequence, query.unsqueeze(2)).squeeze(2)
        return _attend(scores, sequence, lengths)


class PoolingEncoder(SequenceEncoder):
    """Sum or mean of the steps; the mean divides by ``max(length, 1)``.

    Args:
        sequence_dim: Ds.
        input: name of the sequence group.
        pooling_type: ``mean`` or ``sum``.
        max_seq_length: keep the first n steps, 0 keeps all.
        name: name of the encoder.

    Raises:
        ConfigError: another pooling type.
    """

    def __init__(
        self,
        sequence_dim: int,
        *,
        input: str,  # noqa: A002
        pooling_type: str = "mean",
        max_seq_length: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(input, sequence_dim, max_seq_length=max_seq_length, name=name)
        if pooling_type.lower() not in ("mean", "sum"):
            raise ConfigError(
                f"pooling_type of the pooling_encoder of {input!r} is {pooling_type!r}; "
                f"it must be mean or sum{did_you_mean(pooling_type, ['mean', 'sum'])}"
            )
        self._mean = pooling_type.lower() == "mean"

    def forward(self, grouped: Mapping[str, Tensor]) -> Tensor:
        """Returns (B, Ds)."""
        sequence, lengths = self._sequence(grouped)
        # Padded steps are zero, but another module may have changed them.
        exists = jagged.mask(sequence, lengths).unsqueeze(2)
        total = torch.sum(sequence * exists, dim=1)
        if self._mean:
            total = total / lengths.clamp(min=1).unsqueeze(1)
        return total


class SelfAttentionEncoder(SequenceEncoder):
    """Multi-head self-attention over the steps, then their mean.

    Linear q, k, v from Ds to ``multihead_attn_dim``, a standard multi-head attention (arXiv
    1706.03762) on top, sum over the steps that exist divided by ``max(length, 1)``. An empty
    sequence gives 0.

    Args:
        sequence_dim: Ds.
        input: name of the sequence group.
        multihead_attn_dim: size of the output.
        num_heads: number of heads, divides ``multihead_attn_dim``.
        dropout: dropout ratio of the attention weights.
        max_seq_length: keep the first n steps, 0 keeps all.
        name: name of the encoder.
        device: where the parameters live.

    Raises:
        ConfigError: the heads do not divide the size, or the dropout is outside [0, 1).
    """

    def __init__(
        self,
        sequence_dim: int,
        *,
        input: str,  # noqa: A002
        multihead_attn_dim: int = 512,
        num_heads: int = 8,
        dropout: float = 0.0,
        max_seq_length: int = 0,
        name: str | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(input, multihead_attn_dim, max_seq_length=max_seq_length, name=name)
        if num_heads < 1 or multihead_attn_dim % num_heads:
            raise ConfigError(
                f"self_attention_encoder of group {input!r}: multihead_attn_dim "
                f"{multihead_attn_dim} is not divisible by num_heads {num_heads}"
            )
        if not 0.0 <= dropout < 1.0:
            raise ConfigError(f"self_attention_encoder: dropout is {dropout}, not in [0, 1)")
        self.query = nn.Linear(sequence_dim, multihead_attn_dim, device=device)
        self.key = nn.Linear(sequence_dim, multihead_attn_dim, device=device)
        self.value = nn.Linear(sequence_dim, multihead_attn_dim, device=device)
        self.multihead_attn = nn.MultiheadAttention(
            multihead_attn_dim, num_heads, dropout=dropout, batch_first=True, device=device
        )

    def forward(self, grouped: Mapping[str, Tensor]) -> Tensor:
        """Returns (B, multihead_attn_dim)."""
        sequence, lengths = self._sequence(grouped)
        exists = jagged.mask(sequence, lengths)
        # An empty row attends to its first padded step: a row without keys is NaN, and would
        # make the gradients NaN even where the result is replaced.
        padding = ~jagged.mask(sequence, lengths.clamp(min=1))
        attended = self.multihead_attn(
            self.query(sequence),
            self.key(sequence),
            self.value(sequence),
            key_padding_mask=padding,
            need_weights=False,
        )[0]
        total = torch.sum(attended * exists.unsqueeze(2), dim=1)
        return total / lengths.clamp(min=1).unsqueeze(1)


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
        padding = _query_padding(input, "multi_window_din_encoder", query_dim, sequence_dim)
        self._query_padding = padding
        self.mlp = MLP(sequence_dim * 3, **attn_mlp, device=device)
        self.linear = nn.Linear(self.mlp.output_dim(), 1, device=device)
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
        query = _pad_query(grouped[f"{self._input}.query"], self._query_padding)
        windows = jagged.cut_windows(self.windows, sequence, self._input).to(sequence.dtype)
        scores = _step_scores(self, query, sequence, lengths, with_difference=False)
        exists = jagged.mask(sequence, lengths).to(sequence.dtype)
        weighted = self.active(scores) * exists
        # (B, W, T) @ (B, T, Ds): one product for all windows.
        total = torch.bmm(weighted.unsqueeze(1) * windows, sequence)
        count = torch.matmul(exists, windows.T).clamp(min=1.0)
        return torch.cat([(total / count.unsqueeze(2)).flatten(1), query], dim=1)


def create_seq_encoder(
    config: Any,
    group_dims: Mapping[str, int],
    *,
    default_input: str | None = None,
    device: torch.device | str | None = None,
) -> SequenceEncoder:
    """Builds the encoder that a ``SeqEncoderConfig`` message selects.

    Args:
        config: the message.
        group_dims: total size of ``{group}.query`` (if the group has one) and
            ``{group}.sequence`` of the groups that an encoder may read.
        default_input: group of an encoder whose ``input`` is empty.
        device: where the parameters live.

    Raises:
        ConfigError: no encoder is selected, its input does not exist, or what the encoder
            refuses.
    """
    from tzrec.config.messages import config_to_kwargs

    which = config.WhichOneof("seq_module")
    if which is None:
        raise ConfigError(f"a sequence encoder selects no module; set one of {[*_ENCODERS]}")
    kwargs: dict[str, Any] = config_to_kwargs(getattr(config, which))
    name = kwargs.pop("input", "") or default_input or ""
    groups = [key.removesuffix(".sequence") for key in group_dims if key.endswith(".sequence")]
    if name not in groups:
        raise ConfigError(
            f"input of {which} is {name!r}; it must be one of the sequence groups "
            f"{groups}{did_you_mean(name, groups)}"
        )
    cls, takes_query, has_weights = _ENCODERS[which]
    if takes_query:
        kwargs["query_dim"] = group_dims.get(f"{name}.query", 0)
    if has_weights:
        kwargs["device"] = device
    return cls(group_dims[f"{name}.sequence"], input=name, **kwargs)


# Field of the oneof → class, whether it reads the query, whether it has weights.
_ENCODERS: dict[str, tuple[Any, bool, bool]] = {
    "din_encoder": (DINEncoder, True, True),
    "simple_attention": (SimpleAttention, True, False),
    "pooling_encoder": (PoolingEncoder, False, False),
    "multi_window_din_encoder": (MultiWindowDINEncoder, True, True),
    "self_attention_encoder": (SelfAttentionEncoder, False, True),
}
