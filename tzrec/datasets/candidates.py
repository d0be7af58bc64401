"""Candidate sequences: rows with several positive items each, and sampled ones after the last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from tzrec.errors import ConfigError, DataError

if TYPE_CHECKING:
    from tzrec.features.feature import BaseFeature


class CandidateSequence:
    """The grouped sequence whose steps are the positive items of a row (reference 03 §3.4.1).

    Args:
        name: of the sequence, before the ``__`` of its columns.
        delimiter: between the steps of text.
    """

    def __init__(self, name: str, delimiter: str) -> None:
        self.name = name
        self.delimiter = delimiter

    @classmethod
    def of(cls, item_id_field: str, features: Sequence[BaseFeature]) -> CandidateSequence | None:
        """Returns the sequence that has the item's id as a step, None where a row is an item.

        Raises:
            ConfigError: the id is a sequence of its own, which names no other columns.
        """
        readers = [feature for feature in features if item_id_field in feature.inputs]
        for feature in readers:
            if feature.is_grouped_sequence:
                return cls(str(feature.sequence_name), feature.sequence_delim or ";")
            if feature.is_sequence:
                raise ConfigError(
                    f"item_id_field {item_id_field!r} is read by the sequence {feature.name!r}",
                    hint="candidates are the steps of a sequence_feature { … }",
                )
        return None

    def column(self, attribute: str) -> str:
        """Returns the column of an attribute."""
        prefix = f"{self.name}__"
        return attribute if attribute.startswith(prefix) else prefix + attribute

    def item_type(self, name: str, column: pa.DataType) -> pa.DataType:
        """Returns the type of one candidate of a column.

        Raises:
            DataError: the column cannot hold several.
        """
        if types.is_list(column):
            return column.value_type
        if types.is_string(column):
            return column
        raise DataError(
            f"column {name!r} of the candidates is {column}; they are a list, or text with "
            f"{self.delimiter!r} between them"
        )

    def flatten(self, name: str, column: pa.Array) -> tuple[pa.Array, NDArray[np.int32]]:
        """Returns the candidates of all rows (P,), and how many each row has (B,).

        Raises:
            DataError: a row of text is null or empty.
        """
        if types.is_list(column.type):
            lengths = pc.fill_null(pc.list_value_length(column), 0)
            return column.flatten(), lengths.to_numpy(zero_copy_only=False).astype(np.int32)
        empty = pc.fill_null(pc.equal(column, ""), True).to_numpy(zero_copy_only=False)
        if empty.any():
            raise DataError(f"column {name!r}: row {int(empty.argmax())} of the batch is empty")
        steps = pc.split_pattern(column, self.delimiter)
        lengths = pc.list_value_length(steps).to_numpy(zero_copy_only=False)
        return steps.flatten(), lengths.astype(np.int32)

    def append(self, name: str, column: pa.Array, items: pa.Array) -> pa.Array:
        """Returns the column with ``items`` after the candidates of the last row.

        Raises:
            DataError: that row is a text that is null.
        """
        last = len(column) - 1
        if types.is_string(column.type):
            if not column[last].is_valid:
                raise DataError(
                    f"column {name!r}: row {last} of the batch is null, but has candidates"
                )
            texts = [column[last].as_py(), *(item or "" for item in items.to_pylist())]
            text = self.delimiter.join(texts)
            return pa.concat_arrays([column.slice(0, last), pa.array([text], column.type)])
        end = column.slice(last)
        appended = pa.ListArray.from_arrays(
            pa.array([0, len(end.flatten()) + len(items)], pa.int32()),
            pa.concat_arrays([end.flatten(), items]),
            type=column.type,
        )
        return pa.concat_arrays([column.slice(0, last), appended])
