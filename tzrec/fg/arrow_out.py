"""Generated features as Arrow columns: what offline feature generation writes.

``encoded`` columns are those that ``FG_NONE`` reads (ids and numbers), ``unbucketized`` ones
those of ``FG_BUCKETIZE`` (values before ids). Both give the same batches as generating the
features when they are needed.

======================  =======================================  ============================
feature                 encoded                                  unbucketized
======================  =======================================  ============================
ids, at most one        int64, null = none                       list of text or numbers
ids, any number         list<int64>                              list of text or numbers
weighted ids            map<int64, float>                        map<text or number, float>
numbers, value_dim 1    float                                    float
numbers, more           list<float>                              list<float>
sequences               a list around it                         a list around it
======================  =======================================  ============================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tzrec.fg.handler import FgHandler
from tzrec.fg.kernels import kernels
from tzrec.fg.operators.base import Operator
from tzrec.fg.ragged import Lengths, Ragged, Text, as_float32

Generate = Callable[[FgHandler, Mapping[str, Any]], dict[str, pa.Array]]


def encoded(handler: FgHandler, columns: Mapping[str, Any]) -> dict[str, pa.Array]:
    """Generates features as columns for ``FG_NONE``.

    Args:
        handler: feature generation.
        columns: column → array of B rows.

    Returns:
        Feature → (B,) ids or numbers, without stubs.

    Raises:
        DataError: a column is missing.
        FeatureError: a column or value cannot be read.
    """
    results = handler.generate(columns)
    return {
        operator.spec.name: _column(results[operator.spec.name], operator.tail.most == 1)
        for operator in handler.operators
        if not operator.spec.stub
    }


def unbucketized(handler: FgHandler, columns: Mapping[str, Any]) -> dict[str, pa.Array]:
    """Generates features as columns for ``FG_BUCKETIZE``.

    Missing values stay missing: they get their default when ids are made, since the default of
    some kinds is turned into an id in another way than values. A feature that another one reads
    is finished for it, ids and all.

    Args:
        handler: feature generation, with everything that makes ids.
        columns: column → array of B rows.

    Returns:
        Feature → (B,) values, without stubs.

    Raises:
        DataError: a column is missing.
        FeatureError: a column or value cannot be read.
    """
    values: dict[str, Ragged] = {}
    needed = {i.source for o in handler.operators for i in o.inputs if i.side == "feature"}

    def compute(operator: Operator, inputs: Sequence[Ragged]) -> Ragged:
        name, tail = operator.spec.name, operator.tail
        if operator.spec.stub or tail.bucketize is None:
            found = values[name] = operator.finish(inputs)
            return found
        found = operator.run(inputs)
        values[name] = tail.values(found)
        return tail.finish(found) if name in needed else found

    handler.generate(columns, compute=compute)
    return {
        operator.spec.name: _values_column(operator, values[operator.spec.name])
        for operator in handler.operators
        if not operator.spec.stub
    }


def _values_column(operator: Operator, cells: Ragged) -> pa.Array:
    bucketize = operator.tail.bucketize
    if bucketize is None:
        return _column(cells, operator.tail.most == 1)
    if bucketize.kind == "boundaries" and not cells.is_text:
        # They are compared in float32.
        cells = cells.with_values(as_float32(cells.values))
    # A null in a column of numbers could mean 0, and text would be split once more.
    one = operator.tail.most == 1 and not operator.numeric and not cells.is_text
    return _column(cells, one)


def _column(cells: Ragged, at_most_one: bool) -> pa.Array:
    """Returns cells as a column.

    Args:
        cells: ids, numbers or text.
        at_most_one: no cell has more than one value, so that no lists are needed.
    """
    values = text_array(cells.values) if cells.is_text else pa.array(cells.values)
    if cells.weights is not None:
        items = pa.array(cells.weights, pa.float32())
        inner = pa.MapArray.from_arrays(_offsets(cells.lengths), values, items)
    elif at_most_one and not cells.is_text:
        inner = _scalars(cells.values, cells.lengths)
    else:
        inner = pa.ListArray.from_arrays(_offsets(cells.lengths), values)
    if cells.row_lengths is None:
        return inner
    return pa.ListArray.from_arrays(_offsets(cells.row_lengths), inner)


def _scalars(values: Any, lengths: Lengths) -> pa.Array:
    if len(values) == len(lengths):
        return pa.array(values)
    filled = np.zeros(len(lengths), values.dtype)
    filled[lengths > 0] = values
    return pa.array(filled, mask=lengths == 0)


def text_array(texts: Text) -> pa.Array:
    """Returns texts as a string array; bytes that are no UTF-8 stay what they are."""
    data, starts, ends = kernels().gather_text(texts.data, texts.starts, texts.ends)
    offsets = np.append(starts, ends[-1:] if len(ends) else 0)
    kind, width = (pa.string(), np.int32) if len(data) < 2**31 else (pa.large_string(), np.int64)
    buffers = [None, pa.py_buffer(offsets.astype(width)), pa.py_buffer(data)]
    return pa.Array.from_buffers(kind, len(starts), buffers)


def _offsets(lengths: Lengths) -> pa.Array:
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.array(offsets)
