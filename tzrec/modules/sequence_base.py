"""What all sequence encoders have in common."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tzrec.errors import ConfigError
from tzrec.modules import jagged

# Score of a padded step before the softmax.
_PADDING_SCORE = float(-(2**31) + 1)


class SequenceEncoder(nn.Module):
    """Base of the encoders.

    Args:
        input: name of the sequence group.
        output_dim: size of the output.
        max_seq_length: keep the first n steps, 0 keeps all.
        name: name of the encoder in the config.

    Attributes:
        reads_query: a row's result depends on its query; else on its sequence alone.

    Raises:
        ConfigError: ``max_seq_length`` is negative.
    """

    reads_query = True

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

    def _is_repeated(self, grouped: Mapping[str, Tensor]) -> bool:
        """Returns whether rows of a user have his sequence in common (input tiling, mode 3)."""
        return f"{self._input}.owners" in grouped

    def _sequence(self, grouped: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Returns the sequence (B, T, Ds) and its lengths (B,), cut to ``max_seq_length``."""
        sequence = grouped[f"{self._input}.sequence"]
        lengths = grouped[f"{self._input}.sequence_length"]
        if self._max_seq_length > 0:
            sequence = sequence[:, : self._max_seq_length]
            lengths = torch.clamp(lengths, max=self._max_seq_length)
        return sequence, lengths


def attend(scores: Tensor, sequence: Tensor, lengths: Tensor) -> Tensor:
    """Returns (B, Ds), the sum of the steps weighted by the softmax of ``scores`` (B, T).

    An empty row gives 0. The softmax is in float32: the padding score overflows half precision.
    """
    exists = jagged.mask(sequence, lengths)
    weights = torch.softmax(scores.float().masked_fill(~exists, _PADDING_SCORE), dim=1) * exists
    return torch.bmm(weights.to(sequence.dtype).unsqueeze(1), sequence).squeeze(1)


def pad_query(query: Tensor, missing: int) -> Tensor:
    """Returns (B, Dq + missing), the query with zeros appended."""
    return F.pad(query, (0, missing)) if missing > 0 else query


def query_padding(input_name: str, encoder: str, query_dim: int, sequence_dim: int) -> int:
    """Returns how many zeros make the query as wide as the sequence.

    Raises:
        ConfigError: the group has no query, or one wider than the sequence.
    """
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
