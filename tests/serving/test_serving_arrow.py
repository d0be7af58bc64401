"""Arrow streams as bodies: the same columns as JSON, and bytes that are not to be trusted."""

import io

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tzrec.serving.arrow import answer_columns, read_table, rows_of_table, to_stream
from tzrec.serving.errors import RequestError
from tzrec.serving.options import ServeOptions
from tzrec.serving.schema import Column

OPTIONS = ServeOptions()
MAP = pa.map_(pa.string(), pa.float32())
COLUMNS = (
    Column("id", pa.int64()),
    Column("price", pa.float32()),
    Column("name", pa.string(), nullable=False),
    Column("tags", pa.list_(pa.string())),
    Column("tastes", MAP),
)
TABLE = pa.table(
    {
        "id": pa.array([7, None, 9]),
        "price": pa.array([0.5, 1.5, None], pa.float32()),
        "name": ["a", "", "ä"],
        "tags": [["x"], None, []],
        "tastes": pa.array([[("k", 2.0)], [], None], MAP),
    }
)


def stream_of(table, **options):
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as out:
        out.write_table(table, max_chunksize=2)
    return sink.getvalue()


def read(table, columns=COLUMNS, **options):
    settings = ServeOptions(**options)
    return rows_of_table(read_table(stream_of(table), settings), columns, settings)


def refused(table, columns=COLUMNS, **options):
    with pytest.raises(RequestError) as caught:
        read(table, columns, **options)
    return caught.value.status, caught.value.code, caught.value.field


def with_column(name, values):
    return TABLE.set_column(TABLE.schema.names.index(name), name, values)


class TestColumns:
    def test_columns_arrive_as_they_are(self):
        rows = read(TABLE.select(["tags", "name", "tastes", "price", "id"]))
        assert rows.num_rows == 3
        assert {n: a.to_pylist() for n, a in rows.columns.items()} == TABLE.to_pydict()
        assert [array.type for array in rows.columns.values()] == [c.type for c in COLUMNS]
        assert rows.where("id", 2) == "id[2]"

    @pytest.mark.parametrize(
        ("name", "values"),
        [
            ("id", pa.array([1, 2, 3], pa.uint8())),
            ("id", pa.array([5, 5, None], pa.int32()).dictionary_encode()),
            ("id", pa.nulls(3)),
            ("price", pa.array([1, 2, 3], pa.int64())),
            ("price", pa.array([0.5, 1.0, None], pa.float64())),
            ("price", pa.array([0.5, 1.0, None], pa.float16())),
            ("name", pa.array(["a", "b", "a"]).dictionary_encode()),
            ("name", pa.array(["a", "b", "c"], pa.large_string())),
            ("tags", pa.array([["a"], None, []], pa.large_list(pa.large_string()))),
            ("tags", pa.array([["a"], ["b"], ["c"]], pa.list_(pa.string(), 1))),
        ],
    )
    def test_types_that_mean_the_same(self, name, values):
        column = read(with_column(name, values)).columns[name]
        assert column.type == next(c.type for c in COLUMNS if c.name == name)
        assert column.to_pylist() == values.to_pylist()

    @pytest.mark.parametrize(
        ("name", "values", "code"),
        [
            ("id", pa.array(["1", "2", "3"]), "wrong_type"),
            ("id", pa.array([1.0, 2.0, 3.0]), "wrong_type"),
            ("id", pa.array([[1], [2], [3]]), "wrong_type"),
            ("id", pa.array([2**63, 1, 2], pa.uint64()), "out_of_range"),
            ("id", pa.array([1, 2, 3], pa.timestamp("s")), "wrong_type"),
            ("price", pa.array([1.0, float("nan"), 2.0]), "not_finite"),
            ("price", pa.array([1.0, float("-inf"), 2.0]), "not_finite"),
            ("price", pa.array([1e300, 1.0, 2.0]), "not_finite"),
            ("price", pa.array(["1", "2", "3"]), "wrong_type"),
            ("name", pa.array([1, 2, 3]), "wrong_type"),
            ("name", pa.array([b"a", b"b", b"c"], pa.binary()), "wrong_type"),
            ("name", pa.array(["x" * 11, "", ""]), "text_too_long"),
            ("name", pa.array(["x" * 11, "", ""]).dictionary_encode(), "text_too_long"),
            ("tags", pa.array([["x" * 11], [], []]), "text_too_long"),
            ("tags", pa.array(["a", "b", "c"]), "wrong_type"),
            ("tastes", pa.array([[("k", float("nan"))], [], []], MAP), "not_finite"),
            ("tastes", pa.array([[("k" * 11, 1.0)], [], []], MAP), "text_too_long"),
        ],
    )
    def test_values_that_are_refused(self, name, values, code):
        assert refused(with_column(name, values), max_text=10) == (422, code, name)

    def test_names(self):
        assert refused(TABLE.append_column("nmae", [[1, 2, 3]])) == (422, "unknown_field", "nmae")
        assert refused(TABLE.drop_columns(["id"])) == (422, "missing_field", "id")
        twice = pa.Table.from_arrays([*TABLE.columns, TABLE["id"]], [*TABLE.schema.names, "id"])
        assert refused(twice) == (422, "repeated_key", "id")

    def test_null_where_the_model_takes_none(self):
        wrong = with_column("name", pa.array(["a", None, "b"]))
        assert refused(wrong) == (422, "null", "name[1]")

    def test_a_column_of_an_unknown_type(self):
        rows = read(pa.table({"x": [[1.5]]}), (Column("x", None),))
        assert rows.columns["x"].type == pa.list_(pa.float64())

    def test_too_many_rows(self):
        assert refused(TABLE, max_rows=2) == (413, "too_many_rows", "")


