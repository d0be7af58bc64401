"""The kernels of feature generation: compiled by numba, or in NumPy with the same results.

Texts are ``(data, starts, ends)``: token i is ``data[starts[i]:ends[i]]`` of a byte buffer, which
may be that of an Arrow array. Cells (rows, or steps of rows) are given by ``lengths``, the number
of values of each, with the values of all cells one behind the other.

Types are fixed: data uint8, starts and ends int64, lengths int32, ids int64, numbers float64
unless a function says otherwise; all contiguous. Inputs are never written to.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import threading
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np

_BACKENDS = {"numba": "compiled", "numpy": "plain"}
_lock = threading.Lock()
_chosen: dict[str, str | None] = {"name": None}
_loaded: dict[str, ModuleType] = {}


def use_backend(name: str | None) -> None:
    """Chooses ``"numba"`` or ``"numpy"``; None takes numba where it can be imported.

    Raises:
        ValueError: there is no such back end.
    """
    if name is not None and name not in _BACKENDS:
        raise ValueError(f"back end {name!r} is not one of {', '.join(_BACKENDS)}")
    _chosen["name"] = name


@contextlib.contextmanager
def backend(name: str | None) -> Iterator[None]:
    """Chooses a back end as `use_backend`, for a while."""
    before = _chosen["name"]
    use_backend(name)
    try:
        yield
    finally:
        use_backend(before)


def kernels() -> ModuleType:
    """Returns the module that holds the kernels; the first call may compile them."""
    name = _chosen["name"]
    module = _loaded.get(name or "")
    return module if module is not None else _load(name)


def _load(name: str | None) -> ModuleType:
    with _lock:  # compiling twice would take twice as long
        wanted = name or ("numba" if importlib.util.find_spec("numba") else "numpy")
        module = importlib.import_module(f"{__name__}.{_BACKENDS[wanted]}")
        _loaded[wanted] = module
        _loaded[name or ""] = module
        return module


def warm_up(show: Callable[[str], None] | None = None) -> None:
    """Compiles all kernels or loads them from the cache; call it before workers start.

    Args:
        show: is told why it takes long, if the cache does not hold them.
    """
    name = _chosen["name"]
    if name == "numpy" or (name is None and importlib.util.find_spec("numba") is None):
        kernels()
        return
    base = importlib.import_module(f"{__name__}.compiled_base")

    def explain() -> None:
        if show is not None:
            show("compiling the kernels of feature generation, once: this takes about 10 s")

    base.watch_compilation(explain)
    try:
        module = kernels()
    finally:
        base.watch_compilation(None)
    # A first call also sets up the conversion of arguments.
    none = np.empty(0, dtype=np.uint8)
    ints = np.zeros(1, dtype=np.int64)
    module.bucket_text(none, ints, ints, 1, False)
