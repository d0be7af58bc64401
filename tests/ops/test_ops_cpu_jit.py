"""Half floats in kernels against NumPy's."""

import numba
import numpy as np

from tzrec.ops.cpu import jit


@jit.kernel
def to_float(halves, floats):
    for i in range(len(halves)):
        floats[i] = jit.half_to_float(halves[i])


@jit.kernel
def to_half(floats, halves):
    for i in range(len(floats)):
        halves[i] = jit.float_to_half(floats[i])


def test_every_half_becomes_numpys_float():
    halves = np.arange(2**16, dtype=np.uint16)
    floats = np.empty(len(halves), np.float32)
    to_float(halves, floats)
    expected = halves.view(np.float16).astype(np.float32)
    np.testing.assert_array_equal(np.isnan(floats), np.isnan(expected))
    finite = ~np.isnan(expected)
    np.testing.assert_array_equal(floats[finite].view(np.uint32), expected[finite].view(np.uint32))


def test_floats_round_as_numpy_does():
    rng = np.random.default_rng(0)
    every_half = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    every_half = every_half[np.isfinite(every_half)]
    between = np.nextafter(every_half, np.float32(np.inf))
    floats = np.concatenate(
        [
            every_half,
            between,
            (every_half + np.roll(every_half, 1)) / 2,  # ties
            rng.standard_normal(100_000).astype(np.float32) * 1e-6,
            rng.integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32),
        ]
    )
    floats = floats[~np.isnan(floats)]
    halves = np.empty(len(floats), np.uint16)
    to_half(floats, halves)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(halves, floats.astype(np.float16).view(np.uint16))


def test_nan_stays_nan():
    halves = np.empty(2, np.uint16)
    to_half(np.array([np.nan, -np.nan], np.float32), halves)
    assert np.isnan(halves.view(np.float16)).all()


def test_kernels_compile_where_nothing_can_be_stored(monkeypatch):
    njit = numba.njit

    def refuse(*args, cache=False, **kwargs):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(*args, **kwargs)

    monkeypatch.setattr(numba, "njit", refuse)
    assert jit.kernel(lambda x: x + 1)(1) == 2
