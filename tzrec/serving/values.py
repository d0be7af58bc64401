"""JSON values of a column → an Arrow array of its type, strictly.

Nothing is converted that a client did not mean: no text becomes a number, no number a text, no
fraction an integer, no text a list of characters. The good path looks at the kinds of all values
at once; only a column that is refused is walked through, to name the first bad value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from tzrec.serving.errors import RequestError, invalid
from tzrec.serving.json_body import kind_of, shorten
from tzrec.serving.options import ServeOptions
from tzrec.serving.schema import Column

Place = Callable[[int], str]

_NONE = type(None)
_INTEGER_KEY = re.compile(r"-?\d{1,19}")
# Larger ones lost digits on their way: JSON integers beyond 64 bits arrive as floats.
_EXACT = 2.0**53
# The largest number that rounds to a float32; clients write its largest as 3.4028235e38.
FLOAT32_MOST = float(np.nextafter(2.0**128 - 2.0**103, 0))


class _OddError(Exception):
    """A value is not of the type; which one is not known yet."""


def read_values(
    values: Sequence[Any], column: Column, place: Place, options: ServeOptions
) -> pa.Array:
    """Returns the values as an array of the column's type.

    Args:
        values: of JSON, one a row.
        column: what they must be.
        place: row → where in the request, for errors.
        options: limits of texts and nesting.

    Raises:
        RequestError: 422 that names the first value that is not as it must be.
    """
    try:
        array = _convert(values, column.type, options)
        if array.null_count and not column.nullable:
            raise _OddError
    except (_OddError, pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise _explain(values, column, place, options, error) from None
    return array


def _convert(values: Sequence[Any], wanted: pa.DataType | None, options: ServeOptions) -> pa.Array:
    if wanted is not None and types.is_string(wanted):
        # Arrow takes nothing else of JSON for a text.
        return _bounded(pa.array(values, wanted), options)
    kinds = set(map(type, values))
    if wanted is None:
        return _any(values, kinds, options)
    if types.is_integer(wanted):
        if float in kinds:
            values = [whole(value) for value in values]
            kinds = set(map(type, values))
        if not kinds <= {int, _NONE}:
            raise _OddError
        return pa.array(values, wanted)
    if types.is_floating(wanted):
        return _floats(values, kinds, wanted)
    if types.is_map(wanted):
        return _maps(values, kinds, wanted, options)
    if not kinds <= {list, _NONE}:
        raise _OddError
    inner = _convert(list(chain.from_iterable(filter(None, values))), wanted.value_type, options)
    return pa.ListArray.from_arrays(_offsets(values), inner, type=wanted)


def _any(values: Sequence[Any], kinds: set[type], options: ServeOptions) -> pa.Array:
    """Returns values of a column whose type nobody knows, as Arrow understands them."""
    lists = (value for value in values if type(value) is list)
    if dict in kinds or any(_problem_of_any(value, _depth(value), options) for value in lists):
        raise _OddError
    array = pa.array(values)
    leaf = array
    while types.is_list(leaf.type):
        leaf = leaf.flatten()
    if types.is_string(leaf.type):
        _bounded(leaf, options)
    return array


def whole(value: Any) -> Any:
    """Returns a float without a fraction as an integer, as JSON does not tell 5.0 from 5."""
    if type(value) is float and value.is_integer() and abs(value) <= _EXACT:
        return int(value)
    return value


def _floats(values: Sequence[Any], kinds: set[type], wanted: pa.DataType) -> pa.Array:
    if not kinds <= {float, int, _NONE}:
        raise _OddError
    if int in kinds:
        # Arrow refuses integers that a float cannot hold exactly.
        values = [None if value is None else float(value) for value in values]
    array = pa.array(values, wanted)
    if wanted != pa.float64():
        numbers = array.drop_null() if array.null_count else array
        if not np.isfinite(numbers.to_numpy(zero_copy_only=False)).all():
            raise _OddError
    return array


def _maps(
    values: Sequence[Any], kinds: set[type], wanted: pa.DataType, options: ServeOptions
) -> pa.Array:
    if not kinds <= {dict, _NONE}:
        raise _OddError
    present = [value for value in values if value]
    keys: list[Any] = list(chain.from_iterable(present))
    if types.is_integer(wanted.key_type):
        if not all(map(_INTEGER_KEY.fullmatch, keys)):
            raise _OddError
        keys = [int(key) for key in keys]
    items = list(chain.from_iterable(value.values() for value in present))
    return pa.MapArray.from_arrays(
        _offsets(values),
        _convert(keys, wanted.key_type, options),
        _convert(items, wanted.item_type, options),
        type=wanted,
    )


def _offsets(values: Sequence[Any]) -> pa.Array:
    """Returns where the flattened values of each row begin, null for null rows."""
    offsets = np.zeros(len(values) + 1, np.int32)
    lengths = [0 if value is None else len(value) for value in values]
    np.cumsum(lengths, out=offsets[1:])
    missing = None
    if None in values:
        missing = np.array([*(value is None for value in values), False])
    return pa.array(offsets, mask=missing)


def _bounded(texts: pa.Array, options: ServeOptions) -> pa.Array:
    if is_too_long(texts, options.max_text):
        raise _OddError
    return texts


def is_too_long(texts: pa.Array, most: int) -> bool:
    """Returns whether one of the texts has more characters."""
    data = texts.buffers()[-1]
    if data is None or data.size <= most:
        return False
    return bool((pc.max(pc.utf8_length(texts)).as_py() or 0) > most)


def _explain(
    values: Sequence[Any], column: Column, place: Place, options: ServeOptions, error: Exception
) -> RequestError:
    """Returns the error of the first value that is wrong."""
    for row, value in enumerate(values):
        if value is None:
            if not column.nullable:
                return invalid("null", "must not be null", place(row))
            continue
        found = _problem(value, column.type, options)
        if found is not None:
            code, message, hint = found
            return invalid(code, f"{column.name}: {message}", place(row), hint)
    # Only together are they wrong: values of an unknown type that do not fit each other.
    return invalid("wrong_type", f"{column.name}: {error}", place(0).partition("[")[0])


_Problem = tuple[str, str, str]


def _problem(value: Any, wanted: pa.DataType | None, options: ServeOptions) -> _Problem | None:
    if value is None:
        return None
    depth = _depth(value, options.max_depth + 1)
    if depth > options.max_depth:
        return "too_deep", f"nests deeper than {options.max_depth}", ""
    if type(value) is str and len(value) > options.max_text:
        return "text_too_long", f"has {len(value)} characters; at most {options.max_text} may", ""
    if wanted is None:
        return _problem_of_any(value, depth, options)
    if types.is_string(wanted):
        hint = f'write "{value}"' if type(value) in (int, float) else ""
        return None if type(value) is str else _wrong(value, "a text", hint)
    if types.is_integer(wanted):
        return _integer_problem(value, wanted)
    if types.is_floating(wanted):
        return _float_problem(value, wanted)
    if types.is_map(wanted):
        return _map_problem(value, wanted, options)
    if type(value) is not list:
        return _wrong(value, f"a list ({wanted})")
    return _first_problem(value, wanted.value_type, options)


def _problem_of_any(value: Any, depth: int, options: ServeOptions) -> _Problem | None:
    if type(value) is dict or depth > 2:
        return _wrong(value, "a number, a text, or a list of these")
    return _first_problem(value, None, options) if type(value) is list else None


def _first_problem(
    values: Iterable[Any], wanted: pa.DataType | None, options: ServeOptions
) -> _Problem | None:
    return next(filter(None, (_problem(one, wanted, options) for one in values)), None)


def _integer_problem(value: Any, wanted: pa.DataType) -> _Problem | None:
    value = whole(value)
    if type(value) is float and value.is_integer():
        return _out_of_range(value, wanted)
    if type(value) is not int:
        hint = "true and false are 1 and 0" if type(value) is bool else ""
        return _wrong(value, "an integer", hint)
    bits = wanted.bit_width - 1
    return None if -(1 << bits) <= value < 1 << bits else _out_of_range(value, wanted)


def _float_problem(value: Any, wanted: pa.DataType) -> _Problem | None:
    if type(value) not in (int, float):
        hint = "true and false are 1 and 0" if type(value) is bool else ""
        return _wrong(value, "a number", hint)
    most = FLOAT32_MOST if wanted.bit_width == 32 else math.inf
    return None if abs(value) <= most else _out_of_range(value, wanted)


def _map_problem(value: Any, wanted: pa.DataType, options: ServeOptions) -> _Problem | None:
    if type(value) is not dict:
        return _wrong(value, f"an object ({wanted})")
    for key in value:
        if not types.is_integer(wanted.key_type):
            found = _problem(key, wanted.key_type, options)
        elif _INTEGER_KEY.fullmatch(key):
            found = _problem(int(key), wanted.key_type, options)
        else:
            return "wrong_type", f"has the key {shorten(key)!r}, must be an integer", ""
        if found is not None:
            return found
    return _first_problem(value.values(), wanted.item_type, options)


def _wrong(value: Any, wanted: str, hint: str = "") -> _Problem:
    return "wrong_type", f"is {kind_of(value)}, must be {wanted}", hint


def _out_of_range(value: Any, wanted: pa.DataType) -> _Problem:
    return "out_of_range", f"is {value}, outside the range of {wanted}", ""


def _depth(value: Any, most: int = 3) -> int:
    """Returns how deep lists and objects nest, counted up to ``most``."""
    if most == 0 or type(value) not in (list, dict):
        return 0
    inner = value if type(value) is list else value.values()
    return 1 + max((_depth(one, most - 1) for one in inner), default=0)
