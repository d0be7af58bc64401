"""Defaults, truncation, combiners and buckets of numbers, on both back ends."""

import math

import numpy as np
import pytest
from fg_kernels_help import both, lengths_of, nest, quick
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

from tzrec.fg.combiners import COMBINERS

INT64 = np.iinfo(np.int64)
int_cells = st.lists(st.lists(st.integers(INT64.min, INT64.max), max_size=4), max_size=20)
float_cells = st.lists(st.lists(st.floats(width=64), max_size=6), max_size=20)


def bits(values):
    return np.where(np.isnan(values), np.nan, values).view(np.int64).tolist()


@both
@quick
@given(nested=int_cells, default=st.lists(st.integers(-9, 9), max_size=3))
def test_fill_empty_ids(k, nested, default):
    flat = np.array([v for cell in nested for v in cell], dtype=np.int64)
    values, lengths = k.fill_empty_ids(flat, lengths_of(nested), np.array(default, dtype=np.int64))
    assert values.dtype == np.int64
    assert nest(values.tolist(), lengths) == [cell or default for cell in nested]


@both
@quick
@given(
    counts=st.lists(st.integers(0, 3), max_size=20),
    shape=st.sampled_from([(), (1,), (3,)]),
    num_default=st.integers(0, 2),
    dtype=st.sampled_from(["f4", "f8"]),
)
def test_fill_empty_numbers(k, counts, shape, num_default, dtype):
    random = np.random.default_rng(len(counts))
    flat = random.random((sum(counts), *shape)).astype(dtype)
    default = -random.random((num_default, *shape)).astype(dtype)
    values, lengths = k.fill_empty_numbers(flat, np.array(counts, dtype=np.int32), default)
    parts, first = [flat[:0]], 0
    for count in counts:
        parts.append(flat[first : first + count] if count else default)
        first += count
    assert values.dtype == flat.dtype
    np.testing.assert_array_equal(values, np.concatenate(parts))
    assert lengths.dtype == np.int32
    assert lengths.tolist() == [count or num_default for count in counts]


@both
@quick
@given(counts=st.lists(st.integers(0, 9), max_size=20), most=st.integers(0, 10))
def test_take_first(k, counts, most):
    positions, lengths = k.take_first(np.array(counts, dtype=np.int32), most)
    assert positions.dtype == np.int64
    ends = np.cumsum(counts).tolist()
    expected = [
        [end - n + i for i in range(min(n, most))] for end, n in zip(ends, counts, strict=True)
    ]
    assert nest(positions.tolist(), lengths) == expected


def slow_extreme(values, better):
    best = values[0]
    for value in values[1:]:
        if math.isnan(value) or (not math.isnan(best) and better(value, best)):
            best = value
    return best


def slow_combine(values, how):
    if not values:
        return math.nan
    if how == "count":
        return float(len(values))
    if how in ("sum", "mean", "avg"):
        total = np.float64(values[0])
        for value in values[1:]:
            total = total + np.float64(value)
        return total if how == "sum" else total / len(values)
    if how.startswith("gap"):
        arr = np.array(values)
        values = np.abs(arr[1:] - arr[:-1]).tolist() or [0.0]
    return slow_extreme(values, float.__lt__ if how.endswith("min") else float.__gt__)


@both
@quick
@given(nested=float_cells, how=st.sampled_from(list(COMBINERS)))
def test_combine(k, nested, how):
    flat = np.array([v for cell in nested for v in cell], dtype=np.float64)
    got = k.combine(flat, lengths_of(nested), COMBINERS[how])
    with np.errstate(all="ignore"):
        expected = np.array([slow_combine(cell, how) for cell in nested], dtype=np.float64)
    assert bits(got) == bits(expected)


@both
@pytest.mark.parametrize("how", COMBINERS)
def test_combine_long_cells(k, how):
    random = np.random.default_rng(0)
    nested = [random.normal(size=n).tolist() for n in (63, 64, 65, 66, 1000, 0, 1)]
    nested += [[0.0, -0.0] * 100, [-0.0, 0.0] * 100, [1.0] * 100 + [math.nan] + [0.0] * 10]
    flat = np.array([v for cell in nested for v in cell])
    got = k.combine(flat, lengths_of(nested), COMBINERS[how])
    assert bits(got) == bits(np.array([slow_combine(cell, how) for cell in nested]))


@both
def test_combine_cases(k):
    values, lengths = np.array([3.0, 1.0, 6.0, 7.0]), np.array([3, 0, 1], dtype=np.int32)
    got = [k.combine(values, lengths, i)[[0, 2]].tolist() for i in range(7)]
    assert got == [[10, 7], [10 / 3, 7], [1, 7], [6, 7], [3, 1], [2, 0], [5, 0]]
    assert np.isnan([k.combine(values, lengths, i)[1] for i in range(7)]).all()
    with pytest.raises(ValueError, match="combiner 7"):
        k.combine(values, lengths, 7)


floats32 = st.floats(width=32)


@both
@quick
@given(
    values=hn.arrays(np.float32, st.integers(0, 30), elements=floats32),
    bounds=st.lists(st.floats(width=32, allow_nan=False), max_size=8),
)
def test_bucket_boundaries(k, values, bounds):
    bounds = np.sort(np.array(bounds, dtype=np.float32))
    got = k.bucket_boundaries(values, bounds)
    assert got.dtype == np.int64
    expected = [len(bounds) if v != v else int((bounds <= v).sum()) for v in values]
    assert got.tolist() == expected


@both
def test_bucket_number(k):
    values = np.array([0, 1, 9, 10, -1, INT64.max, INT64.min, 5], dtype=np.int64)
    status = np.array([0, 0, 0, 0, 0, 0, 0, 2], dtype=np.uint8)
    got = k.bucket_number(values, status, 10)
    assert got.dtype == np.int64
    assert got.tolist() == [0, 1, 9, 0, 0, 0, 0, 0]


@both
def test_nothing(k):
    none, ids = np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int64)
    assert [len(part) for part in k.fill_empty_ids(ids, none, ids)] == [0, 0]
    assert [len(part) for part in k.take_first(none, 3)] == [0, 0]
    assert len(k.combine(np.empty(0), none, 5)) == 0
    assert len(k.bucket_number(ids, np.empty(0, dtype=np.uint8), 3)) == 0
    values, lengths = k.fill_empty_ids(ids, np.zeros(2, dtype=np.int32), np.array([4, 5]))
    assert (values.tolist(), lengths.tolist()) == ([4, 5, 4, 5], [2, 2])
