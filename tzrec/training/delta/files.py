"""The files of delta dumps: their names, their columns, writing and finding them."""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tzrec import storage
from tzrec.errors import CheckpointError
from tzrec.training.delta.quantise import quantise
from tzrec.training.location import Location

_TEXT = pa.dictionary(pa.int32(), pa.string())
_PARTIAL = ".partial"


class DumpFile:
    """One rank's file of a dump; it appears whole or, after an exception, not at all.

    Args:
        directory: the output directory.
        prefix: how the names of files begin.
        step: 0-based number of the last finished step.
        rank: of this process.
        world_size: number of processes; with several the file is one of a directory of the step.
        int8: write 8-bit codes.

    Attributes:
        path: the file.
        num_rows: rows written so far.
    """

    def __init__(
        self,
        directory: Location,
        prefix: str,
        *,
        step: int,
        rank: int,
        world_size: int,
        int8: bool,
    ) -> None:
        folder, name = directory, f"{prefix}_step_{step}.parquet"
        if world_size > 1:
            folder = directory / f"step_{step}"
            name = f"{prefix}_step_{step}_rank_{rank}_of_{world_size}.parquet"
        self.path = folder / name
        self.num_rows = 0
        self._int8 = int8
        self._facts = (step, rank, world_size)
        # A file with a scheme appears when it is closed.
        self._written = folder / f".{name}{_PARTIAL}" if isinstance(folder, Path) else self.path
        self._schema = pa.schema(
            [
                ("global_step", pa.int64()),
                ("rank", pa.int32()),
                ("world_size", pa.int32()),
                ("feature_name", _TEXT),
                ("table_fqn", _TEXT),
                ("key_id", pa.int64()),
                ("embedding", pa.binary() if int8 else pa.list_(pa.float32())),
                ("source", _TEXT),
            ]
        )
        self._stream: Any = None
        self._writer: Any = None

    def __enter__(self) -> DumpFile:
        with self._failing():
            if isinstance(self._written, Path):
                self._written.parent.mkdir(parents=True, exist_ok=True)
            self._stream = storage.open_file(self._written, "wb")
            # Without Arrow's schema, readers see text and not Arrow's dictionaries. Floats of
            # a table do not get smaller by compression.
            self._writer = pq.ParquetWriter(
                self._stream,
                self._schema,
                compression="none",
                use_dictionary=["feature_name", "table_fqn", "source"],
                write_statistics=["table_fqn", "key_id"],
                store_schema=False,
            )
        return self

    def write(self, weight: str, features: tuple[str, ...], rows: Any, vectors: Any) -> None:
        """Appends rows of a table.

        Args:
            weight: name of the table's weight in a checkpoint.
            features: features that look the table up.
            rows: (n,) numbers of rows.
            vectors: (n, D) float32.

        Raises:
            CheckpointError: the disk is full, or a row cannot be quantised.
        """
        n, dim = vectors.shape
        step, rank, world_size = self._facts
        columns = [
            pa.array(np.full(n, step, np.int64)),
            pa.array(np.full(n, rank, np.int32)),
            pa.array(np.full(n, world_size, np.int32)),
            _repeated(",".join(features), n),
            _repeated(weight, n),
            pa.array(rows.astype(np.int64)),
            _bytes(quantise(vectors)) if self._int8 else _floats(vectors, dim),
            _repeated("plain", n),
        ]
        with self._failing():
            self._writer.write_batch(pa.record_batch(columns, schema=self._schema))
        self.num_rows += n

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            with self._failing():
                self._writer.close()
                self._stream.close()
                if isinstance(self._written, Path):
                    self._written.replace(os.fspath(self.path))
            return
        with contextlib.suppress(Exception):
            self._writer.close()
        with contextlib.suppress(Exception):
            self._stream.close()
        with contextlib.suppress(Exception):
            _remove(self._written)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a remote file system may raise anything
            raise CheckpointError(
                f"delta dump {self.path} could not be written: {error}",
                hint="free space or choose another delta_embedding_dump_config.output_dir, then "
                "go on with --continue_train",
            ) from error


def dump_files(directory: Location, prefix: str) -> dict[int, list[Location]]:
    """Returns step → files of the dumps in a directory, those of several ranks too."""
    single = re.compile(re.escape(prefix) + r"_step_(\d+)\.parquet")
    of_rank = re.compile(re.escape(prefix) + r"_step_(\d+)_rank_\d+_of_\d+\.parquet")
    found: dict[int, list[Location]] = {}
    for name in storage.list_directory(directory):
        match = single.fullmatch(name)
        if match:
            found.setdefault(int(match[1]), []).append(directory / name)
        elif re.fullmatch(r"step_\d+", name):
            for inner in storage.list_directory(directory / name):
                match = of_rank.fullmatch(inner)
                if match:
                    found.setdefault(int(match[1]), []).append(directory / name / inner)
    return found


def rows_of(path: Location) -> Iterator[tuple[str, Any]]:
    """Yields (weight, numbers of rows) of a dump, in parts.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        with storage.open_file(path) as stream:
            file = pq.ParquetFile(stream)
            for batch in file.iter_batches(columns=["table_fqn", "key_id"]):
                names = batch.column("table_fqn").dictionary_encode()
                keys = batch.column("key_id").to_numpy()
                codes = names.indices.to_numpy()
                for code, weight in enumerate(names.dictionary.to_pylist()):
                    yield weight, keys[codes == code]
    except (OSError, pa.ArrowException) as error:
        raise CheckpointError(
            f"delta dump {path} cannot be read: {error}", hint="remove the file"
        ) from error


def remove_dump(path: Location) -> None:
    """Removes a file of a dump, and the directory of its step if it was the last one there."""
    _remove(path)
    if isinstance(path, Path) and path.parent.name.startswith("step_"):
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def remove_partial(directory: Location, prefix: str) -> None:
    """Removes what killed runs have left unfinished."""
    if isinstance(directory, Path):
        name = f".{glob.escape(prefix)}_step_*{_PARTIAL}"
        for pattern in (name, f"step_*/{name}"):
            for path in directory.glob(pattern):
                path.unlink(missing_ok=True)


def _remove(path: Location) -> None:
    system, inner = storage.file_system(path)
    system.rm_file(inner)


def _repeated(text: str, n: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(np.zeros(n, np.int32), pa.array([text]))


def _floats(vectors: Any, dim: int) -> pa.Array:
    offsets = np.arange(0, vectors.size + 1, dim, dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(vectors).reshape(-1)))


def _bytes(packed: Any) -> pa.Array:
    n, width = packed.shape
    offsets = np.arange(0, packed.size + 1, width, dtype=np.int32)
    return pa.Array.from_buffers(
        pa.binary(), n, [None, pa.py_buffer(offsets), pa.py_buffer(packed.reshape(-1))]
    )
