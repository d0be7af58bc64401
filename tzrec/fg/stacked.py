"""Plain ids and numbers of small batches, made together: columns are stacked to one.

Most of what a feature of a few hundred rows costs is calls, not values. Columns of one type that
are read in one way are put one behind the other, read and computed once, and cut apart again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
import pyarrow as pa

from tzrec.errors import FeatureError
from tzrec.fg.bucketize import Bucketize
from tzrec.fg.operators.base import Operator
from tzrec.fg.ragged import Ragged, as_float32, take
from tzrec.fg.reading import read
from tzrec.fg.spec import READ_SIDES

# With more rows values cost more than calls, and stacking only copies them.
MOST_ROWS = 2048
_TYPES = frozenset(
    kind.id
    for kind in (
        *(pa.string(), pa.large_string(), pa.int32(), pa.int64()),
        *(pa.float32(), pa.float64()),
    )
)


class Stacks:
    """The features of a handler that may be made together.

    Args:
        operators: of the handler.
    """

    def __init__(self, operators: Sequence[Operator]) -> None:
        groups: dict[Any, list[Operator]] = {}
        for operator in operators:
            key = _key(operator)
            if key is not None:
                groups.setdefault(key, []).append(operator)
        self._groups = [group for group in groups.values() if len(group) > 1]

    def generate(self, columns: Mapping[str, Any]) -> dict[str, Ragged]:
        """Makes what it can of a batch; what is wrong in it is left for others to say.

        Args:
            columns: column → array.

        Returns:
            Feature → what `Operator.finish` gives.
        """
        found: dict[str, Ragged] = {}
        for group in self._groups:
            alike: dict[tuple[int, int], list[Operator]] = {}
            for operator in group:
                column = columns.get(operator.sources[0])
                if isinstance(column, pa.Array) and 0 < len(column) <= MOST_ROWS:
                    kind = column.type.id
                    if kind in _TYPES:
                        alike.setdefault((kind, len(column)), []).append(operator)
            for operators in alike.values():
                if len(operators) > 1:
                    found |= _generate(operators, [columns[o.sources[0]] for o in operators])
        return found


def _key(operator: Operator) -> Any:
    """Returns what features that are made together have in common; None for those that are not."""
    if not operator.is_elementwise or operator.spec.is_sequence or len(operator.reads) != 1:
        return None
    wanted, how = operator.reads[0]
    if wanted.side not in READ_SIDES or how.is_sequence:
        return None
    maker = operator.tail.bucketize
    makes = maker and (maker.kind, bool(maker.prefix))
    return type(operator), how, str(operator.spec.options.get("normalizer") or ""), makes


def _generate(operators: Sequence[Operator], columns: Sequence[pa.Array]) -> dict[str, Ragged]:
    try:
        cells = operators[0].run([read(pa.concat_arrays(columns), operators[0].reads[0][1], "")])
        return _finish(operators, cells)
    except (
        FeatureError,
        pa.ArrowInvalid,
    ):  # said again, better, where features are made one by one
        return {}


def _hashes(maker: Bucketize | None) -> TypeGuard[Bucketize]:
    return maker is not None and maker.kind == "hash_bucket_size" and not maker.prefix


def _has_more_to_do(operator: Operator) -> bool:
    """Returns whether the tail of a feature changes even cells of one value, or counts them."""
    return operator.tail.counts or operator.spec.value_dim > 1


def _finish(operators: Sequence[Operator], cells: Ragged) -> dict[str, Ragged]:
    """Returns the features of stacked columns."""
    lengths = cells.lengths.reshape(len(operators), -1)
    maker = operators[0].tail.bucketize
    is_hashed = _hashes(maker)  # then all are, as features are stacked by what makes their ids
    is_number = maker is None and operators[0].numeric
    if cells.single:
        singles = [True] * len(operators)
        bounds = np.arange(len(operators) + 1) * lengths.shape[1]
    else:
        singles = (lengths == 1).all(axis=1).tolist()
        bounds = np.append(0, np.cumsum(lengths.sum(axis=1, dtype=np.int64)))
    values = cells.values
    if _hashes(maker):
        buckets = [o.tail.bucketize.buckets for o in operators if o.tail.bucketize is not None]
        values = maker.hash_parts(values, bounds, buckets)
    elif is_number:
        values = as_float32(values)
    if cells.single and (is_hashed or is_number) and not any(map(_has_more_to_do, operators)):
        # Nothing is missing: these are the features, and most requests are so.
        parts = zip(operators, values.reshape(lengths.shape), lengths, strict=True)
        return {
            operator.spec.name: Ragged(part, ones, from_numbers=cells.from_numbers, single=True)
            for operator, part, ones in parts
        }
    found = {}
    ends = bounds.tolist()
    for i, operator in enumerate(operators):
        part = slice(ends[i], ends[i + 1])
        piece = Ragged(
            take(values, part),
            lengths[i],
            from_numbers=cells.from_numbers,
            single=singles[i],
        )
        tail = operator.tail
        found[operator.spec.name] = tail.finish_ids(piece) if is_hashed else tail.finish(piece)
    return found
