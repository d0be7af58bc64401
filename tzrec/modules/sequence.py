"""Sequence encoders: a padded sequence (and a query) to one vector (reference 05 section 5.5).

Every encoder reads ``{input}.query`` (B, Dq) where it needs one, ``{input}.sequence``
(B, T, Ds) and ``{input}.sequence_length`` (B,) from the outputs of the embedding group. Padding
never changes a result: a row gives the same whatever T the batch has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.config.messages import config_to_kwargs
from tzrec.errors import ConfigError, did_you_mean
from tzrec.modules import jagged
from tzrec.modules.sequence_base import SequenceEncoder, attend, query_padding
from tzrec.modules.sequence_din import DINEncoder, MultiWindowDINEncoder

__all__ = [
    "DINEncoder",
    "MultiWindowDINEncoder",
    "PoolingEncoder",
    "SelfAttentionEncoder",
    "SequenceEncoder",
    "SimpleAttention",
    "create_seq_encoder",
]


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
        if query_padding(input, "simple_attention", query_dim, sequence_dim):
            raise ConfigError(
                f"simple_attention of group {input!r}: query dim {query_dim} and sequence dim "
                f"{sequence_dim} must be equal"
            )

    def forward(self, grouped: Mapping[str, Tensor]) -> Tensor:
        """Returns (B, Ds)."""
        sequence, lengths = self._sequence(grouped)
        query = grouped[f"{self._input}.query"]
        scores = torch.bmm(sequence, query.unsqueeze(2)).squeeze(2)
        return attend(scores, sequence, lengths)


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

    reads_query = False

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

    reads_query = False

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
