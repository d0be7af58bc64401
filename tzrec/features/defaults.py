"""What a missing value becomes in FG_NONE."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tzrec.config.feature_facts import GROWING
from tzrec.errors import ConfigError
from tzrec.features import generation
from tzrec.fg.handler import FgHandler

if TYPE_CHECKING:
    from tzrec.features.base import BaseFeature

_FIELD = "fg_encoded_default_value"


def encoded_default(feature: BaseFeature) -> list[int] | list[float] | None:
    """Returns the ids or numbers of a missing value, None to leave it empty.

    ``fg_encoded_default_value`` is already encoded, several values separated as in columns. Where
    it is not written and masks need one, `generated_default` says it.

    Raises:
        ConfigError: the text is no list of ids of the table, or of value_dim numbers.
    """
    config = feature.config
    if not config.HasField(_FIELD):
        return generated_default(feature) if feature.use_mask else None
    text = str(config.fg_encoded_default_value)
    if not text:
        return None
    tokens = text.split(feature.fg_encoded_multival_sep)
    try:
        if not feature.is_sparse:
            return _checked_numbers(feature, [float(token) for token in tokens])
        return _checked_ids(feature, [int(token) for token in tokens])
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        kind = "an id" if feature.is_sparse else "a number"
        raise ConfigError(
            f"{_FIELD} is {text!r}, must be {kind} (several are separated by "
            f"{feature.fg_encoded_multival_sep!r})",
            hint="it stands for a value that is already an id or number, not for a raw one",
        ) from error


def _checked_ids(feature: BaseFeature, ids: list[int]) -> list[int]:
    maker = feature.bucketizer
    rows = maker.rows if maker is not None and maker.kind not in GROWING else None
    bad = [number for number in ids if number < 0 or (rows is not None and number >= rows)]
    if bad:
        limit = f"0 to {rows - 1}" if rows is not None else "not negative"
        raise ConfigError(f"{_FIELD} holds id {bad[0]}, which is not in the table ({limit})")
    return ids


def _checked_numbers(feature: BaseFeature, numbers: list[float]) -> list[float]:
    if len(numbers) != feature.value_dim:
        raise ConfigError(
            f"{_FIELD} holds {len(numbers)} numbers, but value_dim is {feature.value_dim}"
        )
    if not all(math.isfinite(number) for number in numbers):
        raise ConfigError(f"{_FIELD} holds {numbers}, must be finite")
    return numbers


def generated_default(feature: BaseFeature) -> list[int] | list[float] | None:
    """Returns what feature generation makes of a row without any value.

    Raises:
        ConfigError: the feature's default cannot be generated.
    """
    try:
        handler = FgHandler(generation.fg_json([feature]), farm_hash=feature.farm_hash)
    except ConfigError as error:
        raise ConfigError(
            f"use_mask needs a default, and there is none: {error.message}",
            hint=f"set {_FIELD} to the id or numbers of a masked row",
        ) from error
    nothing = {name: pa.array([None], pa.string()) for name in handler.columns}
    values = handler.process_arrow(nothing)[feature.name].values.reshape(-1)
    if values.dtype == np.float32:
        # The shortest text of a float32 is what the config says.
        return [float(str(value)) for value in values]
    return values.tolist() or None
