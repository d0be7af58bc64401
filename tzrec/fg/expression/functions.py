"""Functions of the expression language (fg.md §11); all compute in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CONSTANTS = {"_pi": math.pi, "_e": math.e}
EARTH_RADIUS_KM = 6371.0


@dataclass(frozen=True)
class Function:
    """A function and how many arguments it takes, most None = any number."""

    compute: Callable[..., Any]
    arity: tuple[int, int | None]


def great_circle_km(lng1: Floats, lat1: Floats, lng2: Floats, lat2: Floats) -> Floats:
    """Returns the distance of points in degrees on a sphere of radius 6371 km (haversine)."""
    lng1, lat1, lng2, lat2 = (np.radians(x) for x in (lng1, lat1, lng2, lat2))
    chord = (
        np.sin((lat2 - lat1) / 2) ** 2
        + np.cos(lat1) * np.cos(lat2) * np.sin((lng2 - lng1) / 2) ** 2
    )
    return np.asarray(2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(chord, 0, 1))))


def round_half_away(x: Floats) -> Floats:
    """Rounds to whole numbers, halves away from zero."""
    return np.asarray(np.copysign(np.floor(np.abs(x) + 0.5), x))


def _sigmoid(x: Floats) -> Floats:
    small = np.exp(-np.abs(x))  # never overflows
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def _round_to(x: Floats, places: Floats) -> Floats:
    scale = np.power(10.0, places)
    return round_half_away(x * scale) / scale


def _fold(pair: Callable[[Floats, Floats], Floats]) -> Callable[..., Floats]:
    def fold(*values: Floats) -> Floats:
        result = values[0]
        for value in values[1:]:
            result = pair(result, value)
        return result

    return fold


def _average(*values: Floats) -> Floats:
    return _fold(np.add)(*values) / len(values)


def _random(*values: Floats) -> Floats:
    raise AssertionError(f"rnd is evaluated by Expression, not here: {values}")


def _truth(condition: Any) -> Floats:
    return np.asarray(condition, dtype=np.float64)


OPERATORS: dict[str, Callable[..., Any]] = {
    "||": lambda a, b: _truth((a != 0) | (b != 0)),
    "&&": lambda a, b: _truth((a != 0) & (b != 0)),
    "|": lambda a, b: _whole(a, b, np.bitwise_or),
    "&": lambda a, b: _whole(a, b, np.bitwise_and),
    "<=": lambda a, b: _truth(a <= b),
    ">=": lambda a, b: _truth(a >= b),
    "!=": lambda a, b: _truth(a != b),
    "==": lambda a, b: _truth(a == b),
    ">": lambda a, b: _truth(a > b),
    "<": lambda a, b: _truth(a < b),
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "^": np.power,
    "unary -": np.negative,
    "unary !": lambda a: _truth(a == 0),
    "?:": lambda condition, a, b: np.where(condition != 0, a, b),
}


def _whole(a: Floats, b: Floats, pair: Callable[..., Any]) -> Floats:
    """Computes with the integer parts; nan and what does not fit into 63 bits count as 0."""

    def integers(x: Floats) -> NDArray[np.int64]:
        fits = np.abs(x) < 2.0**63
        return np.where(fits, x, 0).astype(np.int64)

    return np.asarray(pair(integers(a), integers(b)), dtype=np.float64)


_ONE: dict[str, Callable[..., Any]] = {
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "log2": np.log2,
    "log10": np.log10,
    "log": np.log,
    "ln": np.log,
    "exp": np.exp,
    "sqrt": np.sqrt,
    "sign": np.sign,
    "abs": np.abs,
    "rint": np.rint,
    "floor": np.floor,
    "ceil": np.ceil,
    "trunc": np.trunc,
    "round": round_half_away,
    "sigmoid": _sigmoid,
    "isnan": lambda x: _truth(np.isnan(x)),
}

FUNCTIONS: dict[str, Function] = {
    **{name: Function(compute, (1, 1)) for name, compute in _ONE.items()},
    "rnd": Function(_random, (0, 1)),
    "roundp": Function(_round_to, (2, 2)),
    "mod": Function(np.fmod, (2, 2)),
    "sphere_dist": Function(great_circle_km, (4, 4)),
    "haversine": Function(great_circle_km, (4, 4)),
    "min": Function(_fold(np.minimum), (1, None)),
    "max": Function(_fold(np.maximum), (1, None)),
    "sum": Function(_fold(np.add), (1, None)),
    "avg": Function(_average, (1, None)),
}


class Segments:
    """Sums and their like over the cells of flat values.

    Args:
        lengths: int (cells,) values per cell.
    """

    def __init__(self, lengths: NDArray[Any]) -> None:
        self.lengths = lengths
        self._full = lengths > 0
        ends = np.cumsum(lengths)
        self._starts = (ends - lengths)[self._full]

    def reduce(self, how: np.ufunc, values: Floats, empty: float) -> Floats:
        """Returns ``how`` over each cell's values, ``empty`` where there are none."""
        result = np.full(len(self.lengths), empty)
        if len(self._starts):
            result[self._full] = how.reduceat(values, self._starts)
        return result

    def sum(self, values: Floats) -> Floats:
        """Returns the sum of each cell."""
        return self.reduce(np.add, values, 0.0)

    def mean(self, values: Floats) -> Floats:
        """Returns the mean of each cell, nan where it has no values."""
        return self.sum(values) / np.where(self._full, self.lengths, np.nan)

    def centred(self, values: Floats) -> Floats:
        """Returns values minus their cell's mean."""
        return values - np.repeat(self.mean(values), self.lengths)


