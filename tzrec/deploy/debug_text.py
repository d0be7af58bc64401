"""The column ``__features__``: what the model saw of each row, as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from tzrec.batch import Batch
from tzrec.deploy.columns import lists_of
from tzrec.deploy.golden import to_numpy

DEBUG_COLUMN = "__features__"
_MULTI, _FEATURES = ",", " | "


def features_text(batch: Batch, features: Sequence[Any]) -> pa.Array:
    """Returns one text a row: ``name:v1,v2 | name2:v1``.

    Values of a step are joined by ``,``, steps of a sequence by its delimiter; weighted values
    are ``value:weight``, sorted as text.

    Args:
        batch: parsed rows.
        features: which to show, in this order; needs ``name``, ``is_weighted``,
            ``is_sequence`` and ``sequence_delim``.
    """
    flat = batch.to_dict()
    parts = []
    for feature in features:
        name = feature.name
        if f"{name}.values" in flat:
            text = _sequence(flat, feature) if feature.is_sequence else _scalar(flat, feature)
            parts.append(pc.binary_join_element_wise(f"{name}:", text, ""))
    return pc.binary_join_element_wise(*parts, _FEATURES)


def _scalar(flat: dict[str, Tensor], feature: Any) -> pa.Array:
    values = flat[f"{feature.name}.values"]
    lengths = flat.get(f"{feature.name}.lengths")
    if lengths is None:
        return _steps(values)
    texts = _text(values)
    if not feature.is_weighted:
        return _join(texts, to_numpy(lengths), _MULTI)
    weights = _text(flat[f"{feature.name}.weights"])
    pairs = pc.binary_join_element_wise(texts, weights, ":")
    rows = lists_of(pairs, to_numpy(lengths)).to_pylist()
    return pa.array([_MULTI.join(sorted(row)) for row in rows], pa.string())


def _sequence(flat: dict[str, Tensor], feature: Any) -> pa.Array:
    values = flat[f"{feature.name}.values"]
    key_lengths = flat.get(f"{feature.name}.key_lengths")
    if key_lengths is not None:
        steps = _join(_text(values), to_numpy(key_lengths), _MULTI)
    else:
        steps = _steps(values)
    lengths = to_numpy(flat[f"{feature.name}.lengths"])
    return _join(steps, lengths, feature.sequence_delim or ";")


def _steps(values: Tensor) -> pa.Array:
    """Returns one text for each index of the first dimension."""
    if values.dim() == 1:
        return _text(values)
    return _join(_text(values.flatten()), np.full(values.shape[0], values.shape[1]), _MULTI)


def _text(values: Tensor) -> pa.Array:
    texts = pa.array(to_numpy(values)).cast(pa.string())
    if values.is_floating_point():
        # Whole numbers as Python writes them: 7.0.
        texts = pc.replace_substring_regex(texts, r"^(-?[0-9]+)$", r"\1.0")
    return texts


def _join(texts: pa.Array, lengths: np.ndarray, separator: str) -> pa.Array:
    return pc.binary_join(lists_of(texts, lengths), separator)
