"""Parsing a batch so that an error names the row that caused it, or the row is left out."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tzrec.datasets.bad_rows import find_failures
from tzrec.datasets.batch_parser import BatchParser, columns_of
from tzrec.datasets.reader import BaseReader
from tzrec.datasets.sampled import num_drawn
from tzrec.datasets.slicer import RawBatch
from tzrec.errors import DataError, TzrecError, Unsupported

_IN_BATCH = re.compile(r"(?: in)?:? row \d+ of the batch\b|(?<=step \d) of the batch\b")
_MAX_VALUE = 120


class RowParser:
    """Parses batches; a row that cannot be used is an error that names it, or is left out.

    The batch is parsed as a whole. Only when that fails its bad rows are searched, by halves.
    Rows that a sampler draws are not left out: they are drawn again and again.

    Args:
        parser: what to parse with.
        reader: where the rows come from; its ``bad_rows`` says how many may be left out.
    """

    def __init__(self, parser: BatchParser, reader: BaseReader) -> None:
        self._parser = parser
        self._reader = reader

    def usable(self, raw: RawBatch) -> RawBatch:
        """Returns the batch without rows that are already known to be bad."""
        bad = self._reader.bad_rows.among(raw.source, raw.row)
        return raw if bad is None else raw.without(bad)

    def parse(self, raw: RawBatch) -> tuple[RawBatch, dict[str, Tensor]]:
        """Returns the rows that can be used, and their tensors.

        Raises:
            TzrecError: as `BatchParser.parse`, with file and row in front.
        """
        raw = self.usable(raw)
        if not raw.num_rows:
            return raw, {}
        try:
            return self.check(raw, self._parser.parse(raw.columns, raw.stream))
        except Unsupported:
            raise
        except (TzrecError, ValueError) as error:
            return self._parse_good(raw, error)

    def check(self, raw: RawBatch, parsed: dict[str, Tensor]) -> tuple[RawBatch, dict[str, Tensor]]:
        """Returns the parsed batch, without rows of non-finite numbers where rows may be left out.

        Where none may, the non-finite loss that they cause says more.
        """
        found = _non_finite(parsed) if self._reader.bad_rows.limit else ""
        return self._parse_good(raw, DataError(found)) if found else (raw, parsed)

    def _parse_good(self, raw: RawBatch, error: Exception) -> tuple[RawBatch, dict[str, Tensor]]:
        bad = np.zeros(raw.num_rows, dtype=bool)

        def attempt(start: int, stop: int) -> Exception | None:
            rows = raw.columns.slice(start, stop - start)
            return self._error_of(lambda: self._parser.parse_alone(rows, raw.stream))

        for index, why in find_failures(raw.num_rows, attempt):
            source, row = int(raw.source[index]), int(raw.row[index])
            place = self._reader.place(source, row)
            columns = columns_of(raw.columns.slice(index, 1))
            self._reader.bad_rows.add(source, row, self._named(place, why, columns))
            bad[index] = True
        if not bad.any():
            drawn = self._drawn_error(raw)
            if drawn is not None:
                raise drawn from error
            # Without rows it may fail too: what is said then is not about a row.
            error = attempt(0, 0) or error
            raise _prefixed(f"in {self._reader.paths[int(raw.source[0])]}", error) from error
        raw = raw.without(bad)
        return (raw, self._parser.parse(raw.columns, raw.stream)) if raw.num_rows else (raw, {})

    def _drawn_error(self, raw: RawBatch) -> TzrecError | None:
        """Returns the error of the first row of a sampler that fails on its own."""
        parser = self._parser
        try:
            drawn = parser.drawn(raw.columns, raw.stream)
        except (TzrecError, ValueError):
            return None
        if drawn is None:
            return None

        def attempt(start: int, stop: int) -> Exception | None:
            columns = parser.drawn_columns(raw.columns, drawn, start, stop)
            return self._error_of(lambda: parser.parser.parse(columns))

        for index, why in find_failures(num_drawn(drawn), attempt):
            columns = parser.drawn_columns(raw.columns, drawn, index, index + 1)
            return self._named(f"the sampler's {parser.name_of(drawn, index)}", why, columns)
        return None

    def _error_of(self, parse: Callable[[], dict[str, Tensor]]) -> Exception | None:
        try:
            found = _non_finite(parse())
        except (TzrecError, ValueError) as error:
            return error
        return DataError(found) if found and self._reader.bad_rows.limit else None

    def _named(self, place: str, error: Exception, row: dict[str, Any]) -> TzrecError:
        """Returns the error of a single row with its place and the values that caused it."""
        named = _prefixed(place, error)
        named.message = _IN_BATCH.sub("", named.message)
        columns = self._parser.parser.failing_columns(row)
        values = [f"{name!r} is {_short(row[name][0].as_py())}" for name in columns]
        if values:
            named.message += f" (column {', '.join(values)})"
        return named


def _non_finite(parsed: dict[str, Tensor]) -> str:
    """Returns what holds NaN or infinity, or ""."""
    for key, tensor in parsed.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            value = tensor[~torch.isfinite(tensor)][0].item()
            return f"feature {key.rpartition('.')[0]!r} holds {value}, which is not finite"
    return ""


def _prefixed(where: str, error: Exception) -> TzrecError:
    if not isinstance(error, TzrecError):
        return DataError(f"{where}: {error}")
    inner = "".join(f"{part}: " for part in error.location)
    return type(error)(f"{where}: {inner}{error.message}", hint=error.hint)


def _short(value: object) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= _MAX_VALUE else f"{text[:_MAX_VALUE]}…"
