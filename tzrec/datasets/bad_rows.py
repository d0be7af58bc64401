"""Rows that cannot be used: found, named, left out up to a limit, counted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from tzrec.errors import DataError, TzrecError

logger = logging.getLogger("tzrec")

_LISTED = 5

Attempt = Callable[[int, int], Exception | None]


class BadRows:
    """The rows that one loader left out, each counted once however often it is read.

    Args:
        limit: rows that may be left out; the first one above it is an error. 0 = none may.
        quiet: list none of them in the log.
    """

    def __init__(self, limit: int = 0, *, quiet: bool = False) -> None:
        self.limit = limit
        self._quiet = quiet
        self._rows: dict[int, set[int]] = {}
        self._sorted: dict[int, NDArray[np.int64]] = {}
        self._count = 0
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """Rows left out so far."""
        return self._count

    def add(self, source: int, row: int, error: TzrecError) -> None:
        """Leaves a row out.

        Args:
            source: number of its file.
            row: its number in the file.
            error: why, with file and row.

        Raises:
            TzrecError: ``error``, when no row may be left out, or one too many is.
        """
        with self._lock:
            known = self._rows.setdefault(source, set())
            if row in known:
                return
            if self._count >= self.limit:
                raise self._too_many(error)
            known.add(row)
            self._sorted.pop(source, None)
            self._count += 1
            if not self._quiet:
                self._tell(error)

    def among(self, source: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """Returns which of the rows (B,) are known to be bad, None if none is."""
        if not self._count:
            return None
        found = np.zeros(len(row), dtype=bool)
        for number in np.unique(source).tolist():
            here = source == number
            found[here] = np.isin(row[here], self._known(number), assume_unique=True)
        return found if found.any() else None

    def _known(self, source: int) -> NDArray[np.int64]:
        with self._lock:
            if source not in self._sorted:
                rows = self._rows.get(source, set())
                self._sorted[source] = np.array(sorted(rows), dtype=np.int64)
            return self._sorted[source]

    def _too_many(self, error: TzrecError) -> TzrecError:
        if not self.limit:
            advice = "data_config.max_bad_rows: n leaves out up to n such rows"
            hint = f"{error.hint}; {advice}" if error.hint else advice
            return type(error)(error.message, hint=hint)
        return DataError(
            f"more than max_bad_rows: {self.limit} rows cannot be used, now {error.message}",
            hint=error.hint,
        )

    def _tell(self, error: TzrecError) -> None:
        if self._count <= _LISTED:
            logger.warning("left out a bad row (%d): %s", self._count, error.message)
        if self._count == _LISTED and self.limit > _LISTED:
            logger.warning("further bad rows are only counted, up to %d", self.limit)


def find_failures(num_rows: int, attempt: Attempt) -> Iterator[tuple[int, Exception]]:
    """Yields each row that fails on its own, in order, with its error.

    Costs about ``2 log2(num_rows)`` attempts a bad row, of ever shorter ranges.

    Args:
        num_rows: rows that are known to fail together. When no row at all fails too, no row is
            to blame and nothing is yielded.
        attempt: takes rows ``[start, stop)`` and returns their error or None.
    """
    if num_rows == 0 or attempt(0, 0) is not None:
        return
    ranges = [(0, num_rows)]
    while ranges:
        start, stop = ranges.pop()
        error = attempt(start, stop)
        if error is None:
            continue
        if stop - start == 1:
            yield start, error
        else:
            middle = (start + stop) // 2
            ranges += [(middle, stop), (start, middle)]
