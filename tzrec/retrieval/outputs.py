"""``part-{rank}`` files of an earlier run, where a command is to write new ones."""

from __future__ import annotations

import os
import posixpath
import re

from tzrec import storage
from tzrec.datasets.files import expand_paths
from tzrec.errors import ConfigError, DataError
from tzrec.options import Options

_PART = re.compile(r"part-(\d+)\.(?:parquet|csv)$")


class OutputFiles:
    """What a process finds in an output directory before it writes there.

    Each process answers for its own file, the first one also for those of more processes than
    there are now: together they see all, and none sees what another has just written.

    Args:
        output_path: directory.
        input_path: comma list of what is read.
        options: of the process.
        overwrite: files of an earlier run may go.

    Raises:
        ConfigError: there are such files and they must not go, or what is read is among them.
    """

    def __init__(
        self, output_path: str, input_path: str, *, options: Options, overwrite: bool
    ) -> None:
        self._path = output_path.rstrip("/") or "/"
        self._old: list[str] = []
        for name in storage.list_directory(self._path):
            found = _PART.match(name)
            number = int(found[1]) if found else -1
            if number == options.rank or (options.rank == 0 and number >= options.world_size):
                self._old.append(name)
        if self._old and not overwrite:
            raise ConfigError(
                f"the output {output_path} holds files of an earlier run: {', '.join(self._old)}",
                hint="name another directory, or say --overwrite",
            )
        if self._old and self._holds_any(input_path):
            raise ConfigError(
                f"the output {output_path} holds the input {input_path}",
                hint="name another directory",
            )

    def _holds_any(self, input_path: str) -> bool:
        try:
            paths = expand_paths(input_path, "")
        except DataError:  # who reads them says what is wrong with them
            return False
        directory = _real(self._path)
        return any(posixpath.dirname(_real(path)) == directory for path in paths)

    def remove_left(self, written: str | None) -> None:
        """Removes those files of the earlier run that were not replaced by new ones.

        Args:
            written: name of the file that this process has written, None for none.
        """
        system, directory = storage.file_system(self._path)
        system.invalidate_cache()
        for name in self._old:
            if name != written:
                system.rm_file(f"{directory}/{name}")


def _real(path: str) -> str:
    """Returns where a path leads to, links followed."""
    system, inner = storage.file_system(path)
    return os.path.realpath(inner) if storage.is_local(system) else inner.rstrip("/")
