"""FG_NONE: the columns of features that were generated before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tzrec.errors import DataError, did_you_mean
from tzrec.features.mask import hide_masked_rows
from tzrec.fg.encoded import (
    parse_fg_encoded_dense_feature_impl,
    parse_fg_encoded_sequence_dense_feature_impl,
    parse_fg_encoded_sequence_sparse_feature_impl,
    parse_fg_encoded_sparse_feature_impl,
)
from tzrec.fg.parsed import Parsed

if TYPE_CHECKING:
    from tzrec.features.base import BaseFeature


def parse_encoded(
    feature: BaseFeature, input_data: dict[str, pa.Array], is_training: bool
) -> Parsed:
    """Takes the column of a feature apart that already holds ids or numbers (FG_NONE)."""
    if is_training and feature.use_mask:
        input_data = hide_masked_rows(feature.inputs, feature.reads_sampled_rows, input_data)
    column = _column(input_data, feature.inputs[0], feature.name)
    name, separator, default = (
        feature.name,
        feature.fg_encoded_multival_sep,
        feature.fg_encoded_default,
    )
    if not feature.has_steps:
        if feature.is_sparse:
            ids: Any = default
            return parse_fg_encoded_sparse_feature_impl(
                name, column, separator, ids, feature.is_weighted
            )
        return parse_fg_encoded_dense_feature_impl(
            name, column, separator, default, feature.value_dim
        )
    delim = feature.sequence_delim or ";"
    if feature.is_sparse:
        ids = default
        return parse_fg_encoded_sequence_sparse_feature_impl(name, column, delim, separator, ids)
    return parse_fg_encoded_sequence_dense_feature_impl(
        name, column, delim, separator, default, feature.value_dim
    )


def _column(input_data: dict[str, pa.Array], column: str, feature: str) -> pa.Array:
    if column not in input_data:
        raise DataError(
            f"feature {feature!r}: its column {column!r} is missing"
            f"{did_you_mean(column, input_data)}",
            hint=f"there are: {', '.join(input_data)}",
        )
    return input_data[column]
