"""The reference of feature generation: text, tokens, numbers, normalizers."""

import math
import re

import numpy as np

GS = "\x1d"


class Map(list):
    """The pairs of a map, in order."""


class F32(float):
    """A number of a float32 column."""


class BadValueError(Exception):
    """A value that the rules refuse."""


# Text, tokens, numbers


def text_of(value):
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if math.isnan(value):
            return "nan"
        if math.isinf(value):
            return "inf" if value > 0 else "-inf"
        if isinstance(value, F32):  # as few digits as tell float32 apart
            value = float(str(np.float32(value)))
        short = float.__repr__(value)
        return short[:-2] if short.endswith(".0") else short
    return value


def split(text, separator):
    parts = re.split("|".join({re.escape(GS), re.escape(separator)}), text)
    return [part for part in parts if part]


def is_missing(value):
    return value is None or value in ("", [])


def tokens(value, separator, *, whole=False):
    """The values of one cell; ``whole``: a text is one value."""
    if is_missing(value):
        return []
    if isinstance(value, list):
        return [item for item in value if not is_missing(item)]
    if isinstance(value, str):
        return [value] if whole else split(value, separator)
    return [value]


def number(value):
    if not isinstance(value, str):
        return float(value)
    # Python reads underlines and digits of other scripts, which are no decimal numbers.
    if not re.fullmatch(
        r"\s*[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan|inf(inity)?)\s*", value, re.I | re.A
    ):
        raise BadValueError(value)
    return float(value)


def pairs(value, separator, delimiter):
    """The key-value pairs of one cell, keys as text, values as text or number."""
    if is_missing(value):
        return []
    if isinstance(value, Map):
        return [(text_of(k), v) for k, v in value if v is not None]
    found = []
    for token in tokens(value, separator):
        key, _, rest = text_of(token).partition(delimiter)
        found.append((key, rest))
    return found


def as_number(value):
    """float32 for columns of numbers, float64 for text and double."""
    if isinstance(value, str):
        return np.float64(number(value))
    if isinstance(value, (bool, int, F32)):
        return np.float32(value)
    return np.float64(value)


def normalize(entry, value):
    text = entry.get("normalizer")
    if not text:
        return value
    options = dict(part.split("=") for part in text.split(","))
    of = value.dtype.type
    with np.errstate(all="ignore"):
        if options["method"] == "log10":
            threshold, default = (
                float(options.get(k, d)) for k, d in (("threshold", 1), ("default", 0))
            )
            return of(np.log10(value)) if value > of(threshold) else of(default)
        if options["method"] == "zscore":
            shift, scale = float(options["mean"]), float(options["standard_deviation"])
        else:
            shift = float(options["min"])
            scale = float(options["max"]) - shift
        return (value - of(shift)) / of(scale)
