"""The end of every feature: first values, ids or numbers, defaults (fg.md §5, §8)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tzrec.errors import ConfigError, FeatureError
from tzrec.fg.bucketize import Bucketize
from tzrec.fg.kernels import kernels
from tzrec.fg.parsed import (
    DenseData,
    Parsed,
    SequenceDenseData,
    SequenceSparseData,
    SparseData,
)
from tzrec.fg.ragged import Counts, Lengths, Ragged, Text, as_float32, take
from tzrec.fg.reading import as_text
from tzrec.fg.spec import MULTIVAL_SEP, FeatureSpec


class Tail:
    """What happens to the values that an operator gives.

    A missing cell gets the default, which is not normalised, but is turned into an id like any
    value; the one of a discrete feature is a single value, that of a numeric one is split at
    the separator. A row of a sequence without steps gets one step with the default.

    Args:
        spec: the feature.
        numeric: values are numbers, not text.
        bucketize: makes ids; None leaves values as they are.
        truncates: keep the first ``value_dim`` values of a cell only.
        zero_default: an empty default stands for 0.
        default_bucketize: makes the id of the default, where not ``bucketize`` does.
        default_values: the default as ids, where the operator makes ids itself.
        fills: False leaves missing cells missing.

    Attributes:
        counts: results say what there was before defaults (`tzrec.fg.ragged.Counts`).

    Raises:
        ConfigError: the default fits neither ``value_dim`` nor the bucketizer.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        *,
        numeric: bool,
        bucketize: Bucketize | None,
        truncates: bool = True,
        zero_default: bool = False,
        default_bucketize: Bucketize | None = None,
        default_values: NDArray[np.int64] | None = None,
        fills: bool = True,
    ) -> None:
        self.spec = spec
        self.numeric = numeric
        self.bucketize = bucketize
        self.counts = False
        self._first = spec.value_dim if truncates and not numeric else 0
        text = spec.default
        if not text and (zero_default or spec.is_sequence or (numeric and bucketize is None)):
            text = "0"
        if not fills:
            text = ""
        maker = default_bucketize or bucketize
        self._makes_ids = default_values is not None
        self._default = default_values
        if default_values is None:
            self._default = self._make_default(text, maker)
        # A null in a column of plain numbers is 0 even where the default is empty (fg.md §5).
        self._number_default = self._make_default(text or "0", maker) if numeric else None

    @property
    def is_sparse(self) -> bool:
        """True where values become ids."""
        return self.bucketize is not None

    @property
    def most(self) -> int:
        """Values that a cell has at most, 0 = any number."""
        return self.spec.value_dim if self.numeric else self._first

    def values(self, cells: Ragged) -> Ragged:
        """Returns what ids are made of; another tail's `finish` gives the same as this one's.

        Missing cells stay missing. Where nothing makes ids, this is `finish`.

        Raises:
            FeatureError: a cell has not ``value_dim`` numbers.
        """
        if self.bucketize is None:
            return self.finish(cells)
        cells = self._checked(cells)
        if cells.from_numbers and self.numeric and self._default is None:
            # See `_number_default`; that it was a column of plain numbers is not known later.
            zeros = np.zeros(self.spec.value_dim or 1)
            values, lengths = _fill_numbers(cells.values, cells.lengths, zeros)
            cells = Ragged(values, lengths)
        return cells

    def finish(self, cells: Ragged) -> Ragged:
        """Returns the final values: ids, numbers (float32), or text where nothing makes ids.

        Raises:
            FeatureError: a cell has not ``value_dim`` numbers, or a value is no number.
        """
        cells = self._checked(cells)
        values: Any = cells.values
        if self.bucketize is not None:
            values = self.bucketize.ids(cells)
        elif self.numeric:
            values = as_float32(values)
        elif not self._makes_ids:
            values = as_text(values)
        found = self._fill(
            Ragged(
                values,
                cells.lengths,
                cells.row_lengths,
                cells.weights,
                from_numbers=cells.from_numbers,
                single=cells.single,
            )
        )
        return self._counted(cells, found) if self.counts else found

    def finish_ids(self, cells: Ragged) -> Ragged:
        """Like `finish`, for an operator that made hashed ids itself."""
        cells = self._checked(cells)
        found = self._fill(cells)
        return self._counted(cells, found) if self.counts else found

    def parsed(self, cells: Ragged) -> Parsed:
        """Returns what `finish` gave in the shape of the interface."""
        parsed = self._shaped(cells)
        parsed.counts = cells.counts
        return parsed

    def _shaped(self, cells: Ragged) -> Parsed:
        name, values = self.spec.name, cells.values
        if self.is_sparse or not self.numeric:
            if cells.row_lengths is None:
                return SparseData(name, values, cells.lengths, weights=cells.weights)
            return SequenceSparseData(name, values, cells.row_lengths, key_lengths=cells.lengths)
        dim = self._dim(cells)
        if cells.row_lengths is None:
            return DenseData(name, values.reshape(-1, dim))
        return SequenceDenseData(name, values.reshape(-1, dim), cells.row_lengths)

    def _checked(self, cells: Ragged) -> Ragged:
        """Returns the first values of each cell; raises as `finish`."""
        if self._first and not cells.single and (cells.lengths > self._first).any():
            positions, lengths = kernels().take_first(cells.lengths, np.int32(self._first))
            cells = cells.take_values(positions, lengths, cells.row_lengths)
        self._check_numbers(cells)
        return cells

    def _counted(self, cells: Ragged, found: Ragged) -> Ragged:
        """Notes in ``found`` what ``cells`` had before defaults."""
        per_row = cells.lengths if cells.row_lengths is None else cells.row_lengths
        counts = Counts(
            rows=len(per_row),
            missing=len(per_row) - int(np.count_nonzero(per_row)),
            cells=len(cells.lengths),
            values=int(cells.lengths.sum(dtype=np.int64)),
            unknown=self.bucketize.unknown(cells) if self.bucketize is not None else 0,
        )
        return dataclasses.replace(found, counts=counts)

    def _fill(self, cells: Ragged) -> Ragged:
        cells = _fill_rows(cells)
        if cells.single:
            return cells
        default = self._default
        if cells.from_numbers and (default is None or len(default) == 0):
            default = self._number_default
        if default is None or len(default) == 0:
            return cells
        empty = cells.lengths == 0
        if not empty.any():
            return cells
        weights = cells.weights
        if weights is not None:
            ones = np.ones(len(default), np.float32)
            weights = _fill_numbers(weights, cells.lengths, ones)[0]
        if isinstance(default, Text):
            values, lengths = _fill_text(cells.values, cells.lengths, default)
        elif default.dtype == np.int64:
            values, lengths = kernels().fill_empty_ids(cells.values, cells.lengths, default)
        else:
            values, lengths = _fill_numbers(cells.values, cells.lengths, default)
        return Ragged(values, lengths, cells.row_lengths, weights)

    def _check_numbers(self, cells: Ragged) -> None:
        """Raises a FeatureError if a numeric cell has neither no value nor value_dim values."""
        dim = self.spec.value_dim
        if not self.numeric or dim == 0 or (dim == 1 and cells.single):
            return
        wrong = (cells.lengths != dim) & (cells.lengths != 0)
        if wrong.any():
            cell = int(np.argmax(wrong))
            raise FeatureError(
                f"row {cells.row_of_cell(cell)} of the batch has "
                f"{cells.lengths[cell]} numbers, but value_dim is {dim}"
            )

    def _dim(self, cells: Ragged) -> int:
        if self.spec.value_dim:
            return self.spec.value_dim
        if not len(cells.lengths):
            return 1
        dim = int(cells.lengths[0])
        if (cells.lengths != dim).any():
            raise FeatureError(
                f"feature {self.spec.name!r} gives different numbers of values, from "
                f"{cells.lengths.min()} to {cells.lengths.max()}; a dense feature has a fixed "
                "number",
                hint="set value_dim, or boundaries",
            )
        return dim

    def _make_default(self, text: str, maker: Bucketize | None) -> Any:
        if not text:
            return None
        if not self.numeric:
            token = Text.of([text])
            if maker is None:
                return token
            return self._default_ids(maker, Ragged(token, np.ones(1, np.int32)), text)
        numbers = _split_default(text, self.spec)
        if maker is None:
            return as_float32(numbers)
        return self._default_ids(maker, Ragged(numbers, np.full(1, len(numbers), np.int32)), text)

    def _default_ids(self, maker: Bucketize, cells: Ragged, text: str) -> NDArray[np.int64]:
        try:
            return maker.ids(cells)
        except FeatureError as error:
            raise ConfigError(
                f"default_value {text!r} of {self.spec.name} is no whole number, as "
                f"{maker.kind} needs"
            ) from error


