"""A compiled package, called with tensors by name.

The package is run through the C interface of its library: torch's own loader keeps Python's
lock while a program runs, so that threads of a server would wait for each other.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import weakref
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.errors import ServingError
from tzrec.utils.scratch import Scratch

# Calls that run at the same time; more of them wait. Weights are shared.
NUM_RUNNERS = 8
_LIBRARY = ".wrapper.so"
_FOREIGN = ".wrapper.json"
_WHOLE = (torch.int32, torch.int64)


@dataclasses.dataclass(frozen=True)
class _Expected:
    name: str
    dtype: torch.dtype
    num_dims: int
    fixed: tuple[tuple[int, int], ...]  # (dimension, size)


class Package(nn.Module):
    """A compiled program: name → tensor to output → tensor.

    Compiled code reads memory as it was told to at the export, so every input is checked first.

    Args:
        path: the ``.pt2`` file.
        inputs: name, dtype and shape of its inputs, in its order.
        outputs: names of its outputs, in its order.
        device: where it runs.

    Raises:
        ServingError: the file is not such a program.
    """

    def __init__(
        self,
        path: Path,
        inputs: Sequence[Mapping[str, Any]],
        outputs: Sequence[str],
        *,
        device: torch.device,
    ) -> None:
        super().__init__()
        self._inputs = [_expected(each) for each in inputs]
        self._outputs = list(outputs)
        self._program = _Program(path, device)
        found = self._program.num_inputs, self._program.num_outputs
        if found != (len(inputs), len(outputs)):
            raise ServingError(
                f"{path} has {found[0]} inputs and {found[1]} outputs, not the "
                f"{len(inputs)} and {len(outputs)} that are recorded",
                hint="copy the artefact again, or export the checkpoint again",
            )

    def forward(self, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Runs the program.

        Raises:
            ServingError: an input is missing, its type or shape is not the program's, or the
                program stops with an error.
        """
        tensors = [_fitting(data, expected) for expected in self._inputs]
        return dict(zip(self._outputs, self._program.run(tensors), strict=True))


class _Program:
    """The library of a package."""

    def __init__(self, path: Path, device: torch.device) -> None:
        self._path = path
        self._device = device
        self._library = _load_library(path)
        self._container = ctypes.c_void_p()
        self._call(
            "AOTInductorModelContainerCreateWithDevice",
            ctypes.byref(self._container),
            ctypes.c_size_t(NUM_RUNNERS),
            str(device).encode(),
            None,
        )
        delete = self._library.AOTInductorModelContainerDelete
        weakref.finalize(self, delete, self._container)
        self.num_inputs = self._number_of("Inputs")
        self.num_outputs = self._number_of("Outputs")

    def _number_of(self, what: str) -> int:
        number = ctypes.c_size_t()
        name = f"AOTInductorModelContainerGetNum{what}"
        self._call(name, self._container, ctypes.byref(number))
        return number.value

    def run(self, tensors: list[Tensor]) -> list[Tensor]:
        """Runs the program without Python's lock."""
        # Handles of inputs are the program's from here on, those of outputs are ours.
        given = torch._C._aoti.unsafe_alloc_void_ptrs_from_tensors(tensors)
        inputs = (ctypes.c_void_p * len(given))(*[_pointer(capsule, None) for capsule in given])
        outputs = (ctypes.c_void_p * self.num_outputs)()
        stream = None
        if self._device.type == "cuda":
            stream = ctypes.c_void_p(torch.cuda.current_stream(self._device).cuda_stream)
        self._call(
            "AOTInductorModelContainerRun",
            self._container,
            inputs,
            ctypes.c_size_t(self.num_inputs),
            outputs,
            ctypes.c_size_t(self.num_outputs),
            stream,
            None,
        )
        made = [_capsule(pointer, None, None) for pointer in outputs]
        result: list[Tensor] = torch._C._aoti.alloc_tensors_by_stealing_from_void_ptrs(made)
        return result

    def _call(self, name: str, *arguments: Any) -> None:
        if getattr(self._library, name)(*arguments):
            raise ServingError(f"{self._path} failed: {self._last_error()}")

    def _last_error(self) -> str:
        text = ctypes.c_char_p()
        if self._library.AOTInductorGetLastError(ctypes.byref(text)) or not text.value:
            return "it says no more"
        return text.value.decode(errors="replace").strip()


# Prototypes of our own: those of ctypes.pythonapi are anybody's to change.
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)


def foreign_operators(path: Path) -> list[str]:
    """Returns the operators of a package that its C interface has no way to call.

    Args:
        path: the ``.pt2`` file.
    """
    found: list[str] = []
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(_FOREIGN):
                nodes = json.loads(archive.read(name))["nodes"]
                found += [node["node"]["target"] for node in nodes]
    return sorted(set(found))


def _load_library(path: Path) -> ctypes.CDLL:
    hint = "copy the artefact again, or export the checkpoint again"
    with Scratch(None, "tzrec-aoti-") as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if name.endswith(_LIBRARY)]
                if len(names) != 1:
                    raise ServingError(f"{path} holds {len(names)} programs, not one", hint=hint)
                library = folder / f"model{_LIBRARY}"
                library.write_bytes(archive.read(names[0]))
            # What is loaded stays when its file goes.
            return ctypes.CDLL(str(library))
        except (OSError, zipfile.BadZipFile) as error:
            raise ServingError(f"{path} cannot be loaded: {error}", hint=hint) from error


def _expected(given: Mapping[str, Any]) -> _Expected:
    shape = given["shape"]
    fixed = tuple((i, size) for i, size in enumerate(shape) if size is not None)
    return _Expected(given["name"], getattr(torch, given["dtype"]), len(shape), fixed)


def _fitting(data: Mapping[str, Tensor], expected: _Expected) -> Tensor:
    tensor = data.get(expected.name)
    if tensor is None:
        raise ServingError(f"input {expected.name} is missing")
    if tensor.dtype is not expected.dtype:
        if tensor.dtype not in _WHOLE or expected.dtype not in _WHOLE:
            raise ServingError(
                f"input {expected.name} is {tensor.dtype}, it must be {expected.dtype}"
            )
        tensor = tensor.to(expected.dtype)
    sizes = tensor.shape
    if len(sizes) != expected.num_dims or any(sizes[i] != n for i, n in expected.fixed):
        wanted = dict(expected.fixed)
        shape = ", ".join(str(wanted.get(i, "any")) for i in range(expected.num_dims))
        raise ServingError(f"input {expected.name} has shape {list(sizes)}, it must be [{shape}]")
    return tensor.contiguous()
