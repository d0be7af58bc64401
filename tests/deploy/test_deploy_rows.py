from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tzrec.deploy.rows import ColumnType, to_columns
from tzrec.errors import DataError

IDS = ColumnType(None, pa.int64())
NUMBERS = ColumnType(None, pa.float32())


def one(values, wanted=IDS):
    return to_columns({"c": values}, {"c": wanted})["c"]


@pytest.mark.parametrize(
    ("values", "wanted", "expected"),
    [
        ([1, 2], IDS, pa.array([1, 2])),
        (np.array([1, 2], np.int32), IDS, pa.array([1, 2], pa.int32())),
        (np.array([1, 2], np.uint8), IDS, pa.array([1, 2], pa.int32())),
        (["1\x032", None], IDS, pa.array(["1\x032", None])),
        ([[1], [], None], IDS, pa.array([[1], [], None], pa.list_(pa.int64()))),
        ([None, None], IDS, pa.array([None, None], pa.int64())),
        ([None], NUMBERS, pa.array([None], pa.float32())),
        ([[], []], NUMBERS, pa.array([[], []], pa.list_(pa.float32()))),
        ([1.5, None], NUMBERS, pa.array([1.5, None], pa.float64())),
        (pd.Series([1.0, float("nan")]), NUMBERS, pa.array([1.0, None], pa.float64())),
        (pd.Series(["a", None]), IDS, pa.array(["a", None])),
        (pd.Series(["a", "b", "a"], dtype="category"), IDS, pa.array(["a", "b", "a"])),
        (pd.Series([1, None], dtype="Int64"), IDS, pa.array([1, None])),
        (pa.array(["a"], pa.large_string()), IDS, pa.array(["a"])),
        (pa.array(["a", "a"]).dictionary_encode(), IDS, pa.array(["a", "a"])),
        (np.array(["a", float("nan"), None], object), IDS, pa.array(["a", None, None])),
        (np.array([1.5, float("nan")]), NUMBERS, pa.array([1.5, None], pa.float64())),
        (np.array([[1, 2], [3, 4]]), IDS, pa.array([[1, 2], [3, 4]])),
        (np.array([[1, 2], [3, 4]]).T, IDS, pa.array([[1, 3], [2, 4]])),
        (pa.chunked_array([[1], [2]]), IDS, pa.array([1, 2])),
        ([1, 2], ColumnType(pa.string(), pa.int64()), None),
        (pa.array([1, 2]), ColumnType(pa.string(), pa.int64()), pa.array(["1", "2"])),
        ([1, 2], ColumnType(pa.float32(), pa.float32()), pa.array([1, 2], pa.float32())),
        ([None], ColumnType(pa.string(), pa.int64()), pa.array([None], pa.string())),
    ],
)
def test_types(values, wanted, expected):
    if expected is None:
        with pytest.raises(DataError, match="'c' cannot be read as string"):
            one(values, wanted)
        return
    found = one(values, wanted)
    assert found.type == expected.type
    assert found.to_pylist() == expected.to_pylist()


FLOAT_LISTS = pa.list_(pa.float32())
COUNTS = pa.map_(pa.string(), pa.int32())


@pytest.mark.parametrize(
    ("values", "trained", "expected"),
    [
        # Numbers become of the type that training had, where it can hold them.
        ([0.1, None], pa.float32(), pa.array([0.1, None], pa.float32())),
        ([3, None], pa.float32(), pa.array([3, None], pa.float32())),
        (pd.Series([3.0, float("nan")]), pa.int64(), pa.array([3, None], pa.int64())),
        ([1.5], pa.int64(), pa.array([1.5], pa.float64())),
        ([2**40], pa.int32(), pa.array([2**40], pa.int64())),
        ([[0.5], None, []], FLOAT_LISTS, pa.array([[0.5], None, []], FLOAT_LISTS)),
        # What is missing altogether has the type of training.
        ([None], COUNTS, pa.array([None], COUNTS)),
        ([[], None], FLOAT_LISTS, pa.array([[], None], FLOAT_LISTS)),
        # Text stays text: a feature that splits it does the same with lists.
        (["1;2"], FLOAT_LISTS, pa.array(["1;2"])),
        (["a"], pa.int64(), pa.array(["a"])),
        # Objects of JSON, and pairs, are maps.
        ([{"a": 1, "b": 2}, None, {}], COUNTS, pa.array([[("a", 1), ("b", 2)], None, []], COUNTS)),
        ([[("a", 1)], None, []], COUNTS, pa.array([[("a", 1)], None, []], COUNTS)),
        ([None, {"a": 1.0}], COUNTS, pa.array([None, [("a", 1)]], COUNTS)),
        (
            [{"a": 0.5}],
            None,
            pa.array([[("a", 0.5)]], pa.map_(pa.string(), pa.float64())),
        ),
        ([{}, None], COUNTS, pa.array([[], None], COUNTS)),
        (pd.Series([{"a": 1}, float("nan")]), COUNTS, pa.array([[("a", 1)], None], COUNTS)),
        ([True, None], pa.float32(), pa.array([1, None], pa.float32())),
        ([0.5, 1], pa.float32(), pa.array([0.5, 1], pa.float32())),
        ([2**24 + 1], pa.float32(), pa.array([2**24 + 1], pa.int64())),
        ([1e300], pa.float32(), pa.array([float("inf")], pa.float32())),
        (pd.Series([1, 2], dtype="int16"), pa.float32(), pa.array([1, 2], pa.float32())),
        (pd.Series([0.5, float("nan")]), pa.float32(), pa.array([0.5, None], pa.float32())),
        # Types that a reader of files would not leave as they are.
        (["a", None], pa.large_string(), pa.array(["a", None])),
        (pa.array(["a"], pa.large_string()), pa.large_string(), pa.array(["a"])),
        (pa.array([1], pa.int8()), pa.int8(), pa.array([1], pa.int8())),
    ],
)
def test_types_of_training(values, trained, expected):
    found = one(values, ColumnType(None, pa.string(), trained))
    assert found.type == expected.type
    assert found.to_pylist() == expected.to_pylist()


