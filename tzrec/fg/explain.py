"""What each feature becomes of one row, step by step, as text."""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from tzrec.fg.graph import sources
from tzrec.fg.handler import FgHandler
from tzrec.fg.operators.base import Operator
from tzrec.fg.ragged import Ragged, Text

_MOST_VALUES = 20
_MOST_CHARACTERS = 60
_NOTHING = "(missing)"


def explain(
    handler: FgHandler, columns: Mapping[str, Any], features: Collection[str] = ()
) -> list[str]:
    """Generates the features of one row and says how.

    Args:
        handler: feature generation.
        columns: column → array of one row.
        features: what to show, with the features that these read; none = all.

    Returns:
        Lines of text: for each feature its inputs as they are and as they are read, what its
        operator makes of them, and the ids or numbers in the end. Values of a row are separated
        by ``|``, steps of a sequence by ``;``.

    Raises:
        DataError: a column is missing.
        FeatureError: a column or value cannot be read.
    """
    lines: dict[str, list[str]] = {}
    lock = threading.Lock()

    def compute(operator: Operator, inputs: Sequence[Ragged]) -> Ragged:
        found, final = operator.run(inputs), operator.finish(inputs)
        steps = [*_inputs(operator, inputs, columns), *_outcome(operator, inputs, found, final)]
        with lock:
            lines[operator.spec.name] = [_title(operator), *_aligned(steps), ""]
        return final

    handler.generate(columns, compute=compute)
    shown = _with_sources(handler, features)
    names = [operator.spec.name for operator in handler.operators]
    return [line for name in names if name in shown for line in lines[name]][:-1]


def _with_sources(handler: FgHandler, features: Collection[str]) -> set[str]:
    operators = {operator.spec.name: operator for operator in handler.operators}
    shown: set[str] = set()
    pending = list(features or operators)
    while pending:
        name = pending.pop()
        if name not in shown:
            shown.add(name)
            pending += sources(operators[name])
    return shown


def _title(operator: Operator) -> str:
    spec, bucketize = operator.spec, operator.tail.bucketize
    words = [f"sequence of {spec.kind}" if spec.is_sequence else spec.kind]
    if bucketize is not None:
        size = f" {bucketize.buckets}" if hasattr(bucketize, "buckets") else ""
        words.append(f"{bucketize.kind}{size}")
    if spec.stub:
        words.append("stub")
    return f"{spec.name}  ({', '.join(words)})"


def _inputs(
    operator: Operator, inputs: Sequence[Ragged], columns: Mapping[str, Any]
) -> list[tuple[str, str, str]]:
    """Returns (what, as given, as read) of each input."""
    found = []
    for wanted, cells in zip(operator.inputs, inputs, strict=True):
        raw = ""
        if wanted.side not in ("feature", "const"):
            raw = _short(json.dumps(columns[wanted.source].to_pylist()[0], **_JSON))
        found.append((f"{wanted.side}:{wanted.source}", raw, show(cells)))
    return found


def _outcome(
    operator: Operator, inputs: Sequence[Ragged], found: Ragged, final: Ragged
) -> list[tuple[str, str, str]]:
    """Returns (what, "", values) of the operator and of the tail."""
    steps, bucketize = [], operator.tail.bucketize
    if len(inputs) > 1 or show(inputs[0]) != show(found):
        steps.append(("result", "", show(found)))
    if bucketize is not None and bucketize.prefix and len(found.lengths):
        steps.append(("hashed", "", show(found, bucketize.prefix)))
    if _filled(found, final):
        default = operator.spec.default or "0"
        steps.append(("default", "", json.dumps(default, ensure_ascii=False)))
    values = show(final)
    unknown = bucketize.unknown(found) if bucketize is not None else 0
    if unknown:
        values += f"  ({unknown} unknown)"
    is_ids = bucketize is not None or operator.kind == "tokenize_feature"
    kind = "number" if operator.numeric else "text"
    steps.append(("id" if is_ids else kind, "", values))
    return steps


def _filled(found: Ragged, final: Ragged) -> bool:
    """Tells whether the tail gave values to what had none."""
    missing = int(np.count_nonzero(found.lengths == 0)) or int(not len(found.lengths))
    return missing > int(np.count_nonzero(final.lengths == 0))


def show(cells: Ragged, prefix: str = "") -> str:
    """Returns the cells of one row as text, a prefix before each value."""
    ends = np.cumsum(cells.lengths)
    steps = [
        _NOTHING if start == end else " | ".join(_values(cells, int(start), int(end), prefix))
        for start, end in zip(ends - cells.lengths, ends, strict=True)
    ]
    if not steps:
        return "(no steps)"
    more = f" ; … {len(steps)} steps" if len(steps) > _MOST_VALUES else ""
    return " ; ".join(steps[:_MOST_VALUES]) + more


def _values(cells: Ragged, start: int, end: int, prefix: str) -> list[str]:
    shown = []
    for position in range(start, min(end, start + _MOST_VALUES)):
        text = prefix + _value(cells.values, position)
        if cells.keys is not None:
            text = f"{_value(cells.keys, position)}:{text}"
        if cells.weights is not None:
            text += f":{cells.weights[position]:g}"
        shown.append(text)
    if end - start > _MOST_VALUES:
        shown.append(f"… {end - start} values")
    return shown


def _value(values: Any, position: int) -> str:
    if isinstance(values, Text):
        return _short(values.show(position))
    return str(values[position])


def _short(text: str) -> str:
    clean = text if text.isprintable() else json.dumps(text, ensure_ascii=False)[1:-1]
    return clean if len(clean) <= _MOST_CHARACTERS else f"{clean[: _MOST_CHARACTERS - 1]}…"


def _aligned(steps: Sequence[tuple[str, str, str]]) -> list[str]:
    first = max(len(what) for what, _, _ in steps)
    second = max(len(raw) for _, raw, _ in steps)
    return [
        f"  {what.ljust(first)}  {raw.ljust(second)}  {'→' if raw else ' '} {value}".rstrip()
        for what, raw, value in steps
    ]


_JSON: dict[str, Any] = {"ensure_ascii": False, "default": str}
