"""The columns of features that were generated before (``FG_NONE``, ``FG_BUCKETIZE``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tzrec.demo.shape.columns import MOST_STEPS, Column
from tzrec.demo.shape.domains import MOST_DISTINCT, Domain, Ids, Normal
from tzrec.demo.shape.outputs import domain_of

if TYPE_CHECKING:
    from tzrec.features.feature import BaseFeature

# Kinds that give any number of values wherever they may.
_SEVERAL = ("combo_feature", "bool_mask_feature", "tokenize_feature")


def encoded_columns(features: Sequence[BaseFeature]) -> list[Column]:
    """Returns a column for each feature, called like it."""
    return [_column(feature) for feature in features if not feature.is_stub]


def _column(feature: BaseFeature) -> Column:
    bucketised = feature.fg_mode.name == "FG_NONE"
    length = feature.sequence_length or MOST_STEPS
    return Column(
        feature.name,
        _ids_or_numbers(feature) if bucketised else _generated(feature),
        many=has_several(feature),
        dim=1 if feature.is_sparse and bucketised else max(feature.value_dim, 1),
        steps=(feature.sequence_name or feature.name) if feature.has_steps else None,
        most_steps=min(length, MOST_STEPS),
        weighted=feature.is_weighted,
        separator=feature.fg_encoded_multival_sep if bucketised else "\x1d",
        delim=feature.sequence_delim or ";",
    )


def has_several(feature: BaseFeature) -> bool:
    """Whether rows hold any number of ids.

    Any number would be allowed in all columns whose ``value_dim`` is 0; who writes ``pooling`` or
    ``separator`` uses it.
    """
    if feature.value_dim == 1 or not feature.is_sparse or feature.kind == "raw_feature":
        return False
    fields = feature.config.DESCRIPTOR.fields_by_name
    written = [f for f in ("pooling", "separator", "weighted") if f in fields]
    return feature.kind in _SEVERAL or any(feature.config.HasField(f) for f in written)


def _ids_or_numbers(feature: BaseFeature) -> Domain:
    if not feature.is_sparse:
        return Normal()
    return Ids(min(feature.num_embeddings, MOST_DISTINCT), strict=True)


def _generated(feature: BaseFeature) -> Domain:
    """What feature generation gave before ids were made."""
    if feature.kind == "tokenize_feature":
        return Ids(feature.num_embeddings, strict=True)
    operator = feature.handler.operators[-1]
    return domain_of(operator.spec, numeric=operator.numeric)
