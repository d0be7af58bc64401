"""`StreamRows`: rows of a stream, taken a batch at a time."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tzrec.datasets.kafka.client import Message
from tzrec.datasets.kafka.poller import Nothing
from tzrec.datasets.kafka.reader import KafkaReader, Piece, Rows
from tzrec.datasets.kafka.rowcode import mark_after
from tzrec.datasets.position import StreamMark
from tzrec.datasets.slicer import RawBatch

_GROUP_ROWS = 8192


class StreamRows:
    """Collects the rows of messages until there are enough.

    Args:
        next_message: returns the next message within some seconds, or why there is none.
        reader: makes rows of messages.
        marks: partition → where it begins.
    """

    def __init__(
        self,
        next_message: Callable[[float], Message | Nothing],
        reader: KafkaReader,
        marks: Mapping[int, StreamMark],
    ) -> None:
        self._next = next_message
        self._reader = reader
        self._begun = {p: mark for p, mark in marks.items() if mark.rows}
        self._raw: list[Piece] = []
        self._num_raw = 0
        self._ready: list[Rows] = []
        self._left_out: list[tuple[int, int]] = []
        self.num_rows = 0

    def fill(self, wanted: int, patience: float) -> Nothing | None:
        """Collects rows; returns None once ``wanted`` are held, else why no more come.

        Args:
            wanted: rows.
            patience: seconds to wait for them, at least until the next message is there or not.
        """
        end = time.monotonic() + patience
        while self.num_rows < wanted:
            found = self._next(max(end - time.monotonic(), 0.0))
            if isinstance(found, Nothing):
                return found
            self._add(found)
        return None

    def peek(self, num_rows: int) -> Rows:
        """Returns the first rows, at most as many as are held, and keeps them."""
        self._cast()
        parts: list[Rows] = []
        missing = num_rows
        for rows in self._ready:
            if missing <= 0:
                break
            parts.append(_slice(rows, 0, missing))
            missing -= len(parts[-1].code)
        return _together(parts)

    def cut(self, num_rows: int) -> RawBatch:
        """Takes the first rows, at most as many as are held."""
        self._cast()
        parts: list[Rows] = []
        missing = min(num_rows, self.num_rows)
        while missing:
            first = self._ready.pop(0)
            if len(first.code) > missing:
                self._ready.insert(0, _slice(first, missing, len(first.code)))
                first = _slice(first, 0, missing)
            parts.append(first)
            missing -= len(first.code)
            self.num_rows -= len(first.code)
        together = _together(parts)
        return RawBatch(
            together.columns, together.source, together.code, left_out=self._take_left_out()
        )

    def _take_left_out(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the messages that were left out before all rows that are still held."""
        taken: list[tuple[int, int]] = []
        kept: list[tuple[int, int]] = []
        for source, code in self._left_out:
            later = any(np.any((r.source == source) & (r.code < code)) for r in self._ready)
            (kept if later else taken).append((source, code))
        self._left_out = kept
        found = np.array(taken, dtype=np.int64).reshape(-1, 2)
        return found[:, 0], found[:, 1]

    def _add(self, message: Message) -> None:
        begun = self._begun.pop(message.partition, StreamMark(-1))
        skipped = begun.rows if begun.offset == message.offset else 0
        piece = self._reader.piece_of(message, skipped)
        if piece.batch is None:
            self._left_out.append((piece.partition, int(piece.codes[-1])))
            return
        self._raw.append(piece)
        self._num_raw += len(piece.codes)
        self.num_rows += len(piece.codes)
        if self._num_raw >= _GROUP_ROWS:
            self._cast()

    def _cast(self) -> None:
        """Gives the collected rows their types, those of messages with the same columns at once."""
        for _, group in itertools.groupby(self._raw, key=lambda piece: piece.kind):
            self._ready.append(self._reader.rows_of(list(group)))
        self._raw.clear()
        self._num_raw = 0


def marks_of(raw: RawBatch) -> dict[int, StreamMark]:
    """Returns partition → where reading goes on after a batch."""
    source = np.concatenate([raw.source, raw.left_out[0]])
    code = np.concatenate([raw.row, raw.left_out[1]])
    return {int(p): mark_after(int(code[source == p].max())) for p in np.unique(source)}


def joined(batch: RawBatch, more: RawBatch) -> RawBatch:
    """Returns a batch with the rows of another one after its own."""
    return RawBatch(
        pa.concat_batches([batch.columns, more.columns]),
        np.concatenate([batch.source, more.source]),
        np.concatenate([batch.row, more.row]),
        left_out=(
            np.concatenate([batch.left_out[0], more.left_out[0]]),
            np.concatenate([batch.left_out[1], more.left_out[1]]),
        ),
        stream=batch.stream,
    )


def _together(rows: list[Rows]) -> Rows:
    if len(rows) == 1:
        return rows[0]
    return Rows(
        pa.concat_batches([part.columns for part in rows]),
        np.concatenate([part.source for part in rows]),
        np.concatenate([part.code for part in rows]),
    )


def _slice(rows: Rows, start: int, stop: int) -> Rows:
    columns = rows.columns.slice(start, stop - start)
    return Rows(columns, rows.source[start:stop], rows.code[start:stop])
