"""Options of ``fg.json`` as the types that they must have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tzrec.errors import ConfigError

LARGEST_ID = (1 << 63) - 1


def whole(key: str, value: Any, *, least: int = 0, most: int = LARGEST_ID) -> int:
    """Returns a whole number.

    Raises:
        ConfigError: the value is none, or lies outside.
    """
    try:
        number = int(value)
        good = number == value or isinstance(value, str)
    except (TypeError, ValueError, OverflowError):
        good, number = False, 0
    if not good or number < least or number > most:
        wanted = f"at least {least}" if most == LARGEST_ID else f"from {least} to {most}"
        raise ConfigError(f"{key} is {value!r}, must be a whole number, {wanted}")
    return number


def number(key: str, value: Any) -> float:
    """Returns a number.

    Raises:
        ConfigError: the value is none.
    """
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{key} is {value!r}, must be a number") from None


def rising(key: str, values: Any) -> list[float]:
    """Returns numbers of which each is larger than the one before.

    Raises:
        ConfigError: they are not.
    """
    numbers = [number(f"{key}[{i}]", value) for i, value in enumerate(_list(key, values))]
    for i in range(len(numbers)):
        if math.isnan(numbers[i]):
            raise ConfigError(f"{key}[{i}] is nan, must be a number")
        if i and numbers[i] <= numbers[i - 1]:
            raise ConfigError(
                f"{key}[{i}] is {numbers[i]:g}, but the boundary before it is "
                f"{numbers[i - 1]:g}; they must rise"
            )
    return numbers


def texts(key: str, values: Any) -> list[str]:
    """Returns the values of a list as text.

    Raises:
        ConfigError: it is no list.
    """
    return [str(value) for value in _list(key, values)]


def mapping(key: str, values: Any) -> Mapping[str, Any]:
    """Returns an object.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{key} is {values!r}, must be an object {{word: number, …}}")
    return {str(word): value for word, value in values.items()}


def _list(key: str, values: Any) -> Sequence[Any]:
    if isinstance(values, (str, Mapping)) or not isinstance(values, Sequence):
        raise ConfigError(f"{key} is {values!r}, must be a list")
    return values
