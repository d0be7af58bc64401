"""`EventLog`: the TensorBoard event files of a run."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tzrec import storage

logger = logging.getLogger("tzrec")

_BUCKETS = 64
# Looking at more values takes longer than many training steps.
_MOST_VALUES = 1 << 20


class EventLog:
    """Writers of event files in the directories of a run, made when they are first needed.

    Event files of a remote run are written locally and copied at each `flush`. A write that
    fails (full disk, unreachable store) ends the log with a warning, never the run.

    Args:
        root: the run.
        purge_step: a resumed run's first step; TensorBoard drops what an earlier run wrote from
            there on.
    """

    def __init__(self, root: str | os.PathLike[str], *, purge_step: int | None = None) -> None:
        self._root = os.fspath(root)
        self._remote = storage.is_remote(self._root)
        self._local = tempfile.mkdtemp(prefix="tzrec-events-") if self._remote else self._root
        self._purge_step = purge_step
        self._writers: dict[str, Any] = {}
        self._broken = False

    def scalars(self, values: Mapping[str, Any], step: int, *, sub_dir: str = "") -> None:
        """Writes one point of each tag."""
        try:
            for tag, value in values.items():
                self._writer(sub_dir).add_scalar(tag, float(value), step)
        except OSError as error:
            self._give_up(error)

    def histogram(self, tag: str, values: Tensor, step: int) -> None:
        """Writes the distribution of the finite ones of ``values``, of any shape.

        Of a table with millions of values it is that of evenly spaced rows.
        """
        values = _thinned(values.detach()).reshape(-1).float()
        finite = torch.isfinite(values)
        if not bool(finite.all()):
            values = values[finite]
        if values.numel() == 0:
            return
        low, high = (float(bound) for bound in torch.aminmax(values))
        width = (high - low) or 1.0
        # Edges of equal buckets: NumPy's histogram of free edges takes seconds on a large table.
        counts = torch.histc(values, _BUCKETS, low, low + width)
        edges = [low + width * (index + 1) / _BUCKETS for index in range(_BUCKETS)]
        wide = values.double()
        try:
            self._writer("").add_histogram_raw(
                tag,
                min=low,
                max=high,
                num=values.numel(),
                sum=float(wide.sum()),
                sum_squares=float(wide.square().sum()),
                bucket_limits=edges,
                bucket_counts=counts.tolist(),
                global_step=step,
            )
        except OSError as error:
            self._give_up(error)

    def flush(self) -> None:
        """Makes what was written visible."""
        try:
            for writer in self._writers.values():
                writer.flush()
            self._upload()
        except Exception as error:  # a remote file system may raise anything
            self._give_up(error)

    def close(self) -> None:
        """Flushes and closes the files."""
        try:
            for writer in self._writers.values():
                writer.close()
            self._upload()
        except Exception as error:  # a remote file system may raise anything
            self._give_up(error)
        self._writers = {}
        if self._remote:
            shutil.rmtree(self._local, ignore_errors=True)

    def _writer(self, sub_dir: str) -> Any:
        if self._broken:
            return _Nothing()
        if sub_dir not in self._writers:
            from torch.utils.tensorboard import SummaryWriter

            directory = os.path.join(self._local, sub_dir) if sub_dir else self._local
            self._writers[sub_dir] = SummaryWriter(directory, purge_step=self._purge_step)
        return self._writers[sub_dir]

    def _upload(self) -> None:
        if self._remote and self._writers:
            storage.upload_tree(self._local, self._root)

    def _give_up(self, error: Exception) -> None:
        if not self._broken:
            logger.warning("TensorBoard events of %s are no longer written: %s", self._root, error)
        self._broken = True


def _thinned(values: Tensor) -> Tensor:
    every = values.numel() // _MOST_VALUES + 1
    return values[::every] if values.dim() else values


class _Nothing:
    """Takes the place of a writer that failed."""

    def add_scalar(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing."""

    def add_histogram_raw(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing."""
