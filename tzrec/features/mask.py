"""Masks: rows in which training hides a feature's value (reference 02 §2.8)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tzrec.errors import DataError
from tzrec.fg.columns import plain

if TYPE_CHECKING:
    from tzrec.features.base import BaseFeature

SAMPLE_MASK = "__SAMPLE_MASK__"
NEG_SAMPLE_MASK = "__NEG_SAMPLE_MASK__"


def masks_of(
    features: Iterable[BaseFeature], input_data: Mapping[str, pa.Array]
) -> dict[str, NDArray[np.bool_]]:
    """Returns the rows that training hides, for each feature that uses masks.

    Args:
        features: any.
        input_data: columns, the mask columns among them; without these nothing is hidden.
    """
    masks: dict[str, NDArray[np.bool_]] = {}
    for feature in features:
        name = NEG_SAMPLE_MASK if feature.reads_sampled_rows else SAMPLE_MASK
        if feature.use_mask and name in input_data:
            hidden = pc.fill_null(plain(input_data[name]), False)
            masks[feature.name] = hidden.to_numpy(zero_copy_only=False)
    return masks


def hide_masked_rows(
    inputs: Sequence[str], reads_sampled_rows: bool, input_data: dict[str, pa.Array]
) -> dict[str, pa.Array]:
    """Returns the columns with nulls in the masked rows of one input.

    That is the first one that is no map; the first one, where all are maps.

    Args:
        inputs: columns of a feature.
        reads_sampled_rows: the sampler added rows to them, so the mask of all rows applies.
        input_data: column → array; without a mask column nothing is hidden.

    Raises:
        DataError: mask and column have different lengths.
    """
    mask = input_data.get(NEG_SAMPLE_MASK if reads_sampled_rows else SAMPLE_MASK)
    if mask is None:
        return input_data
    present = [name for name in inputs if name in input_data]
    others = [name for name in present if not pa.types.is_map(input_data[name].type)]
    chosen = next(iter([*others, *present]), None)
    if chosen is None:
        return input_data
    column = plain(input_data[chosen])
    if len(mask) != len(column):
        raise DataError(f"column {chosen!r} has {len(column)} rows, its mask {len(mask)}")
    hidden = pc.fill_null(plain(mask), False).to_numpy(zero_copy_only=False)
    shown = pa.array(np.arange(len(column)), mask=hidden)
    return {**input_data, chosen: column.take(shown)}
