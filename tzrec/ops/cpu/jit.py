"""Helpers of the kernels: prefetching, and tables of half floats.

A half-float table reaches a kernel as uint16, since numba has no half floats on a CPU; `load`
and `store` convert. Import this module inside the function that runs a kernel: it loads numba.
"""

# No `from __future__ import annotations`: numba's typing decorators look at real objects.

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload


def kernel(function: Callable[..., Any]) -> Any:
    """Compiles a kernel at its first call and keeps the machine code on disk.

    The stored code does not notice when a helper in another file changes: touch the kernel's
    file after changing this one.
    """
    # Division by zero gives inf as in NumPy; numba's default check would stop vectorisation.
    compile_to = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **compile_to)(function)
    except RuntimeError:  # neither the package nor the home directory can be written to
        return numba.njit(**compile_to)(function)


@intrinsic
def prefetch(typing_context: Any, array: Any, index: Any) -> Any:  # noqa: ARG001
    """Asks the cache for the element at flat position ``index`` of a C-contiguous array."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        struct = context.make_array(signature.args[0])(context, builder, args[0])
        byte, word = ir.IntType(8), ir.IntType(32)
        address = builder.bitcast(builder.gep(struct.data, [args[1]]), byte.as_pointer())
        function_type = ir.FunctionType(ir.VoidType(), [address.type, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
        write, near, data = (ir.Constant(word, value) for value in (1, 3, 1))
        builder.call(function, [address, write, near, data])
        return context.get_dummy_value()

    return types.void(array, types.int64), emit


@intrinsic
def _float_of_bits(typing_context: Any, bits: Any) -> Any:  # noqa: ARG001
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.uint32), emit


@intrinsic
def _bits_of_float(typing_context: Any, value: Any) -> Any:  # noqa: ARG001
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        return builder.bitcast(args[0], ir.IntType(32))

    return types.uint32(types.float32), emit


@kernel
def half_to_float(half: Any) -> Any:
    """Returns the float32 of a half float given as uint16."""
    bits = np.uint32((np.uint32(half) & np.uint32(0x7FFF)) << np.uint32(13))
    exponent = np.uint32(bits & np.uint32(0x0F800000))
    bits = np.uint32(bits + np.uint32(0x38000000))  # rebias 15 → 127
    if exponent == np.uint32(0x0F800000):  # inf, nan
        bits = np.uint32(bits + np.uint32(0x38000000))
    elif exponent == np.uint32(0):  # subnormal: let the FPU normalise
        bits = np.uint32(bits + np.uint32(0x00800000))
        bits = _bits_of_float(_float_of_bits(bits) - _float_of_bits(np.uint32(0x38800000)))
    sign = np.uint32((np.uint32(half) & np.uint32(0x8000)) << np.uint32(16))
    return _float_of_bits(np.uint32(bits | sign))


@kernel
def float_to_half(value: Any) -> Any:
    """Returns the nearest half float (ties to even) as uint16."""
    bits = _bits_of_float(np.float32(value))
    sign = np.uint32(bits & np.uint32(0x80000000))
    bits = np.uint32(bits ^ sign)
    if bits >= np.uint32(0x47800000):  # too large, inf or nan
        half = np.uint32(0x7E00) if bits > np.uint32(0x7F800000) else np.uint32(0x7C00)
    elif bits < np.uint32(0x38800000):  # subnormal: the FPU rounds at the right bit
        shifted = _float_of_bits(bits) + _float_of_bits(np.uint32(0x3F000000))
        half = np.uint32(_bits_of_float(shifted) - np.uint32(0x3F000000))
    else:
        odd = np.uint32((bits >> np.uint32(13)) & np.uint32(1))
        rounded = np.uint32(bits + np.uint32(0xC8000FFF) + odd)  # rebias 127 → 15
        half = np.uint32(rounded >> np.uint32(13))
    return np.uint16(half | np.uint32(sign >> np.uint32(16)))


def load(table: Any, row: Any, column: Any) -> Any:
    """Returns ``table[row, column]`` as float32."""
    raise NotImplementedError("only inside kernels")


def store(table: Any, row: Any, column: Any, value: Any) -> None:
    """Sets ``table[row, column]`` to a float32."""
    raise NotImplementedError("only inside kernels")


# Implementations must be annotated like the overload: numba compares the signatures.
@overload(load)
def _load(table: Any, row: Any, column: Any) -> Any:  # noqa: ARG001
    def load_float(table: Any, row: Any, column: Any) -> Any:
        return table[row, column]

    def load_half(table: Any, row: Any, column: Any) -> Any:
        return half_to_float(table[row, column])

    return load_float if table.dtype == types.float32 else load_half


@overload(store)
def _store(table: Any, row: Any, column: Any, value: Any) -> Any:  # noqa: ARG001
    def store_float(table: Any, row: Any, column: Any, value: Any) -> Any:
        table[row, column] = value

    def store_half(table: Any, row: Any, column: Any, value: Any) -> Any:
        table[row, column] = float_to_half(value)

    return store_float if table.dtype == types.float32 else store_half
