"""``custom_feature``: bundled operators and those of users."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tzrec.errors import ConfigError, FeatureError
from tzrec.fg.align import sum_cells
from tzrec.fg.custom import find_operator
from tzrec.fg.edit_distance import edit_distances
from tzrec.fg.expression import Expression
from tzrec.fg.operators.base import Operator
from tzrec.fg.operators.expr_feature import evaluate
from tzrec.fg.operators.regex_replace_feature import RegexReplace
from tzrec.fg.ragged import Ragged, Text
from tzrec.fg.reading import Reading, as_text, read
from tzrec.fg.spec import FeatureSpec
from tzrec.fg.texts import distinct, map_texts

_DISTANCE = "spherical_distance"
_MOST_BYTES = 1 << 31  # of a string array


class CustomOperator(Operator):
    """Dispatches to EditDistance, RegexReplace, SeqExpr or a registered function."""

    kind = "custom_feature"

    def setup(self) -> None:
        """Finds the function."""
        name = str(self.option("operator_name"))
        self.numeric = self.spec.value_type != "string"
        # Values of the operator are numbers where they are bucketised by their size.
        maker = _BUNDLED.get(name, _Registered)
        self._body: _Body = maker(self.spec, [i.name for i in self.inputs])

    def reading(self, number: int) -> Reading:
        """Reads as the function wants it."""
        return self._body.reading(super().reading(number))

    def run(self, columns: Sequence[Ragged]) -> Ragged:
        """Returns what the function gives."""
        result = self._body.run(columns)
        if self.numeric and result.is_text:
            raise FeatureError(
                f"custom_feature {self.spec.name!r} gives text, but its value_type is "
                f"{self.spec.value_type}"
            )
        if self.normalizer is not None and not result.is_text:
            result = result.with_values(self.normalizer(result.values))
        return result


class _Body(abc.ABC):
    """The function of one custom feature."""

    def __init__(self, spec: FeatureSpec, names: list[str]) -> None:
        self.spec = spec
        self.names = names
        self.setup()

    def setup(self) -> None:  # noqa: B027 — not all have options
        """Reads the options."""

    def reading(self, how: Reading) -> Reading:
        """Returns how inputs are read: a cell as one text."""
        return dataclasses.replace(how, separator="", as_numbers=False)

    @abc.abstractmethod
    def run(self, columns: Sequence[Ragged]) -> Ragged:
        """Returns the values of each cell."""

    def take(self, count: int) -> None:
        """Raises a ConfigError unless there are ``count`` inputs."""
        if len(self.names) != count:
            raise ConfigError(
                f"{self.spec.options['operator_name']} takes {count} input(s), not "
                f"{len(self.names)}"
            )


class _EditDistance(_Body):
    """Levenshtein distance of two texts, in code points (utf-8) or bytes (latin)."""

    def setup(self) -> None:
        self.take(2)
        encoding = str(self.spec.options.get("encoding", "utf-8")).lower()
        if encoding not in ("utf-8", "latin"):
            raise ConfigError(f"EditDistance: encoding is {encoding!r}, must be utf-8 or latin")
        self._bytes = encoding == "latin"

    def run(self, columns: Sequence[Ragged]) -> Ragged:
        first, second = columns
        present = (first.lengths > 0) & (second.lengths > 0)
        cells = np.flatnonzero(present)
        for column in columns:
            if (column.lengths > 1).any():
                row = column.row_of_cell(int(np.argmax(column.lengths > 1)))
                raise FeatureError(
                    f"EditDistance compares two texts, but row {row} of the batch has several"
                )
        left, right = (as_text(c.take_cells(cells).values) for c in (first, second))
        (ones, of_left), (others, of_right) = self._distinct(left), self._distinct(right)
        pairs, of_pairs = np.unique(of_left * len(others) + of_right, return_inverse=True)
        distances = edit_distances(ones, others, np.divmod(pairs, max(len(others), 1)))
        numbers = distances[of_pairs].astype(np.float64)
        return Ragged(numbers, present.astype(np.int32), first.row_lengths)

    def _distinct(self, texts: Text) -> tuple[list[Any], NDArray[np.int64]]:
        """Returns the distinct texts and the number of each text among them."""
        if not self._bytes:
            return distinct(texts)
        words: dict[bytes, int] = {}
        numbers = [words.setdefault(texts.raw(i), len(words)) for i in range(len(texts))]
        return list(words), np.array(numbers, dtype=np.int64)


class _Regex(_Body):
    """Replaces the matches of a pattern in one text."""

    def setup(self) -> None:
        self.take(1)
        options = self.spec.options
        # The interface's documents spell the key both ways.
        pattern = options.get("regex_pattern", options.get("regex_patten"))
        if not pattern:
            raise ConfigError("RegexReplace has no regex_pattern")
        self._replace = RegexReplace([str(pattern)], str(options.get("replacement", "")))

    def run(self, columns: Sequence[Ragged]) -> Ragged:
        (column,) = columns
        return column.with_values(map_texts(as_text(column.values), self._replace))


class _SeqExpr(_Body):
    """An expression of sequences; text is split at ``sequence_delim`` whatever its side."""

    def setup(self) -> None:
        formula = str(self.spec.options.get("formula") or "")
        if not formula:
            raise ConfigError("SeqExpr has no formula")
        if formula == _DISTANCE:
            self.take(4)
            formula = f"haversine({', '.join(self.names)})"
        self._expression = Expression.parse(formula)
        unknown = self._expression.variables - set(self.names)
        if unknown:
            raise ConfigError(
                f"formula {formula!r} has the variable {sorted(unknown)[0]!r}, which is no input"
            )

    def reading(self, how: Reading) -> Reading:
        return dataclasses.replace(how, is_sequence=True, separator="", as_numbers=True)

    def run(self, columns: Sequence[Ragged]) -> Ragged:
        cells = evaluate(self._expression, self.names, columns)
        if self.spec.is_sequence:
            return cells
        assert cells.row_lengths is not None
        return Ragged(cells.values, sum_cells(cells.lengths, cells.row_lengths))


class _Registered(_Body):
    """A function of a user."""

    def setup(self) -> None:
        options = self.spec.options
        self._function = find_operator(
            str(options["operator_name"]), str(options.get("operator_lib_file") or "")
        )

    def run(self, columns: Sequence[Ragged]) -> Ragged:
        first = columns[0]
        result = self._function([_to_arrow(column) for column in columns], self.spec.options)
        name = self.spec.options["operator_name"]
        if not isinstance(result, pa.Array) or len(result) != first.num_cells:
            size = f"{len(result)} rows" if isinstance(result, pa.Array) else type(result).__name__
            raise FeatureError(
                f"operator {name!r} gave {size}, must give an Arrow array of {first.num_cells} rows"
            )
        cells = read(result, Reading(separator=""), f"what operator {name!r} gave")
        return Ragged(cells.values, cells.lengths, first.row_lengths)


def _to_arrow(column: Ragged) -> pa.Array:
    """Returns one value per cell, null where it is missing; lists where cells have several."""
    values = column.values
    flat = values.to_arrow() if isinstance(values, Text) else pa.array(values)
    if flat.nbytes < _MOST_BYTES and pa.types.is_large_string(flat.type):
        flat = flat.cast(pa.string())  # which goes together with strings of Python in Arrow
    if (column.lengths <= 1).all():
        positions = np.cumsum(column.lengths) - 1
        return flat.take(pa.array(positions, mask=column.lengths == 0))
    offsets = np.concatenate([[0], np.cumsum(column.lengths)]).astype(np.int64)
    return pa.LargeListArray.from_arrays(pa.array(offsets), flat)


_BUNDLED: dict[str, type[_Body]] = {
    "EditDistance": _EditDistance,
    "RegexReplace": _Regex,
    "SeqExpr": _SeqExpr,
}
