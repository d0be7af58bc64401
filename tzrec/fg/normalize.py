"""Normalizers: ``method=log10,threshold=0.05,default=-5`` and their like (fg.md §7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tzrec.errors import ConfigError, did_you_mean

Normalizer = Callable[[NDArray[Any]], NDArray[Any]]

_KEYS: dict[str, dict[str, float | None]] = {
    "log10": {"threshold": 1.0, "default": 0.0},
    "zscore": {"mean": None, "standard_deviation": None},
    "minmax": {"min": None, "max": None},
    "expression": {},
}


def parse_normalizer(text: str) -> Normalizer | None:
    """Returns the function of a ``normalizer`` text, None for "".

    ======================================  ==========================================
    log10, threshold t (1), default d (0)   x > t ? log10(x) : d
    zscore, mean m, standard_deviation s    (x - m) / s
    minmax, min a, max b                    (x - a) / (b - a), not clipped
    expression, expr E                      E, an expression with the variable x
    ======================================  ==========================================

    It computes in the precision of its argument, float32 or float64; inf and nan are results
    like others.

    Raises:
        ConfigError: the method is unknown, a key is missing or no number.
    """
    if not text:
        return None
    formula = _parse(text)

    def normalize(x: NDArray[Any]) -> NDArray[Any]:
        with np.errstate(all="ignore"):
            return formula(x)

    return normalize


def _parse(text: str) -> Normalizer:
    head, _, rest = text.partition(",")
    key, _, method = (part.strip() for part in head.partition("="))
    if key != "method" or method not in _KEYS:
        raise ConfigError(
            f"normalizer {text!r} must begin with method=; methods are {', '.join(_KEYS)}"
            f"{did_you_mean(method, _KEYS)}"
        )
    if method == "expression":
        return _expression(text, rest)
    known = _KEYS[method]
    numbers = dict(known)
    for part in filter(None, (part.strip() for part in rest.split(","))):
        name, found, value = (piece.strip() for piece in part.partition("="))
        if not found or name not in known:
            raise ConfigError(
                f"normalizer {text!r}: {part!r} is unknown; {method} takes {', '.join(known)}"
                f"{did_you_mean(name, known)}"
            )
        try:
            numbers[name] = float(value)
        except ValueError:
            raise ConfigError(f"normalizer {text!r}: {value!r} is not a number") from None
    missing = [name for name, value in numbers.items() if value is None]
    if missing:
        raise ConfigError(f"normalizer {text!r} lacks {', '.join(missing)}")
    return _formula(text, method, {name: float(value or 0) for name, value in numbers.items()})


def _formula(text: str, method: str, of: dict[str, float]) -> Normalizer:
    if method == "log10":
        threshold, default = of["threshold"], of["default"]

        def log10(x: NDArray[Any]) -> NDArray[Any]:
            above = x > threshold
            logs = np.log10(np.where(above, x, 1), dtype=x.dtype)
            return np.where(above, logs, x.dtype.type(default))

        return log10
    shift, scale = (
        (of["mean"], of["standard_deviation"])
        if method == "zscore"
        else (of["min"], of["max"] - of["min"])
    )
    if scale == 0:
        raise ConfigError(f"normalizer {text!r} divides by zero")
    return lambda x: (x - x.dtype.type(shift)) / x.dtype.type(scale)


def _expression(text: str, rest: str) -> Normalizer:
    from tzrec.fg.expression import Expression

    key, found, source = rest.partition("=")
    if key.strip() != "expr" or not found:
        raise ConfigError(f"normalizer {text!r} must go on with expr=")
    try:
        expression = Expression.parse(source)
    except ConfigError as error:
        raise ConfigError(f"normalizer: {error.message}", hint=error.hint) from error
    if expression.variables - {"x"}:
        unknown = ", ".join(sorted(expression.variables - {"x"}))
        raise ConfigError(f"normalizer {text!r} has the variable {unknown}; there is only x")
    return lambda x: expression.evaluate({"x": x.astype(np.float64)}).astype(x.dtype)
