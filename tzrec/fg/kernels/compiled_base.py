"""What the compiled kernels share: the decorators, the array types, loads and bit tricks.

Import this module inside the function that needs it: it loads numba. All kernels expect byte
buffers of at least ``MARGIN`` bytes (see `padded`), so that a wide load can be moved back from
the end of a buffer. Platforms are little-endian.
"""

# No `from __future__ import annotations`: numba's typing decorators look at real objects.

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

MARGIN = 64

# Read-only inputs take writable arrays too: one machine code serves both.
BYTES = types.Array(types.uint8, 1, "C", readonly=True)
INTS = types.Array(types.int64, 1, "C", readonly=True)
LENGTHS = types.Array(types.int32, 1, "C", readonly=True)
WORDS = types.Array(types.uint64, 1, "C", readonly=True)
FLOATS = types.Array(types.float64, 1, "C", readonly=True)
UNITS = types.Array(types.uint32, 1, "C", readonly=True)
OUT_BYTES, OUT_INTS, OUT_LENGTHS = types.uint8[::1], types.int64[::1], types.int32[::1]
OUT_WORDS, OUT_FLOATS, OUT_UNITS = types.uint64[::1], types.float64[::1], types.uint32[::1]

_OPTIONS = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
_state: dict[str, Callable[[], None] | None] = {"on_compile": None}


def watch_compilation(on_compile: Callable[[], None] | None) -> None:
    """Sets what is called once, before the first kernel that is not in the cache."""
    _state["on_compile"] = on_compile


def kernel(*arguments: Any, returns: Any = types.void) -> Callable[[Callable[..., Any]], Any]:
    """Compiles a kernel for one signature, or loads it from the cache.

    The stored code does not notice when a helper in another file changes: touch the kernel's
    file after changing this one.
    """

    def build(function: Callable[..., Any]) -> Any:
        try:
            dispatcher = numba.njit(cache=True, **_OPTIONS)(function)
        except RuntimeError:  # neither the package nor the home directory can be written to
            dispatcher = numba.njit(**_OPTIONS)(function)
        dispatcher.compile(returns(*arguments))
        stats = dispatcher.stats
        on_compile = _state["on_compile"]
        if on_compile is not None and not sum(stats.cache_hits.values()):
            _state["on_compile"] = None
            on_compile()
        dispatcher.disable_compile()
        return dispatcher

    return build


def helper(function: Callable[..., Any]) -> Any:
    """Compiles a function that only kernels call."""
    return numba.njit(no_cpython_wrapper=True, **_OPTIONS)(function)


def padded(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns ``data``, or a copy with zeros behind it when it is shorter than ``MARGIN``."""
    if len(data) >= MARGIN:
        return data
    copy = np.zeros(MARGIN, dtype=np.uint8)
    copy[: len(data)] = data
    return copy


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    struct = context.make_array(array_type)(context, builder, array)
    return builder.gep(struct.data, [index])


@intrinsic
def load8(typing_context: Any, data: Any, at: Any) -> Any:  # noqa: ARG001
    """Returns the 8 bytes from position ``at`` on as uint64; they must lie in the buffer."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = _address(context, builder, signature.args[0], args[0], args[1])
        word = builder.load(builder.bitcast(address, ir.IntType(64).as_pointer()))
        word.align = 1
        return word

    return types.uint64(data, types.int64), emit


@intrinsic
def store8(typing_context: Any, data: Any, at: Any, word: Any) -> Any:  # noqa: ARG001
    """Writes 8 bytes from position ``at`` on; they must lie in the buffer."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = _address(context, builder, signature.args[0], args[0], args[1])
        stored = builder.store(args[2], builder.bitcast(address, ir.IntType(64).as_pointer()))
        stored.align = 1
        return context.get_dummy_value()

    return types.void(data, types.int64, types.uint64), emit


@intrinsic
def match_bytes(typing_context: Any, data: Any, at: Any, first: Any, second: Any) -> Any:  # noqa: ARG001
    """Returns a mask of which of the 64 bytes from ``at`` on are one of two values."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte, word = ir.IntType(8), ir.IntType(32)
        vector = ir.VectorType(byte, MARGIN)
        address = _address(context, builder, signature.args[0], args[0], args[1])
        block = builder.load(builder.bitcast(address, vector.as_pointer()))
        block.align = 1
        lanes = ir.Constant(ir.VectorType(word, MARGIN), [0] * MARGIN)
        found = []
        for value in args[2:]:
            one = builder.insert_element(
                ir.Constant(vector, ir.Undefined), value, ir.Constant(word, 0)
            )
            splat = builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), lanes)
            found.append(builder.icmp_unsigned("==", block, splat))
        return builder.bitcast(builder.or_(*found), ir.IntType(64))

    return types.uint64(data, types.int64, types.uint8, types.uint8), emit


def _bit_function(name: str) -> Any:
    def count(typing_context: Any, word: Any) -> Any:  # noqa: ARG001
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
            wide, bit = ir.IntType(64), ir.IntType(1)
            extra = [] if name == "ctpop" else [bit]
            function_type = ir.FunctionType(wide, [wide, *extra])
            function = cgutils.get_or_insert_function(
                builder.module, function_type, f"llvm.{name}.i64"
            )
            return builder.call(function, [args[0], *(ir.Constant(bit, 0) for _ in extra)])

        return types.int64(types.uint64), emit

    return intrinsic(count)


trailing_zeros = _bit_function("cttz")
count_ones = _bit_function("ctpop")


@intrinsic
def high_product(typing_context: Any, left: Any, right: Any) -> Any:  # noqa: ARG001
    """Returns the upper 64 bits of the product of two uint64."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        double = ir.IntType(128)
        product = builder.mul(*(builder.zext(value, double) for value in args))
        upper = builder.lshr(product, ir.Constant(double, 64))
        return builder.trunc(upper, ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), emit


@helper
def load_part(data: Any, at: int, count: int) -> Any:
    """Returns the first ``count`` (0 to 8) bytes from ``at`` on, zeros above them."""
    place = min(at, len(data) - 8)
    word = load8(data, place) >> np.uint64(8 * ((at - place) & 7))
    keep = np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64((64 - 8 * count) & 63)
    return word & keep if count > 0 else np.uint64(0)


@helper
def copy_bytes(data: Any, start: int, count: int, out: Any, at: int) -> None:
    """Copies ``count`` bytes from position ``start`` of ``data`` to ``at`` in ``out``."""
    if count >= 8:
        whole = count - 8
        for step in range(0, whole, 8):
            store8(out, at + step, load8(data, start + step))
        store8(out, at + whole, load8(data, start + whole))
    else:
        for step in range(count):
            out[at + step] = data[start + step]


@helper
def same_bytes(data: Any, start: int, others: Any, other: int, count: int) -> bool:
    """Tells whether two texts of ``count`` bytes are equal."""
    for step in range(0, count - 7, 8):
        if load8(data, start + step) != load8(others, other + step):
            return False
    rest = count & 7
    start, other = start + count - rest, other + count - rest
    return load_part(data, start, rest) == load_part(others, other, rest)
