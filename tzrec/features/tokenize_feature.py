"""Texts as ids of a tokenizer."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tzrec.errors import ConfigError
from tzrec.features.base import BaseFeature
from tzrec.features.bucketizer import Bucketizer
from tzrec.fg.config_json import Source, entries_of
from tzrec.fg.operators.tokenize_feature import load_tokenizer, vocabulary_size
from tzrec.fg.parsed import Parsed, SequenceSparseData


@dataclasses.dataclass(frozen=True)
class Tokens(Bucketizer):
    """The ids of a tokenizer.

    Attributes:
        path: its file.
        tokenizer_type: ``bpe`` or ``sentencepiece``.
    """

    path: str = ""
    tokenizer_type: str = "bpe"

    @cached_property
    def vocabulary(self) -> Mapping[str, int]:
        """Token → id."""
        return load_tokenizer(self.path, self.tokenizer_type)[1]

    @cached_property
    def identity(self) -> dict[str, Any]:
        """As of a vocabulary, and what the file says about cutting texts into tokens."""
        return {
            "kind": self.kind,
            "rows": self.rows,
            "oov_id": None,
            "default_id": None,
            "words": len(self.vocabulary),
            "file": hashlib.sha256(Path(self.path).read_bytes()).hexdigest()[:24],
        }


class TokenizeFeature(BaseFeature):
    """Tokens of a text, pooled; with ``tokens_as_sequence`` a sequence of tokens."""

    def _make_bucketizer(self) -> Bucketizer:
        entry = entries_of(Source(self.kind, self.config))[-1]
        path, kind = str(entry["vocab_file"]), str(entry["tokenizer_type"])
        return Tokens("tokenizer", vocabulary_size(path, kind), path=path, tokenizer_type=kind)

    def _check(self) -> None:
        if self.config.tokens_as_sequence:
            if not self.stands_alone:
                raise ConfigError("tokens_as_sequence is for a text per row, not for a sequence")
            if not self.config.sequence_length:
                raise ConfigError("tokens_as_sequence needs sequence_length")
            self.is_sequence = True
            self.generates_steps = False
            self.sequence_delim = str(self.config.sequence_delim)
            self.sequence_length = int(self.config.sequence_length)
        super()._check()

    @property
    def value_dim(self) -> int:
        """Any number of tokens per row or step; one where tokens are steps."""
        return 1 if self.config.tokens_as_sequence else 0

    @property
    def has_steps(self) -> bool:
        """Whether encoded columns come in steps; tokens of a text do not."""
        return self.is_sequence and self.generates_steps

    def reshape(self, parsed: Parsed) -> Parsed:
        """Returns tokens as steps where they are a sequence."""
        if self.generates_steps or parsed.lengths is None:
            return parsed
        ones = np.ones(len(parsed.values), dtype=np.int32)
        return SequenceSparseData(
            parsed.name, parsed.values, parsed.lengths, key_lengths=ones, counts=parsed.counts
        )
