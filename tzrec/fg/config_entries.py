"""The entry of ``fg.json`` for each kind of feature (reference 04 §4.4, fg.md §3)."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import Any

from google.protobuf.json_format import MessageToDict

from tzrec.config.vocab import vocab_path
from tzrec.errors import ConfigError
from tzrec.fg.combiners import combiner_number
from tzrec.fg.config_source import Entry, Source, id_bucketizer
from tzrec.protos import feature_pb2

_NORMALIZER_BITS = {
    "TEXT_LOWER2UPPER": 2,
    "TEXT_UPPER2LOWER": 4,
    "TEXT_SBC2DBC": 8,
    "TEXT_CHT2CHS": 16,
    "TEXT_FILTER": 32,
    "TEXT_SPLITCHRS": 512,
}
_NORMALIZER_DEFAULT = 2 | 8 | 16 | 32


def _separator(source: Source) -> Entry:
    separator = source.config.separator
    return {"separator": separator} if separator != "\x1d" else {}


def _normalizer(source: Source) -> Entry:
    return {"normalizer": source.config.normalizer} if source.config.normalizer else {}


def _boundaries(source: Source) -> Entry:
    return {"boundaries": list(source.config.boundaries)} if source.config.boundaries else {}


def _value_dim(source: Source, otherwise: int) -> Entry:
    written = source.has("value_dim")
    return {"value_dim": int(source.config.value_dim) if written else otherwise}


def _id(source: Source) -> list[Entry]:
    config = source.config
    entry = {
        "default_value": source.default,
        "expression": config.expression,
        "value_type": config.fg_value_type or "string",
        "need_prefix": False,
        **_separator(source),
        **id_bucketizer(source),
        **_value_dim(source, 1 if source.is_sequence else 0),
    }
    if config.weighted:
        entry["weighted"] = True
    return [entry]


def _raw(source: Source) -> list[Entry]:
    config = source.config
    entry = {
        "default_value": source.default,
        "expression": config.expression,
        "value_type": "float",
        **_normalizer(source),
        **_boundaries(source),
    }
    if config.value_dim > 1:
        entry |= {"value_dim": int(config.value_dim), **_separator(source)}
    return [entry]


def _combo(source: Source) -> list[Entry]:
    config = source.config
    if len(config.expression) < 2:
        raise ConfigError(
            f"combo_feature {config.feature_name!r} has {len(config.expression)} inputs, "
            "needs at least 2"
        )
    return [
        {
            "default_value": source.default,
            "expression": list(config.expression),
            "value_type": "string",
            "need_prefix": False,
            **_separator(source),
            **id_bucketizer(source),
            **_value_dim(source, 1 if source.is_sequence else 0),
        }
    ]


def _lookup(source: Source) -> list[Entry]:
    config = source.config
    if config.combiner:
        combiner_number(config.combiner, or_none=True)
    buckets = id_bucketizer(source)
    value_dim = int(config.value_dim) if source.has("value_dim") else 1
    if value_dim > 1:
        return _lookup_of_vectors(source, value_dim)
    value_type = config.fg_value_type or ("string" if buckets else "float")
    discrete = bool(config.need_discrete) or value_type == "string"
    entry = {
        "map": config.map,
        "key": config.key,
        "default_value": source.default,
        "value_type": value_type,
        "needDiscrete": discrete,
        "needKey": bool(config.need_key),
        "combiner": "" if discrete else config.combiner.lower(),
        **_separator(source),
        **_normalizer(source),
        **(buckets or _boundaries(source)),
    }
    if not entry["combiner"]:
        entry["value_dim"] = value_dim
    return [entry]


def _lookup_of_vectors(source: Source, value_dim: int) -> list[Entry]:
    config = source.config
    name = f"{config.feature_name}__lookup"
    between = config.value_separator
    default = (
        source.default
        if between in source.default
        else between.join([source.default or "0"] * value_dim)
    )
    stub = {
        "feature_name": name,
        "map": config.map,
        "key": config.key,
        "default_value": default,
        "value_type": "string",
        "needDiscrete": True,
        "needKey": bool(config.need_key),
        "combiner": "",
        "value_dim": 1,
        "stub_type": True,
        **_separator(source),
    }
    raw = {
        "feature_type": "raw_feature",
        "default_value": source.default,
        "expression": f"feature:{name}",
        "value_type": "float",
        "separator": between,
        "value_dim": value_dim,
        **_normalizer(source),
        **_boundaries(source),
    }
    if source.is_grouped:
        raw["sequence_fields"] = [name]
    return [stub, raw]


def _match(source: Source) -> list[Entry]:
    config = source.config
    buckets = id_bucketizer(source)
    value_type = config.fg_value_type or ("string" if buckets else "float")
    discrete = bool(config.need_discrete) or bool(buckets)
    entry = {
        "user": config.nested_map,
        "category": config.pkey,
        "item": config.skey,
        "matchType": "multihit" if "ALL" in (config.pkey, config.skey) else "hit",
        "default_value": source.default,
        "value_type": value_type,
        "needDiscrete": discrete,
        "show_category": bool(config.show_pkey),
        "show_item": bool(config.show_skey),
        **_separator(source),
        **_normalizer(source),
        **(buckets or _boundaries(source)),
    }
    if discrete:
        entry |= _value_dim(source, 1)
    return [entry]


def _expr(source: Source) -> list[Entry]:
    config = source.config
    entry = {
        "expression": config.expression,
        "variables": list(config.variables),
        "value_type": "float",
        "default_value": source.default,
        **_separator(source),
        **_boundaries(source),
    }
    if source.has("fill_missing"):
        entry["fill_missing"] = float(config.fill_missing)
    if source.has("value_dim"):
        entry["value_dim"] = int(config.value_dim)
    return [entry]


def _overlap(source: Source) -> list[Entry]:
    config = source.config
    entry = {
        "query": config.query,
        "title": config.title,
        "method": config.method,
        "value_type": "float",
        "separator": config.separator,
        **_normalizer(source),
        **_boundaries(source),
    }
    if source.is_sequence:
        entry["default_value"] = "0"
    return [entry]


def _kv(source: Source) -> list[Entry]:
    config = source.config
    return [
        {
            "query": config.query,
            "document": config.document,
            "default_value": source.default,
            **_separator(source),
            **_normalizer(source),
            **_boundaries(source),
        }
    ]


def _bool_mask(source: Source) -> list[Entry]:
    config = source.config
    entry = {
        "default_value": source.default,
        "expression": list(config.expression),
        **_separator(source),
        **id_bucketizer(source),
        "value_dim": int(config.value_dim),
    }
    if config.fg_value_type:
        entry["value_type"] = config.fg_value_type
    return [entry]


def _combine(source: Source) -> list[Entry]:
    config = source.config
    entry = {
        "default_value": source.default,
        "expression": config.expression,
        "value_type": "float",
        "need_prefix": False,
        "combiner": config.combiner.lower(),
        **_separator(source),
        **_normalizer(source),
    }
    if config.value_map:
        entry["value_map"] = dict(config.value_map)
    if source.has("num_buckets"):
        entry |= {"num_buckets": int(config.num_buckets), "value_type": "int64", "value_dim": 1}
    elif config.boundaries:
        entry |= {**_boundaries(source), "value_dim": 1}
    return [entry]


def _tokenize(source: Source) -> list[Entry]:
    config = source.config
    entry = {
        "vocab_file": vocab_path(config.asset_dir, config.vocab_file),
        "expression": config.expression,
        "tokenizer_type": config.tokenizer_type,
        "output_type": "word_id",
        "default_value": source.default,
    }
    if not config.HasField("text_normalizer"):
        return [entry]
    name = f"{config.feature_name}__text_norm"
    entry["expression"] = f"feature:{name}"
    if source.is_grouped:
        entry["sequence_fields"] = [name]
    return [_text_normalizer(config, name), entry]


def _text_normalizer(config: Any, name: str) -> Entry:
    options = config.text_normalizer
    names = [feature_pb2.TextNormalizeOption.Name(number) for number in options.norm_options]
    bits = sum(_NORMALIZER_BITS.get(option, 0) for option in set(names))
    entry: Entry = {
        "feature_name": name,
        "feature_type": "text_normalizer",
        "expression": config.expression,
        "parameter": bits if names else _NORMALIZER_DEFAULT,
        "remove_space": "TEXT_REMOVE_SPACE" in names,
        "stub_type": True,
    }
    if options.HasField("max_length"):
        entry["max_length"] = int(options.max_length)
    if options.stop_char_file:
        entry["stop_char_file"] = posixpath.join(config.asset_dir, options.stop_char_file)
    return entry


def _custom(source: Source) -> list[Entry]:
    config = source.config
    buckets = id_bucketizer(source)
    value_type = "float"
    if buckets:
        value_type = "int64" if "num_buckets" in buckets else "string"
    return [
        {
            "operator_name": config.operator_name,
            "operator_lib_file": config.operator_lib_file,
            "is_op_thread_safe": bool(config.is_op_thread_safe),
            "expression": list(config.expression),
            "default_value": source.default,
            "value_type": value_type,
            **MessageToDict(config.operator_params),
            **_separator(source),
            **_normalizer(source),
            **(buckets or _boundaries(source)),
            **_value_dim(source, 1),
        }
    ]


KINDS: dict[str, Callable[[Source], list[Entry]]] = {
    "id_feature": _id,
    "raw_feature": _raw,
    "combo_feature": _combo,
    "lookup_feature": _lookup,
    "match_feature": _match,
    "expr_feature": _expr,
    "overlap_feature": _overlap,
    "kv_dot_product": _kv,
    "bool_mask_feature": _bool_mask,
    "combine_feature": _combine,
    "tokenize_feature": _tokenize,
    "custom_feature": _custom,
}
