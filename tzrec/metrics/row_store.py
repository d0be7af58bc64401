"""Rows that a metric keeps until the end, in bounded memory."""

from __future__ import annotations

import tempfile
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tzrec.errors import DataError

# A row: its group, its score, its label or target. 16 bytes.
ROW = np.dtype([("key", np.int64), ("score", np.float32), ("target", np.float32)])
Rows = NDArray[Any]

# Rows that are kept in memory (64 MiB) before they go to disk.
MAX_ROWS = 1 << 22
# Rows on disk lie in 2^6 parts, a group in one of them.
PART_BITS = 6
NUM_PARTS = 1 << PART_BITS
# Rows that wait as tensors, so that a device is not waited for in every batch.
_BLOCK = 1 << 16


class RowStore:
    """Keeps rows in the memory of the host, and on disk what exceeds `MAX_ROWS`.

    On disk, rows lie in a file without a name in the directory for temporary files, which the
    system removes with the process. It is written in runs of at most `MAX_ROWS` rows, each
    sorted by part; `read` puts the pieces of a part together.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Tensor, ...]] = []
        self._num_waiting = 0
        self._blocks: list[Rows] = []
        self._num_rows = 0
        self._file: IO[bytes] | None = None
        # For each run on disk the (NUM_PARTS + 1,) bounds of its parts, in rows of the file.
        self._runs: list[NDArray[np.int64]] = []

    @property
    def num_rows(self) -> int:
        """Rows in memory and on disk."""
        on_disk = int(self._runs[-1][-1]) if self._runs else 0
        return on_disk + self._num_rows + self._num_waiting

    def add(self, keys: Tensor, scores: Tensor, targets: Tensor) -> None:
        """Adds rows; keys (B,) are int64, scores and targets (B,) become float32."""
        self._waiting.append((keys.detach(), scores.detach(), targets.detach()))
        self._num_waiting += keys.numel()
        if self._num_waiting >= _BLOCK:
            self._take_waiting()
            if self._num_rows >= MAX_ROWS:
                self._spill()

    def read(self, start: int = 0, end: int = NUM_PARTS) -> Rows:
        """Returns the rows of parts ``start`` to ``end``, in no order across batches."""
        self._take_waiting()
        if (start, end) == (0, NUM_PARTS) and not self._runs:
            return self._in_memory()
        if self._num_rows:
            self._spill()
        pieces = [self._read_run(bounds[start], bounds[end]) for bounds in self._runs]
        return np.concatenate([np.empty(0, ROW), *pieces])

    def close(self) -> None:
        """Gives the disk back."""
        if self._file is not None:
            self._file.close()

    def _take_waiting(self) -> None:
        if not self._waiting:
            return
        rows = np.empty(self._num_waiting, ROW)
        for name, parts in zip(ROW.names or (), zip(*self._waiting, strict=True), strict=True):
            rows[name] = torch.cat(parts).cpu().numpy()
        self._blocks.append(rows)
        self._num_rows += len(rows)
        self._waiting, self._num_waiting = [], 0

    def _in_memory(self) -> Rows:
        if len(self._blocks) != 1:
            self._blocks = [np.concatenate([np.empty(0, ROW), *self._blocks])]
        return self._blocks[0]

    def _spill(self) -> None:
        from tzrec.metrics.kernels import sort_into_parts

        rows, bounds = sort_into_parts(self._in_memory(), 0, PART_BITS)
        self._blocks, self._num_rows = [], 0
        offset = int(self._runs[-1][-1]) if self._runs else 0
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="tzrec-metric-", buffering=0)  # noqa: SIM115
            self._file.seek(offset * ROW.itemsize)
            rows.tofile(self._file)
        except OSError as error:
            raise DataError(
                f"rows of a grouped metric cannot be kept in {tempfile.gettempdir()}: {error}",
                hint=f"it needs {ROW.itemsize} bytes for each row of the evaluation; set TMPDIR "
                "to a directory with room, or remove the grouped metric",
            ) from error
        self._runs.append(offset + bounds)

    def _read_run(self, first: int, last: int) -> Rows:
        assert self._file is not None
        self._file.seek(int(first) * ROW.itemsize)
        return np.fromfile(self._file, ROW, int(last - first))
