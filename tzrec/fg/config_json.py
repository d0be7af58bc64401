"""Feature configs → ``fg.json`` (reference 04 §4.4, fg.md §3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tzrec.config.messages import which_field
from tzrec.errors import at
from tzrec.fg.config_entries import KINDS
from tzrec.fg.config_source import Entry, Source

__all__ = ["Entry", "Source", "create_fg_json", "entries_of", "without_bucketizer"]

_REMOVED = ("hash_bucket_size", "vocab_list", "vocab_dict", "boundaries", "num_buckets")
# These say that they are sequences by a key instead of by the name of their type.
_WITHOUT_PREFIX = ("custom_feature", "bool_mask_feature")


def create_fg_json(feature_configs: Iterable[Any], *, remove_bucketizer: bool = False) -> Entry:
    """Returns the ``fg.json`` of feature configs.

    Args:
        feature_configs: `FeatureConfig` messages, in order.
        remove_bucketizer: leave out what makes ids, for feature generation offline whose output
            ``FG_BUCKETIZE`` reads.

    Raises:
        ConfigError: a config contradicts itself.
    """
    entries: list[Entry] = []
    for number, wrapper in enumerate(feature_configs):
        kind = which_field(wrapper, "feature")
        if kind is None:
            continue
        with at(f"feature_configs[{number}].{kind}"):
            config = getattr(wrapper, kind)
            if kind == "sequence_feature":
                entries.append(_group(config))
            else:
                is_sequence = kind.startswith("sequence_")
                source = Source(kind.removeprefix("sequence_"), config, is_sequence)
                entries += entries_of(source)
    if remove_bucketizer:
        entries = [without_bucketizer(entry) for entry in entries]
    return {"features": entries}


def _group(config: Any) -> Entry:
    entries: list[Entry] = []
    for wrapper in config.features:
        kind = which_field(wrapper, "feature")
        if kind is not None:
            entries += entries_of(Source(kind, getattr(wrapper, kind), True, True))
    return {
        "sequence_name": config.sequence_name,
        "sequence_length": config.sequence_length,
        "sequence_delim": config.sequence_delim,
        "sequence_pk": config.sequence_pk or f"user:{config.sequence_name}",
        "features": entries,
    }


def entries_of(source: Source) -> list[Entry]:
    """Returns the entries of one feature.

    A lookup of vectors and a tokenizer behind a text normalizer take two, the first a stub.

    Raises:
        ConfigError: the config contradicts itself.
    """
    entries = KINDS[source.kind](source)
    for entry in entries:
        entry.setdefault("feature_type", source.kind)
        entry.setdefault("feature_name", source.config.feature_name)
        _mark_sequence(entry, source)
    if source.config.stub_type:
        entries[-1]["stub_type"] = True
    return entries


def without_bucketizer(entry: Entry) -> Entry:
    """Returns an entry that stops before ids are made; tokenizers keep their vocabulary."""
    if "features" in entry:
        return {**entry, "features": [without_bucketizer(sub) for sub in entry["features"]]}
    removed = set(_REMOVED)
    if not entry["feature_type"].endswith("tokenize_feature"):
        removed.add("vocab_file")
    return {key: value for key, value in entry.items() if key not in removed}


def _mark_sequence(entry: Entry, source: Source) -> None:
    if not source.is_sequence:
        return
    if source.has("sequence_fields"):
        entry.setdefault("sequence_fields", list(source.config.sequence_fields))
    if not source.is_grouped:
        delim, length = source.sequence_delim, source.sequence_length
        entry["sequence_delim"] = source.config.sequence_delim if delim is None else delim
        entry["sequence_length"] = source.config.sequence_length if length is None else length
        if source.kind not in _WITHOUT_PREFIX:
            entry["feature_type"] = f"sequence_{entry['feature_type']}"
    if source.kind == "custom_feature":
        entry["is_sequence"] = True