@pytest.mark.parametrize("values", [[{"a": 1}, 7], [{"a": {"b": 1}}], [{"a": 1}, {"a": "x"}]])
def test_no_maps(values):
    with pytest.raises(DataError, match="'c'"):
        one(values)


@pytest.mark.parametrize(
    ("values", "declared", "message"),
    [
        ([1.5], pa.int64(), "'c' .double. cannot become int64"),
        ([[1], [1.5]], pa.list_(pa.int64()), "cannot become list<item: int64>"),
        ([2**40], pa.int32(), "cannot become int32"),
        (["x"], pa.float32(), "'c' cannot be read as float"),
        ([True], pa.string(), "'c' cannot be read as string"),
    ],
)
def test_declared_types_hold(values, declared, message):
    """What a type cannot hold is not cut down to it."""
    with pytest.raises(DataError, match=message):
        one(values, ColumnType(declared, pa.int64()))


def test_declared_integers():
    kind = ColumnType(pa.int64(), pa.int64())
    assert one([1.0, None], kind).equals(pa.array([1, None], pa.int64()))
    assert one([7, None], kind).equals(pa.array([7, None], pa.int64()))
    listed = ColumnType(pa.list_(pa.int32()), pa.int64())
    assert one([[1, 2], None, []], listed).equals(
        pa.array([[1, 2], None, []], pa.list_(pa.int32()))
    )


@pytest.mark.parametrize("wanted", [(pa.string(), None), (None, pa.string())])
def test_columns_of_the_right_type_are_taken_as_they_are(wanted):
    column = pa.array(["a", None])
    assert one(column, ColumnType(wanted[0], pa.int64(), wanted[1])) is column


def test_bytes_are_no_text_of_training():
    with pytest.raises(DataError, match="'c' of the rows has type binary"):
        one([b"a"], ColumnType(None, pa.string(), pa.string()))


def test_only_what_is_asked_for():
    frame = pd.DataFrame({"a": [1], "odd": [object()]})
    assert to_columns(frame, {"a": IDS})["a"].to_pylist() == [1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, "rows are a NoneType"),
        ([{"c": 1}], "rows are a list"),
        ({"d": [1]}, "lack the columns c"),
        ({"c": 1}, "'c' is 1, not a column"),
        ({"c": "abc"}, "'c' is 'abc', not a column"),
        ({"c": [b"abc"]}, "'c' of the rows has type binary"),
        ({"c": [1, "a"]}, "'c' cannot be read"),
        ({"c": np.zeros((2, 2, 2))}, "'c' is an array of 3 dimensions"),
        ({"c": np.array("x", object)}, "'c' is an array of 0 dimensions"),
        ({"c": np.array([["x", 1]], object)}, "'c' cannot be read"),
        (pd.DataFrame({0: [1]}), "lack the columns c"),
        (pd.DataFrame([[1, 2]], columns=["c", "c"]), "have the columns c more than once"),
        (pa.table([[1], [2]], names=["c", "c"]), "have the columns c more than once"),
        ({"c": [2**70]}, "'c' cannot be read"),
    ],
)
def test_wrong(rows, message):
    with pytest.raises(DataError, match=message):
        to_columns(rows, {"c": IDS})


def test_columns_that_nobody_reads_may_come_twice():
    rows = pa.table([[1], [2], [3]], names=["a", "x", "x"])
    assert to_columns(rows, {"a": IDS})["a"].to_pylist() == [1]


def test_rows_of_no_values():
    wanted = ColumnType(None, pa.float32(), pa.list_(pa.float32()))
    assert one(np.zeros((2, 0)), wanted).to_pylist() == [[], []]


def test_lengths():
    with pytest.raises(DataError, match="different numbers of rows: a 1, b 2"):
        to_columns({"a": [1], "b": [1, 2]}, {"a": IDS, "b": IDS})
