"""JSON of requests: what becomes of it, and what is refused, with the field that is at fault."""

import json
import math
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tzrec.serving.decode import read_rows
from tzrec.serving.errors import RequestError
from tzrec.serving.json_body import parse_json
from tzrec.serving.options import ServeOptions
from tzrec.serving.schema import Column
from tzrec.serving.values import read_values

OPTIONS = ServeOptions()
MAP = pa.map_(pa.string(), pa.float32())
COLUMNS = (
    Column("id", pa.int64()),
    Column("small", pa.int32()),
    Column("price", pa.float32()),
    Column("name", pa.string(), nullable=False),
    Column("tags", pa.list_(pa.string())),
    Column("tastes", MAP),
)
ROW = {"id": 7, "small": 1, "price": 0.5, "name": "a", "tags": ["x", "y"], "tastes": {"k": 2.0}}


def refused(body, columns=COLUMNS, **options):
    """The error of a body that is refused."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(RequestError) as caught:
        read_rows(parse_json(content), columns, ServeOptions(**options))
    assert caught.value.message
    return caught.value


def values_of(values, kind, **options):
    return read_values(values, Column("c", kind), lambda row: f"c[{row}]", ServeOptions(**options))


def value_refused(value, kind, **options):
    """Code and field of the error of the value, between good ones (null is one)."""
    with pytest.raises(RequestError) as caught:
        values_of([None, value, None], kind, **options)
    assert caught.value.status == 422
    assert caught.value.field == "c[1]"
    return caught.value.code


class TestBody:
    @pytest.mark.parametrize(
        ("body", "status", "code"),
        [
            (b"", 400, "empty_body"),
            (b" ", 400, "bad_json"),
            (b"{", 400, "bad_json"),
            (b"{'rows': []}", 400, "bad_json"),
            (b'{"rows": []} x', 400, "bad_json"),
            (b"\xef\xbb\xbf{}", 400, "bad_json"),
            (b'{"rows": "\xff"}', 400, "bad_utf8"),
            (b'{"rows": "\xed\xa0\x80"}', 400, "bad_utf8"),
            (b'{"rows": "\\ud800"}', 400, "bad_json"),
            (b'{"a": NaN}', 400, "not_finite"),
            (b'{"a": [1, -Infinity]}', 400, "not_finite"),
            (b'{"a": 1e999}', 400, "not_finite"),
            (b'{"a": ' + b"[" * 2000 + b"]" * 2000 + b"}", 400, "too_deep"),
            (b"[]", 422, "wrong_type"),
            (b"null", 422, "wrong_type"),
            (b'"rows"', 422, "wrong_type"),
        ],
    )
    def test_what_is_no_object(self, body, status, code):
        with pytest.raises(RequestError) as caught:
            parse_json(body)
        assert (caught.value.status, caught.value.code) == (status, code)

    def test_where_it_breaks(self):
        with pytest.raises(RequestError, match="line 2, column 7"):
            parse_json(b'{"rows":\n  [1, }')

    @pytest.mark.parametrize(
        "body",
        [
            '{"a": 1, "a": 1}',
            '{"a" : 1, "a"\n: 2}',
            '{"rows": [{"x": 1, "y": 2, "x": 3}]}',
            '{"columns": {"x": [1], "x": [2]}}',
            '{"rows": [{"m": {"k": 1, "k": 2}}]}',
            '{"a": ":", "b": {"c": 1, "\\u0063": 2}}',
        ],
    )
    def test_a_key_that_comes_twice(self, body):
        with pytest.raises(RequestError) as caught:
            parse_json(body.encode())
        assert (caught.value.status, caught.value.code) == (400, "repeated_key")

    @pytest.mark.parametrize(
        "body",
        [
            '{"rows": [{"x": 1}, {"x": 2}]}',
            '{"rows": [{"x": "a:b"}, {"x": ":"}, {"x": "\\":"}]}',
            '{"rows": [{"m": {"k": 1, "l": {"k": 2}}}, {"m": {"k": 1}}]}',
            '{"a" : 1.5, "b": ":"}',
        ],
    )
    def test_keys_that_only_look_alike(self, body):
        assert parse_json(body.encode()) == json.loads(body)

    def test_doubtful_texts_nested_deep(self):
        """Bodies that are read again are not read by a parser that can be made to overflow."""
        deep = b"[" * 1000 + b"]" * 1000
        with pytest.raises(RequestError) as caught:
            parse_json(b'{"a": ":", "b": {"c": {"d": 1}}, "e": ' + deep + b"}")
        assert caught.value.code == "too_deep"


class TestValues:
    def test_every_type(self):
        rows = read_rows({"rows": [ROW, {**ROW, "price": None, "tags": None}]}, COLUMNS, OPTIONS)
        assert rows.num_rows == 2
        assert {name: array.type for name, array in rows.columns.items()} == {
            column.name: column.type for column in COLUMNS
        }
        assert rows.columns["price"].to_pylist() == [0.5, None]
        assert rows.columns["tags"].to_pylist() == [["x", "y"], None]
        assert rows.columns["tastes"].to_pylist() == [[("k", 2.0)], [("k", 2.0)]]

    @pytest.mark.parametrize(
        ("kind", "value"),
        [
            (pa.int64(), 2**63 - 1),
            (pa.int64(), -(2**63)),
            (pa.int32(), 2**31 - 1),
            (pa.float64(), 1e300),
            (pa.string(), ""),
            (pa.string(), "a\x00\U0001f600"),
            (pa.list_(pa.list_(pa.int64())), [[1], [], [2, 3]]),
            (pa.list_(pa.int64()), []),
            (pa.list_(pa.string()), ["a", None]),
        ],
    )
    def test_values_arrive_as_they_are(self, kind, value):
        array = values_of([value, None, value], kind)
        assert array.type == kind
        assert array.to_pylist() == [value, None, value]
        array.validate(full=True)

    def test_numbers_of_the_other_kind(self):
        """JavaScript writes 5.0 as 5, and others 5 as 5.0: both mean the number."""
        assert values_of([5.0, 3, None], pa.int64()).to_pylist() == [5, 3, None]
        assert values_of([5, 0.5], pa.float32()).to_pylist() == [5.0, 0.5]
        # Integers that a float cannot hold are rounded, as a reader of files rounds them.
        assert values_of([2**24 + 1], pa.float32()).to_pylist() == [2.0**24]
        assert values_of([2**63], pa.float64()).to_pylist() == [2.0**63]

    @given(st.lists(st.floats(width=64, allow_nan=False, allow_infinity=False) | st.none()))
    def test_floats_are_rounded_as_numpy_rounds(self, numbers):
        """Oracle: NumPy's cast."""
        fit = [n for n in numbers if n is None or abs(n) <= np.finfo(np.float32).max]
        wanted = [None if n is None else float(np.float32(n)) for n in fit]
        assert values_of(fit, pa.float32()).to_pylist() == wanted

    def test_maps(self):
        array = values_of([{"1": 2, "-3": 4}, None, {}], pa.map_(pa.int64(), pa.int64()))
        assert array.to_pylist() == [[(1, 2), (-3, 4)], None, []]
        array.validate(full=True)

    def test_columns_whose_type_nobody_knows(self):
        assert values_of([1, None], None).type == pa.int64()
        assert values_of(["a"], None).type == pa.string()
        assert values_of([[1.5], []], None).type == pa.list_(pa.float64())
        assert values_of([[["a"]]], None).to_pylist() == [[["a"]]]

    @pytest.mark.parametrize(
        ("kind", "value", "code"),
        [
            (pa.int64(), "1", "wrong_type"),
            (pa.int64(), 1.5, "wrong_type"),
            (pa.int64(), True, "wrong_type"),
            (pa.int64(), [1], "wrong_type"),
            (pa.int64(), {}, "wrong_type"),
            (pa.int64(), 2**63, "out_of_range"),
            # Beyond 64 bits orjson gives floats, which fit again by accident.
            (pa.int64(), -9.223372036854775808e18, "out_of_range"),
            (pa.int64(), 1e300, "out_of_range"),
            (pa.int32(), 2**31, "out_of_range"),
            (pa.float32(), "0.5", "wrong_type"),
            (pa.float32(), False, "wrong_type"),
            (pa.float32(), 1e39, "out_of_range"),
            (pa.float32(), -(2**200), "out_of_range"),
            (pa.float64(), [0.5], "wrong_type"),
            (pa.string(), 5, "wrong_type"),
            (pa.string(), True, "wrong_type"),
            (pa.string(), ["a"], "wrong_type"),
            (pa.string(), {"a": 1}, "wrong_type"),
            (pa.list_(pa.string()), "abc", "wrong_type"),
            (pa.list_(pa.string()), ["a", 1], "wrong_type"),
            (pa.list_(pa.string()), [["a"]], "wrong_type"),
            (pa.list_(pa.int64()), {"0": 1}, "wrong_type"),
            (pa.list_(pa.int64()), [1, 2**64], "out_of_range"),
            (pa.list_(pa.int64()), [True], "wrong_type"),
            (MAP, [["k", 1.0]], "wrong_type"),
            (MAP, {"k": "1"}, "wrong_type"),
            (MAP, "k:1", "wrong_type"),
            (pa.map_(pa.int64(), pa.int64()), {"x": 1}, "wrong_type"),
            (pa.map_(pa.int64(), pa.int64()), {"9" * 19: 1}, "out_of_range"),
            (pa.map_(pa.int64(), pa.int64()), {"1": 0.5}, "wrong_type"),
            (None, {"a": 1}, "wrong_type"),
            (None, [[[1]]], "wrong_type"),
        ],
    )
    def test_values_of_another_type(self, kind, value, code):
        assert value_refused(value, kind) == code

    def test_limits(self):
        assert value_refused("x" * 11, pa.string(), max_text=10) == "text_too_long"
        assert value_refused(["x", "x" * 11], pa.list_(pa.string()), max_text=10) == "text_too_long"
        assert value_refused({"k" * 11: 1}, MAP, max_text=10) == "text_too_long"
        assert value_refused("x" * 11, None, max_text=10) == "text_too_long"
        # Characters, not bytes.
        assert values_of(["ä" * 10], pa.string(), max_text=10).to_pylist() == ["ä" * 10]
        deep = json.loads("[" * 9 + "]" * 9)
        assert value_refused(deep, pa.list_(pa.string()), max_depth=8) == "too_deep"
        assert value_refused(deep, pa.list_(pa.string()), max_depth=9) == "wrong_type"

    def test_values_that_only_together_make_no_column(self):
        with pytest.raises(RequestError) as caught:
            values_of([1, "a"], None)
        assert (caught.value.code, caught.value.field) == ("wrong_type", "c")


