"""The choice of the back end, and when kernels are compiled."""

import inspect
import subprocess
import sys

import pytest
from fg_kernels_help import backends

from tzrec.fg import kernels as fg_kernels
from tzrec.fg.kernels import plain


@pytest.fixture(autouse=True)
def _own_choice():
    yield
    fg_kernels.use_backend(None)


def test_switch():
    fg_kernels.use_backend("numpy")
    assert fg_kernels.kernels() is plain
    fg_kernels.use_backend(None)
    pytest.importorskip("numba")
    assert fg_kernels.kernels().__name__.endswith("compiled")
    fg_kernels.use_backend("numba")
    assert fg_kernels.kernels().__name__.endswith("compiled")


def test_unknown():
    with pytest.raises(ValueError, match="back end 'cuda' is not one of numba, numpy"):
        fg_kernels.use_backend("cuda")


@pytest.mark.skipif(len(backends) < 2, reason="needs numba")
def test_same_functions_and_signatures():
    from tzrec.fg.kernels import compiled

    assert compiled.__all__ == plain.__all__
    for name in plain.__all__:
        parameters = [
            list(inspect.signature(getattr(module, name)).parameters)
            for module in (compiled, plain)
        ]
        assert parameters[0] == parameters[1], name


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def test_import_is_light():
    code = (
        "import sys; import tzrec.fg.kernels as k; k.use_backend('numpy'); k.warm_up(print); "
        "k.kernels(); print([m for m in ('numba', 'torch', 'pyarrow') if m in sys.modules])"
    )
    assert run(code) == "[]"


def test_numpy_without_numba():
    code = (
        "import sys; sys.modules['numba'] = None; import tzrec.fg.kernels as k; k.warm_up(print); "
        "print(k.kernels().__name__)"
    )
    assert run(code) == "tzrec.fg.kernels.plain"


@pytest.mark.skipif(len(backends) < 2, reason="needs numba")
def test_compilation_is_told_once():
    from numba import types

    from tzrec.fg.kernels import compiled_base

    told, scope = [], {}
    exec("def add(a, b):\n    return a + b", scope)  # without a file, so never from the cache
    compiled_base.watch_compilation(lambda: told.append("compiles"))
    for _ in range(2):
        add = compiled_base.kernel(types.int64, types.int64, returns=types.int64)(scope["add"])
        assert add(2, 3) == 5
    assert told == ["compiles"]
    with pytest.raises(TypeError, match="No matching definition"):
        add(2.5, None)


@pytest.mark.slow
@pytest.mark.skipif(len(backends) < 2, reason="needs numba")
def test_warm_up_tells_why_it_waits(tmp_path):
    code = (
        f"import os; os.environ['NUMBA_CACHE_DIR'] = {str(tmp_path)!r}; "
        "import tzrec.fg.kernels as k; k.warm_up(print); print('ready'); k.warm_up(print)"
    )
    cold = run(code).splitlines()
    assert len(cold) == 2
    assert "once" in cold[0]
    assert run(code) == "ready"
