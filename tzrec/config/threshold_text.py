"""``threshold_filtering_func`` texts: which ids of an interval a hash table takes notice of."""

from __future__ import annotations

import ast
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from tzrec.errors import ConfigError, did_you_mean

EXAMPLE = "for example lambda x: dynamic_threshold_filter(x, 10.0), or lambda x: (x > 3, 3)"

# Function → its argument after the counts, and the value that it has by default.
_FUNCTIONS: Mapping[str, tuple[str, float] | None] = {
    "dynamic_threshold_filter": ("threshold_skew_multiplier", 10.0),
    "average_threshold_filter": None,
    "probabilistic_threshold_filter": ("per_id_probability", 0.01),
}
_COMPARISONS: Mapping[type, str] = {ast.Gt: ">", ast.GtE: ">="}


@dataclasses.dataclass(frozen=True)
class Threshold:
    """A filter of ids by how often they came in an interval.

    Attributes:
        rule: ``dynamic_threshold_filter``, ``average_threshold_filter``,
            ``probabilistic_threshold_filter``, ``>`` or ``>=``.
        value: its number; 0 where it has none.
    """

    rule: str
    value: float


def read_threshold(text: str) -> Threshold | None:
    """Returns the filter that a text describes; None for ``""``.

    The text is parsed, never evaluated.

    Args:
        text: the name of a filter function, ``lambda x: NAME(x, NUMBER)``, or a comparison
            ``lambda x: (x > NUMBER, NUMBER)`` (also ``>=``).

    Raises:
        ConfigError: the text is none of these.
    """
    if not text.strip():
        return None
    try:
        tree: Any = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        why = str(error) or "too deep"
        raise _wrong(text, f"is no expression ({why})") from None
    if isinstance(tree, ast.Name):
        return _named(text, tree.id, None)
    if not isinstance(tree, ast.Lambda) or len(tree.args.args) != 1:
        raise _wrong(text, "is neither a filter function nor a lambda of the counts")
    counts, body = tree.args.args[0].arg, tree.body
    if isinstance(body, ast.Call):
        return _called(text, counts, body)
    if isinstance(body, ast.Tuple) and body.elts:
        body = body.elts[0]
    if isinstance(body, ast.Compare):
        return _compared(text, counts, body)
    raise _wrong(text, "does something else than calling a filter function or comparing counts")


def _named(text: str, name: str, value: float | None) -> Threshold:
    if name not in _FUNCTIONS:
        raise _wrong(text, f"names {name!r}{did_you_mean(name, _FUNCTIONS)}")
    argument = _FUNCTIONS[name]
    if argument is None:
        if value is not None:
            raise _wrong(text, f"gives {name} a number, it takes none")
        return Threshold(name, 0.0)
    value = argument[1] if value is None else value
    if value < 0 or (name.startswith("probabilistic") and value > 1):
        limit = "between 0 and 1" if name.startswith("probabilistic") else "not negative"
        raise _wrong(text, f"has {argument[0]} {value:g}, it must be {limit}")
    return Threshold(name, value)


def _called(text: str, counts: str, call: Any) -> Threshold:
    name = getattr(call.func, "id", getattr(call.func, "attr", ""))
    if name not in _FUNCTIONS:
        raise _wrong(text, f"calls {name!r}{did_you_mean(name, _FUNCTIONS)}")
    if not call.args or getattr(call.args[0], "id", None) != counts:
        raise _wrong(text, f"must hand {counts} to {name} first")
    argument = _FUNCTIONS[name]
    values = list(call.args[1:])
    for keyword in call.keywords:
        if argument is None or keyword.arg != argument[0]:
            raise _wrong(text, f"gives {name} {keyword.arg!r}")
        values.append(keyword.value)
    if len(values) > 1:
        raise _wrong(text, f"gives {name} {len(values)} numbers")
    return _named(text, name, _number(text, values[0]) if values else None)


def _compared(text: str, counts: str, compare: Any) -> Threshold:
    sign = _COMPARISONS.get(type(compare.ops[0])) if len(compare.ops) == 1 else None
    if sign is None or getattr(compare.left, "id", None) != counts:
        raise _wrong(text, f"must compare {counts} > NUMBER or {counts} >= NUMBER")
    return Threshold(sign, _number(text, compare.comparators[0]))


def _number(text: str, node: Any) -> float:
    try:
        value = ast.literal_eval(node)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        number = float(value) if is_number else math.nan
    except (ValueError, TypeError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise _wrong(text, f"has {ast.unparse(node)!r} where a number must be")
    return number


def _wrong(text: str, why: str) -> ConfigError:
    known = ", ".join(_FUNCTIONS)
    return ConfigError(
        f"threshold_filtering_func {text!r} {why}; it may name one of {known}, or compare counts",
        hint=EXAMPLE,
    )