def _split_default(text: str, spec: FeatureSpec) -> NDArray[np.float64]:
    parts = text.replace(spec.separator, MULTIVAL_SEP).split(MULTIVAL_SEP)
    try:
        numbers = np.array([float(part) for part in parts if part])
    except ValueError:
        raise ConfigError(f"default_value {text!r} of {spec.name} is not a number") from None
    dim = spec.value_dim or len(numbers)
    if len(numbers) not in (1, dim):
        raise ConfigError(
            f"default_value {text!r} of {spec.name} has {len(numbers)} numbers, but value_dim "
            f"is {dim}"
        )
    return np.resize(numbers, dim)


def _fill_rows(cells: Ragged) -> Ragged:
    """Gives rows without steps one step without values."""
    row_lengths = cells.row_lengths
    if row_lengths is None or not (row_lengths == 0).any():
        return cells
    filled = np.maximum(row_lengths, np.int32(1))
    lengths = np.zeros(int(filled.sum()), np.int32)
    lengths[np.repeat(row_lengths > 0, filled)] = cells.lengths
    return dataclasses.replace(cells, lengths=lengths, row_lengths=filled, single=False)


def _fill_numbers(
    values: NDArray[Any], lengths: Lengths, default: NDArray[Any]
) -> tuple[NDArray[Any], Lengths]:
    return kernels().fill_empty_numbers(values, lengths, default.astype(values.dtype))


def _fill_text(values: Text, lengths: Lengths, default: Text) -> tuple[Text, Lengths]:
    joined = Text(
        np.concatenate([values.data, default.data]),
        np.concatenate([values.starts, default.starts + len(values.data)]),
        np.concatenate([values.ends, default.ends + len(values.data)]),
    )
    positions = np.arange(len(values), dtype=np.int64)
    last = np.array([len(values)], dtype=np.int64)
    positions, filled = kernels().fill_empty_ids(positions, lengths, last)
    return take(joined, positions), filled
