"""How the values of a cell become one number: the names, and what the kernels call them."""

from __future__ import annotations

from collections.abc import Mapping

from tzrec.errors import ConfigError, did_you_mean

SUM, MEAN, MIN, MAX, COUNT, GAP_MIN, GAP_MAX = range(7)

COMBINERS: Mapping[str, int] = {
    "sum": SUM,
    "mean": MEAN,
    "avg": MEAN,
    "min": MIN,
    "max": MAX,
    "count": COUNT,
    "gap_min": GAP_MIN,
    "gap_max": GAP_MAX,
}


def combiner_number(name: str, *, or_none: bool = False) -> int:
    """Returns the number of a combiner.

    Args:
        name: in any case.
        or_none: the feature could do without one; the error says so.

    Raises:
        ConfigError: there is no such combiner.
    """
    small = name.lower()
    if small not in COMBINERS:
        names = ", ".join(COMBINERS) + (' or ""' if or_none else "")
        raise ConfigError(
            f"combiner is {name!r}, must be one of {names}{did_you_mean(small, COMBINERS)}"
        )
    return COMBINERS[small]
