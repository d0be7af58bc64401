"""What a feature's config says about its column, table and width; the rules read this."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

from tzrec.config.messages import which_field
from tzrec.config.vocab import read_vocab_file, vocab_path
from tzrec.errors import ConfigError
from tzrec.protos.pipeline_pb2 import EasyRecConfig

SUPPORTED_KINDS = ("id_feature", "raw_feature")
ID_BUCKETISERS = ("hash_bucket_size", "num_buckets", "vocab_list", "vocab_dict", "vocab_file")
RESERVED_WORDS = 2


@dataclasses.dataclass(frozen=True)
class FeatureFacts:
    """One feature, or one sub-feature of a grouped sequence.

    Attributes:
        path: config path of its message, ``feature_configs[0].id_feature``.
        kind: oneof field name without ``sequence_``: ``id_feature``.
        config: its message.
        sequence: the ``SequenceFeature`` around it, None for others.
        is_sequence: values come in steps.
    """

    path: str
    kind: str
    config: Any
    sequence: Any = None
    is_sequence: bool = False

    @property
    def supported(self) -> bool:
        """Whether this version has the kind."""
        return self.kind in SUPPORTED_KINDS

    @property
    def name(self) -> str:
        """Full name, which is the column in FG_NONE."""
        if self.sequence is None:
            return str(self.config.feature_name)
        return f"{self.sequence.sequence_name}__{self.config.feature_name}"

    @property
    def is_sparse(self) -> bool:
        """Whether its values are ids of table rows."""
        return self.kind == "id_feature" or bool(getattr(self.config, "boundaries", ()))

    @property
    def has_dense_embedding(self) -> bool:
        """Whether its numbers are embedded (autodis, mlp); sequences stay plain numbers."""
        return (
            self.kind == "raw_feature"
            and not self.is_sequence
            and not self.is_sparse
            and which_field(self.config, "dense_emb") is not None
        )

    @property
    def value_dim(self) -> int:
        """Values per row (per step of a sequence), 0 = any number."""
        if self.config.HasField("value_dim") or self.kind == "raw_feature":
            return int(self.config.value_dim)
        return 1 if self.is_sequence else 0

    @property
    def dim(self) -> int | None:
        """Width in a feature group that is not WIDE, None when the config leaves it open."""
        if not self.supported:
            return None
        if self.is_sparse or self.has_dense_embedding:
            return int(self.config.embedding_dim) or None
        return self.value_dim

    @property
    def embedding_name(self) -> str:
        """Name of its table, before suffixes."""
        return str(self.config.embedding_name) or f"{self.name}_emb"

    @property
    def bucketisers(self) -> list[str]:
        """Config fields that say how ids come about."""
        config = self.config
        if self.kind != "id_feature":
            return ["boundaries"] if self.is_sparse else []
        growing = [name for name in ("zch", "dynamicemb") if config.HasField(name)]
        return growing + [
            name
            for name in ID_BUCKETISERS
            if (len(getattr(config, name)) if name in ("vocab_list", "vocab_dict") else 0)
            or (name not in ("vocab_list", "vocab_dict") and config.HasField(name))
        ]

    @property
    def vocabulary_rows(self) -> int | None:
        """Ids that the vocabulary makes, reserved ones included; None without a vocabulary."""
        if self.kind != "id_feature":
            return None
        config = self.config
        if config.vocab_list:
            verbatim = config.HasField("default_bucketize_value")
            return len(config.vocab_list) + (0 if verbatim else RESERVED_WORDS)
        if config.vocab_dict:
            verbatim = config.HasField("default_bucketize_value")
            rows = max(config.vocab_dict.values()) + 1
            return rows if verbatim else max(rows, RESERVED_WORDS)
        if config.HasField("vocab_file"):
            words = self.file_words
            return None if isinstance(words, ConfigError) else max(words.values()) + 1
        return None

    @functools.cached_property
    def file_words(self) -> dict[str, int] | ConfigError:
        """Words of the vocabulary file with their ids, or why it cannot be used."""
        try:
            return read_vocab_file(vocab_path(self.config.asset_dir, self.config.vocab_file))
        except ConfigError as error:
            return error

    @property
    def rows(self) -> int | None:
        """Rows of its table, None when the config leaves it open (or it has no table)."""
        if not self.supported or not self.is_sparse:
            return None
        config = self.config
        if self.kind == "raw_feature":
            return len(config.boundaries) + 1
        if config.HasField("zch") or config.HasField("dynamicemb"):
            return None
        if config.HasField("hash_bucket_size"):
            return int(config.hash_bucket_size)
        if config.HasField("num_buckets"):
            return int(config.num_buckets)
        return self.vocabulary_rows


def flatten(config: EasyRecConfig) -> Iterator[FeatureFacts]:
    """Yields all features in config order, sub-features of grouped sequences flattened."""
    for number, wrapper in enumerate(config.feature_configs):
        kind = which_field(wrapper, "feature")
        if kind is None:
            continue
        path = f"feature_configs[{number}].{kind}"
        message = getattr(wrapper, kind)
        if kind != "sequence_feature":
            is_sequence = kind.startswith("sequence_")
            yield FeatureFacts(
                path, kind.removeprefix("sequence_"), message, is_sequence=is_sequence
            )
            continue
        for index, sub in enumerate(message.features):
            sub_kind = which_field(sub, "feature")
            if sub_kind is not None:
                sub_path = f"{path}.features[{index}].{sub_kind}"
                sub_config = getattr(sub, sub_kind)
                yield FeatureFacts(sub_path, sub_kind, sub_config, message, is_sequence=True)