class TestShapes:
    def test_all_shapes_give_the_same_columns(self):
        rows = [{**ROW, "id": i} for i in range(3)]
        names = list(ROW)
        context = {name: ROW[name] for name in ("name", "tastes")}
        items = [{n: row[n] for n in names if n not in context} for row in rows]
        by_column = {name: [row[name] for row in rows] for name in names}
        bodies = [
            {"rows": rows},
            {"columns": by_column},
            {"context": context, "items": items},
            {"context": context, "items": {n: by_column[n] for n in names if n not in context}},
        ]
        found = [read_rows(body, COLUMNS, OPTIONS) for body in bodies]
        for one in found:
            assert one.num_rows == 3
            assert {n: a.to_pylist() for n, a in one.all_columns.items()} == {
                n: a.to_pylist() for n, a in found[0].columns.items()
            }
        assert set(found[2].context) == set(found[3].context) == {"name", "tastes"}

    @pytest.mark.parametrize("body", [{"rows": []}, {"columns": {n: [] for n in ROW}},
                                      {"context": {"id": 1}, "items": []}])  # fmt: skip
    def test_no_rows(self, body):
        rows = read_rows(body, COLUMNS, OPTIONS)
        assert rows.num_rows == 0
        assert set(rows.all_columns) == set(ROW)
        assert {len(array) for array in rows.all_columns.values()} == {0}

    def test_one_column(self):
        one = (Column("x", pa.int64()),)
        rows = read_rows({"rows": [{"x": 1}, {"x": 2}]}, one, OPTIONS)
        assert rows.columns["x"].to_pylist() == [1, 2]

    @pytest.mark.parametrize(
        "body", [{}, {"items": [ROW]}, {"context": {}}, {"rows": [ROW], "columns": {}}]
    )
    def test_no_shape(self, body):
        assert refused(body).code == "bad_shape"

    @pytest.mark.parametrize(
        ("body", "code", "field"),
        [
            ({"rows": {}}, "wrong_type", "rows"),
            ({"rows": None}, "wrong_type", "rows"),
            ({"rows": [ROW, 5]}, "wrong_type", "rows[1]"),
            ({"rows": [ROW, [1]]}, "wrong_type", "rows[1]"),
            ({"rows": [ROW, {**ROW, "pice": 1}]}, "unknown_field", "rows[1].pice"),
            ({"rows": [{n: ROW[n] for n in list(ROW)[1:]}]}, "missing_field", "rows[0].id"),
            ({"rows": [{**ROW, "name": None}]}, "null", "rows[0].name"),
            ({"rows": [ROW, {**ROW, "id": "x"}]}, "wrong_type", "rows[1].id"),
            ({"columns": []}, "wrong_type", "columns"),
            ({"columns": {"x": [1]}}, "unknown_field", "columns.x"),
            ({"columns": {}}, "missing_field", "columns.id"),
            ({"columns": dict.fromkeys(ROW, 1)}, "wrong_type", "columns.id"),
            ({"columns": {n: [v] for n, v in ROW.items()} | {"tags": []}}, "wrong_length",
             "columns.tags"),
            ({"columns": {n: [v] for n, v in ROW.items()} | {"id": ["x"]}}, "wrong_type",
             "columns.id[0]"),
            ({"context": [], "items": []}, "wrong_type", "context"),
            ({"context": {"x": 1}, "items": []}, "unknown_field", "context.x"),
            ({"context": ROW, "items": []}, "bad_shape", "context"),
            ({"context": {"id": "x"}, "items": []}, "wrong_type", "context.id"),
            ({"context": {"id": 1}, "items": 5}, "wrong_type", "items"),
            ({"context": {"id": 1}, "items": [ROW]}, "repeated_column", "items[0].id"),
            ({"context": {"id": 1}, "items": [{"x": 1}]}, "unknown_field", "items[0].x"),
            ({"context": {"id": 1}, "items": [{}]}, "missing_field", "items[0].small"),
            ({"context": {"id": 1}, "items": {"small": [1]}}, "missing_field", "items.price"),
        ],
    )  # fmt: skip
    def test_rows_of_another_form(self, body, code, field):
        error = refused(body)
        assert (error.status, error.code, error.field) == (422, code, field)

    def test_a_name_that_is_almost_right(self):
        error = refused({"rows": [{**ROW, "pirce": 1}]})
        assert "did you mean 'price'?" in error.message

    def test_hostile_names_are_cut(self):
        error = refused({"rows": [{**ROW, "x" * 10_000: 1}]})
        assert len(json.dumps(error.body())) < 500

    def test_the_last_of_many_rows_is_refused_soon(self):
        """Each row costs as much as it has columns, and not the square of that."""
        columns = [Column(f"c{i}", pa.int64()) for i in range(300)]
        row = dict.fromkeys((column.name for column in columns), 1)
        began = time.process_time()
        with pytest.raises(RequestError, match="is missing"):
            read_rows({"rows": [row] * 3000 + [{}]}, columns, ServeOptions())
        assert time.process_time() - began < 1.5

    def test_too_many_rows(self):
        for body in ({"rows": [ROW] * 4}, {"columns": {n: [v] * 4 for n, v in ROW.items()}}):
            error = refused(body, max_rows=3)
            assert (error.status, error.code) == (413, "too_many_rows")
        assert read_rows({"rows": [ROW] * 3}, COLUMNS, ServeOptions(max_rows=3)).num_rows == 3

    def test_a_context_that_would_be_repeated_too_often(self):
        """A body within its limit does not become gigabytes."""
        context = {"name": "x" * 60_000}
        items = [{n: v for n, v in ROW.items() if n != "name"}] * 50
        error = refused({"context": context, "items": items}, max_body_bytes=100_000)
        assert (error.status, error.code, error.field) == (413, "body_too_large", "context")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["rows", "columns", "context", "items", *ROW]), inner)
        ),
        max_leaves=12,
    )
)
def test_anything_is_either_read_or_refused(value):
    try:
        rows = read_rows(parse_json(json.dumps(value).encode()), COLUMNS, OPTIONS)
    except RequestError as error:
        status = error.status
    else:
        status = 200
        assert all(len(array) == rows.num_rows for array in rows.all_columns.values())
    assert status in (200, 400, 413, 422)


@given(
    kind=st.sampled_from([pa.int64(), pa.int32(), pa.float32(), pa.string(), MAP, None,
                          pa.list_(pa.int64()), pa.list_(pa.list_(pa.string()))]),
    values=st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=3)
            | st.floats(allow_nan=False, allow_infinity=False),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
            max_leaves=5,
        ),
        max_size=4,
    ),
)  # fmt: skip
def test_any_value_is_either_exact_or_refused(kind, values):
    """What is read is what was sent; only floats of 32 bits are rounded."""
    try:
        array = values_of(values, kind)
    except RequestError:
        return
    array.validate(full=True)
    assert _same(array.to_pylist(), values)


def _same(found, sent):
    if isinstance(sent, dict):
        return all(_same(v, sent[k]) for k, v in found) and len(found) == len(sent)
    if isinstance(sent, list):
        return len(found) == len(sent) and all(map(_same, found, sent))
    if isinstance(sent, float) or isinstance(found, float):
        return math.isclose(found, sent, rel_tol=1e-6, abs_tol=1e-40)
    return found == sent
