"""Which run the dumps of a directory belong to.

Below its ``model_dir`` a run's dumps are its own. In an ``output_dir`` that runs may share, a
file beside the dumps of a prefix says whose they are.
"""

from __future__ import annotations

import os
from pathlib import Path

from tzrec import storage
from tzrec.errors import CheckpointError
from tzrec.protos.train_pb2 import DeltaEmbeddingDumpConfig
from tzrec.training.delta.files import dump_files
from tzrec.training.location import Location, location


class DumpOwner:
    """What a run may do with the dumps of its prefix in its output directory.

    Args:
        config: place and names of the dumps.
        model_dir: the run.

    Attributes:
        directory: where the dumps go: ``output_dir``, by default below ``model_dir``.
        path: the file that says whose dumps these are: the ``model_dir`` of their run.
    """

    def __init__(self, config: DeltaEmbeddingDumpConfig, model_dir: str | os.PathLike[str]) -> None:
        run = location(model_dir)
        self._prefix = config.file_prefix
        self._run = str(run.resolve() if isinstance(run, Path) else run)
        self._is_shared = bool(config.output_dir)
        self.directory: Location = run / "delta_embedding_dump"
        if config.output_dir:
            self.directory = location(config.output_dir)
        self.path = self.directory / f"{self._prefix}_run.txt"

    def check(self, *, goes_on: bool) -> None:
        """Keeps a run from removing or replacing the dumps of another one.

        Args:
            goes_on: the run began earlier, and may have dumps.

        Raises:
            CheckpointError: the dumps are of another run, or nothing says whose they are.
        """
        owner = self._read()
        found = dump_files(self.directory, self._prefix)
        known = owner is not None or not self._is_shared
        if owner in (None, self._run) and (not found or (goes_on and known)):
            return
        raise CheckpointError(
            f"{self.directory} already holds delta dumps of {self._whose(owner, goes_on)}: "
            f"{self._prefix!r}" + (f", steps {min(found)} to {max(found)}" if found else ""),
            hint="name another delta_embedding_dump_config.output_dir or file_prefix; or, "
            + (
                f"if they are of this run, write its model_dir {self._run} into {self.path}"
                if goes_on
                else "to go on with that run, pass --continue_train with its model_dir; or delete "
                f"them and {self.path.name}"
            ),
        )

    def _whose(self, owner: str | None, goes_on: bool) -> str:
        if owner in (None, self._run):
            return "an unknown run" if goes_on else "another run"
        return f"another run ({owner})" if owner else "another run, which begins just now"

    def claim(self) -> None:
        """Says in a shared directory that the dumps are of this run; the first rank calls it.

        Raises:
            CheckpointError: another run has said so since `check`, or the file cannot be written.
        """
        if not self._is_shared or self._read() == self._run:
            return
        self.check(goes_on=False)
        try:
            if isinstance(self.path, Path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                # Of two runs that begin at once, one finds that the file exists.
                with self.path.open("x", encoding="utf-8") as stream:
                    stream.write(self._run + "\n")
            else:
                with storage.open_file(self.path, "w", encoding="utf-8") as stream:
                    stream.write(self._run + "\n")
        except Exception as error:  # a remote file system may raise anything
            if isinstance(error, FileExistsError):
                self.check(goes_on=False)  # or a file lies where the directory should be
            raise self._failure("written", error) from error

    def _read(self) -> str | None:
        try:
            if not storage.exists(self.path):
                return None
            with storage.open_file(self.path, "r", encoding="utf-8") as stream:
                return str(stream.read()).strip()
        except Exception as error:
            raise self._failure("read", error) from error

    def _failure(self, done: str, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"{self.path}, which says whose delta dumps these are, could not be {done}: {error}",
            hint="mend the directory or name another delta_embedding_dump_config.output_dir",
        )
