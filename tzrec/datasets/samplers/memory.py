"""`SharedArrays`: named arrays that the processes of a host share, and that die with them.

The memory is anonymous (``memfd_create``). Another process opens it as
``/proc/<pid>/fd/<number>`` of the one that made it, so no file and no name is ever left behind,
however the processes end.
"""

from __future__ import annotations

import mmap
import os
import secrets
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tzrec.errors import DistributedError


@dataclass(frozen=True)
class Segment:
    """An array in the memory of a process.

    Attributes:
        name: of the array.
        descriptor: number of the file in the process that made it.
        dtype: type of an element.
        length: number of elements.
    """

    name: str
    descriptor: int
    dtype: str
    length: int


@dataclass(frozen=True)
class Handle:
    """What a process needs to open the arrays of another one on the same host.

    Attributes:
        pid: the process that made them.
        token: proves that the process is still the same.
        segments: the arrays.
    """

    pid: int
    token: str
    segments: tuple[Segment, ...]


class SharedArrays:
    """One-dimensional arrays by name, allocated one by one and read-only once frozen.

    Where the system has no ``memfd_create`` they are plain arrays, and pickling copies them.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}
        self._segments: list[Segment] = []
        self._pid, self._token = os.getpid(), secrets.token_hex(8)

    def allocate(self, name: str, length: int, dtype: DTypeLike) -> NDArray[Any]:
        """Returns a new array of zeros."""
        assert name not in self._arrays, name
        kind = np.dtype(dtype)
        if not hasattr(os, "memfd_create"):
            self._arrays[name] = np.zeros(length, kind)
            return self._arrays[name]
        descriptor = os.memfd_create(self._file_name)
        weakref.finalize(self, os.close, descriptor)
        os.ftruncate(descriptor, max(length * kind.itemsize, 1))
        self._segments.append(Segment(name, descriptor, kind.str, length))
        self._arrays[name] = _map(descriptor, kind, length, writable=True)
        return self._arrays[name]

    def put(self, name: str, values: NDArray[Any]) -> None:
        """Copies an array."""
        self.allocate(name, len(values), values.dtype)[:] = values

    def freeze(self) -> None:
        """Makes all arrays read-only; references to writable ones must be gone."""
        for segment in self._segments:
            kind = np.dtype(segment.dtype)
            self._arrays[segment.name] = _map(
                segment.descriptor, kind, segment.length, writable=False
            )
        for array in self._arrays.values():
            array.flags.writeable = False

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self._arrays.values())

    def handle(self) -> Handle | None:
        """Returns what another process needs to `attach`, None where memory is not shared."""
        if not self._segments:
            return None
        return Handle(self._pid, self._token, tuple(self._segments))

    @classmethod
    def attach(cls, handle: Handle) -> SharedArrays:
        """Opens the arrays of another process, which may end afterwards.

        Raises:
            DistributedError: it has ended, or its memory cannot be opened from here.
        """
        arrays = cls()
        arrays._pid, arrays._token = handle.pid, handle.token
        arrays._segments = list(handle.segments)
        for segment in handle.segments:
            array = _open(handle, segment, arrays._file_name)
            array.flags.writeable = False
            arrays._arrays[segment.name] = array
        return arrays

    @property
    def _file_name(self) -> str:
        return f"tzrec-sampler-{self._token}"

    def __reduce__(self) -> tuple[Any, ...]:
        handle = self.handle()
        if handle is not None:
            return SharedArrays.attach, (handle,)
        return _private, (dict(self._arrays),)


def _private(arrays: dict[str, NDArray[Any]]) -> SharedArrays:
    copied = SharedArrays()
    copied._arrays = arrays
    return copied


def _open(handle: Handle, segment: Segment, file_name: str) -> NDArray[Any]:
    path = f"/proc/{handle.pid}/fd/{segment.descriptor}"
    try:
        if not os.readlink(path).startswith(f"/memfd:{file_name}"):
            raise ProcessLookupError(f"{path} is another file now")
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise DistributedError(
            f"cannot open the sampler's tables in process {handle.pid}: {error}",
            hint="the process that reads the sampler's tables must be alive, on this host, and "
            "of the same user",
        ) from error
    try:
        return _map(descriptor, np.dtype(segment.dtype), segment.length, writable=False)
    finally:
        os.close(descriptor)


def _map(descriptor: int, kind: np.dtype[Any], length: int, *, writable: bool) -> NDArray[Any]:
    access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
    buffer = mmap.mmap(descriptor, max(length * kind.itemsize, 1), access=access)
    return np.frombuffer(buffer, kind, length)