def _variance(cells: Segments, x: Floats) -> Floats:
    return cells.mean(cells.centred(x) ** 2)


def _variance_less_one(cells: Segments, x: Floats) -> Floats:
    return cells.sum(cells.centred(x) ** 2) / (cells.lengths - 1)


def _correlation(cells: Segments, x: Floats, y: Floats) -> Floats:
    x, y = cells.centred(x), cells.centred(y)
    return cells.sum(x * y) / np.sqrt(cells.sum(x * x) * cells.sum(y * y))


# Each takes the cells and one or two flat vectors, and returns one number per cell. std_dev and
# variance divide by n, their pop_ forms by n - 1: so the interface documents them.
VECTOR_FUNCTIONS: dict[str, Function] = {
    "len": Function(lambda c, x: c.lengths.astype(np.float64), (1, 1)),
    "l2_norm": Function(lambda c, x: np.sqrt(c.sum(x * x)), (1, 1)),
    "squared_norm": Function(lambda c, x: c.sum(x * x), (1, 1)),
    "dot": Function(lambda c, x, y: c.sum(x * y), (2, 2)),
    "euclid_dist": Function(lambda c, x, y: np.sqrt(c.sum((x - y) ** 2)), (2, 2)),
    "corr": Function(_correlation, (2, 2)),
    "std_dev": Function(lambda c, x: np.sqrt(_variance(c, x)), (1, 1)),
    "variance": Function(_variance, (1, 1)),
    "pop_std_dev": Function(lambda c, x: np.sqrt(_variance_less_one(c, x)), (1, 1)),
    "pop_variance": Function(_variance_less_one, (1, 1)),
    "reduce_min": Function(lambda c, x: c.reduce(np.minimum, x, np.nan), (1, 1)),
    "reduce_max": Function(lambda c, x: c.reduce(np.maximum, x, np.nan), (1, 1)),
    "reduce_sum": Function(lambda c, x: c.sum(x), (1, 1)),
    "reduce_mean": Function(lambda c, x: c.mean(x), (1, 1)),
    "reduce_prod": Function(lambda c, x: c.reduce(np.multiply, x, 1.0), (1, 1)),
}
