"""The interface's names around features; `tzrec.features.base` and `.factory` are their home."""

from __future__ import annotations

from tzrec.features.base import BaseFeature, FgMode
from tzrec.features.factory import create_feature_configs, create_features, create_fg_json
from tzrec.fg.encoded import (
    parse_fg_encoded_dense_feature_impl,
    parse_fg_encoded_sequence_dense_feature_impl,
    parse_fg_encoded_sequence_sparse_feature_impl,
    parse_fg_encoded_sparse_feature_impl,
)

__all__ = [
    "BaseFeature",
    "FgMode",
    "create_feature_configs",
    "create_features",
    "create_fg_json",
    "parse_fg_encoded_dense_feature_impl",
    "parse_fg_encoded_sequence_dense_feature_impl",
    "parse_fg_encoded_sequence_sparse_feature_impl",
    "parse_fg_encoded_sparse_feature_impl",
]