class TestBytes:
    @pytest.mark.parametrize("codec", ["lz4", "zstd"])
    def test_compressed_buffers(self, codec):
        """A body within its limit does not become gigabytes."""
        table = pa.table({"x": ["a" * 1000] * 1000})
        for one in (table, pa.table({"x": table["x"].dictionary_encode()})):
            body = stream_of(one, compression=codec)
            with pytest.raises(RequestError) as caught:
                read_table(body, OPTIONS)
            assert (caught.value.status, caught.value.code) == (415, "compressed")

    @pytest.mark.parametrize(
        "values",
        [
            pa.RunEndEncodedArray.from_arrays(pa.array([4], pa.int32()), pa.array(["x"])),
            pa.array(["a"], pa.string_view()),
            pa.array([[1]], pa.list_view(pa.int64())),
            pa.array([[None]], pa.list_(pa.null())),
        ],
    )
    def test_layouts_that_are_small_when_sent(self, values):
        with pytest.raises(RequestError) as caught:
            read_table(stream_of(pa.table({"x": values})), OPTIONS)
        assert (caught.value.code, caught.value.field) == ("wrong_type", "x")

    def test_a_list_that_is_sent_once_and_stands_in_every_row(self):
        lists = pa.array([list(range(1000))], pa.list_(pa.int64()))
        values = pa.DictionaryArray.from_arrays(pa.array([0, 0, 0], pa.int8()), lists)
        column = Column("ids", lists.type)
        assert refused(pa.table({"ids": values}), [column]) == (422, "wrong_type", "ids")

    def test_a_dictionary_that_would_become_too_large(self):
        codes = pa.array(np.zeros(1000, np.int8))
        values = pa.DictionaryArray.from_arrays(codes, pa.array(["x" * 10_000]))
        found = refused(
            pa.table({"x": values}), (Column("x", pa.string()),), max_body_bytes=1_000_000
        )
        assert found == (413, "body_too_large", "x")

    @pytest.mark.parametrize(
        "body", [b"", b"x", b"\xff" * 8, b"\xff\xff\xff\xff\x00\x00\x00\x00", b'{"rows": []}']
    )
    def test_what_is_no_stream(self, body):
        with pytest.raises(RequestError) as caught:
            read_table(body, OPTIONS)
        assert caught.value.status == 400

    def test_a_stream_that_is_cut(self):
        """Its end need not be marked, so that what is whole before the cut counts."""
        body = stream_of(TABLE)
        found = set()
        for end in range(0, len(body), 4):
            try:
                rows = rows_of_table(read_table(body[:end], OPTIONS), COLUMNS, OPTIONS)
            except RequestError as error:
                found.add(error.status)
            else:
                whole = {n: v[: rows.num_rows] for n, v in TABLE.to_pydict().items()}
                assert {n: a.to_pylist() for n, a in rows.columns.items()} == whole
                found.add(rows.num_rows)
        assert found == {400, 0, 2, 3}

    def test_a_stream_of_crumbs(self):
        """So many batches cost more than their bytes tell."""
        table = pa.table({"x": np.arange(4000)})
        with pytest.raises(RequestError) as caught:
            read_table(stream_of(table), OPTIONS)
        assert (caught.value.status, caught.value.code) == (413, "too_many_batches")

    @settings(max_examples=400)
    @given(st.data())
    def test_changed_bytes_do_no_harm(self, data):
        body = bytearray(stream_of(TABLE))
        for _ in range(data.draw(st.integers(1, 4))):
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
        try:
            rows = rows_of_table(read_table(bytes(body), OPTIONS), COLUMNS, OPTIONS)
        except RequestError as error:
            status = error.status
        else:
            status = 200
            for array in rows.columns.values():
                array.validate(full=True)
                assert len(array.to_pylist()) == rows.num_rows
        assert status in (200, 400, 413, 415, 422)


def test_answers():
    columns = answer_columns({"probs": np.float32([0.25, 0.75]), "vectors": np.ones((2, 3))})
    body = to_stream(columns, "v7")
    table = pa.ipc.open_stream(body).read_all()
    assert table.schema.metadata == {b"version": b"v7"}
    assert table.to_pydict() == {"probs": [0.25, 0.75], "vectors": [[1.0] * 3] * 2}
