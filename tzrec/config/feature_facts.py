"""What a feature's config says about its column, table and width; the rules read this."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

from tzrec.config.messages import is_repeated, which_field
from tzrec.config.vocab import read_vocab_file, vocab_path
from tzrec.errors import ConfigError
from tzrec.protos.pipeline_pb2 import EasyRecConfig

ID_BUCKETISERS = ("hash_bucket_size", "num_buckets", "vocab_list", "vocab_dict", "vocab_file")
GROWING = ("zch", "dynamicemb")
RESERVED_WORDS = 2
SIDES = ("user", "item", "context", "feature", "const")
# A key of match_feature that stands for all keys.
ALL_KEYS = "ALL"

# Fields that name the inputs of a kind.
_INPUTS = {
    "id_feature": ("expression",),
    "raw_feature": ("expression",),
    "combo_feature": ("expression",),
    "combine_feature": ("expression",),
    "lookup_feature": ("map", "key"),
    "match_feature": ("nested_map", "pkey", "skey"),
    "expr_feature": ("variables",),
    "overlap_feature": ("query", "title"),
    "kv_dot_product": ("query", "document"),
    "tokenize_feature": ("expression",),
    "custom_feature": ("expression",),
    "bool_mask_feature": ("expression",),
}
_ALWAYS_IDS = ("id_feature", "combo_feature", "bool_mask_feature", "tokenize_feature")
# Kinds whose input is a sequence by itself; of others the item's columns are (fg.md §9).
_SINGLE_INPUT = (
    "id_feature",
    "raw_feature",
    "tokenize_feature",
    "combine_feature",
    "text_normalizer",
    "regex_replace_feature",
)


def is_sequence_input(
    kind: str, side: str, name: str, *, in_group: bool, sequence_fields: Sequence[str]
) -> bool:
    """Returns whether an input of a sequence feature holds steps.

    Args:
        kind: ``id_feature`` …
        side: of the input.
        name: of the input.
        in_group: the feature stands in a ``sequence_feature``.
        sequence_fields: names that the config says are sequences; they alone decide.
    """
    if side == "const":
        return False
    if sequence_fields:
        return name in sequence_fields
    if kind in _SINGLE_INPUT:
        return side != "feature" or not in_group
    return side == "item"


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
    def name(self) -> str:
        """Full name, which is the column in FG_NONE."""
        if self.sequence is None:
            return str(self.config.feature_name)
        return f"{self.sequence.sequence_name}__{self.config.feature_name}"

    @property
    def inputs(self) -> list[tuple[str, str]]:
        """Config path and text of each input; keys of match_feature that are ALL are none."""
        found: list[tuple[str, str]] = []
        for name in _INPUTS[self.kind]:
            value = getattr(self.config, name)
            if isinstance(value, str):
                found.append((f"{self.path}.{name}", value))
            else:
                found += [(f"{self.path}.{name}[{i}]", text) for i, text in enumerate(value)]
        if self.kind == "match_feature":
            return [found[0], *(one for one in found[1:] if one[1] != ALL_KEYS)]
        return found

    @property
    def first_input(self) -> str:
        """Config path of its first input, written or not."""
        return f"{self.path}.{_INPUTS[self.kind][0]}"

    @property
    def columns(self) -> list[tuple[str, str]]:
        """Config path and name of each raw column that feature generation reads for it."""
        found = []
        for where, text in self.inputs:
            side, _, name = text.partition(":")
            side, name = side.strip(), name.strip()
            if side in ("feature", "const") or side not in SIDES:
                continue
            steps = self.is_sequence and is_sequence_input(
                self.kind,
                side,
                name,
                in_group=self.sequence is not None,
                sequence_fields=self.config.sequence_fields,
            )
            prefix = f"{self.sequence.sequence_name}__" if steps and self.sequence else ""
            found.append((where, prefix + name))
        return found

    @property
    def is_sparse(self) -> bool:
        """Whether its values are ids of table rows."""
        return self.kind in _ALWAYS_IDS or bool(self.bucketisers)

    @property
    def has_dense_embedding(self) -> bool:
        """Whether its numbers are embedded (autodis, mlp); sequences stay plain numbers."""
        return not self.is_sequence and not self.is_sparse and self.dense_embedding is not None

    @property
    def dense_embedding(self) -> str | None:
        """``autodis`` or ``mlp``, None where neither is written."""
        known = "dense_emb" in self.config.DESCRIPTOR.oneofs_by_name
        return which_field(self.config, "dense_emb") if known else None

    @property
    def value_dim(self) -> int:
        """Values per row (per step of a sequence), 0 = any number."""
        if self.kind == "tokenize_feature":
            return 1 if self.config.tokens_as_sequence else 0
        if self._has("value_dim") or self.kind == "raw_feature":
            return int(self.config.value_dim)
        return 0 if self.kind in _ALWAYS_IDS and not self.is_sequence else 1

    @property
    def dim(self) -> int | None:
        """Width in a feature group that is not WIDE, None when the config leaves it open."""
        if self.is_sparse or self.has_dense_embedding:
            return int(self.config.embedding_dim) or None
        return self.value_dim

    def _has(self, name: str) -> bool:
        """Whether the message knows the field and it is written."""
        known = self.config.DESCRIPTOR.fields_by_name
        if name not in known:
            return False
        value = getattr(self.config, name)
        return bool(len(value)) if is_repeated(known[name]) else self.config.HasField(name)

    @property
    def embedding_name(self) -> str:
        """Name of its table, before suffixes."""
        return str(self.config.embedding_name) or f"{self.name}_emb"

    @property
    def bucketisers(self) -> list[str]:
        """Config fields that say how ids come about."""
        if self.kind == "tokenize_feature":
            return []
        return [name for name in (*GROWING, *ID_BUCKETISERS, "boundaries") if self._has(name)]

    @property
    def hash_table(self) -> str:
        """The ``zch`` or ``dynamicemb`` message as text, "" where it has neither."""
        ways = [name for name in GROWING if self._has(name)]
        text = f"{ways[0]} {{{getattr(self.config, ways[0])}}}" if ways else ""
        return " ".join(text.split())

    @property
    def vocabulary_rows(self) -> int | None:
        """Ids that the vocabulary makes, reserved ones included; None without a vocabulary."""
        config, ways = self.config, self.bucketisers
        verbatim = self._has("default_bucketize_value")
        if "vocab_list" in ways:
            return len(config.vocab_list) + (0 if verbatim else RESERVED_WORDS)
        if "vocab_dict" in ways:
            rows = int(max(config.vocab_dict.values())) + 1
            return rows if verbatim else max(rows, RESERVED_WORDS)
        if "vocab_file" in ways:
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
        ways = self.bucketisers
        if any(name in ways for name in GROWING):
            return None
        for name in ("hash_bucket_size", "num_buckets"):
            if name in ways:
                return int(getattr(self.config, name))
        if self.vocabulary_rows is not None:
            return self.vocabulary_rows
        return len(self.config.boundaries) + 1 if "boundaries" in ways else None


def flatten(config: EasyRecConfig) -> Iterator[FeatureFacts]:
    """Yields all features in config order, sub-features of grouped sequences flattened."""
    for number, wrapper in enumerate(config.feature_configs):
        kind = which_field(wrapper, "feature")
        if kind is None:
            continue
        path = f"feature_configs[{number}].{kind}"
        message = getattr(wrapper, kind)
        if kind != "sequence_feature":
            is_sequence = kind.startswith("sequence_") or (
                kind == "tokenize_feature" and message.tokens_as_sequence
            )
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
