from __future__ import annotations

import io
import itertools
import random
import threading
import time

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tzrec.datasets import csv_files as csv_module
from tzrec.datasets import intervals, reader
from tzrec.datasets import parquet_files as parquet_module
from tzrec.datasets.csv_files import CsvFormat, CsvReader
from tzrec.datasets.dataset import create_reader
from tzrec.datasets.parquet_files import ParquetReader
from tzrec.datasets.split import RowOrder
from tzrec.errors import ConfigError, DataError, MissingDependencyError, Unsupported


def order_of(*parts: tuple[int, int, int]) -> RowOrder:
    source = np.array([s for s, _, _ in parts])
    return RowOrder(source, np.array([[a, b] for _, a, b in parts]))


def read(from_reader, order: RowOrder, column: str) -> list:
    pieces = list(from_reader.read(order))
    return [value for piece in pieces for value in piece.column(column).to_pylist()]


@pytest.fixture
def parquet_files(tmp_path):
    for number, rows in enumerate([10, 0, 25]):
        table = pa.table(
            {
                "id": pa.array(range(number * 100, number * 100 + rows), pa.int64()),
                "name": pa.array([f"r{i}" for i in range(rows)], pa.string()),
                "when": pa.array(range(rows), pa.timestamp("ms")),
            }
        )
        pq.write_table(table, tmp_path / f"f{number}.parquet", row_group_size=4)
    return tmp_path


@pytest.fixture
def csv_files(tmp_path):
    for number, rows in enumerate([10, 0, 25]):
        lines = [f"{number * 100 + i},r{i},{i / 2}" for i in range(rows)]
        text = "\n".join(["id,name,score", *lines]) + ("\n" if number else "")
        (tmp_path / f"f{number}.csv").write_text(text)
    return tmp_path


IDS = [*range(10), *range(200, 225)]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_all_rows_of_all_files_in_order(kind, request):
    folder = request.getfixturevalue(f"{kind}_files")
    found = create_reader(f"{folder}/*.{kind}")
    assert found.num_rows == [10, 0, 25]
    assert found.total_rows == 35
    assert [v for b in found.to_batches(3) for v in b.column("id").to_pylist()] == IDS
    assert max(b.num_rows for b in found.to_batches(3)) == 3


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_blocks_cover_every_row_once(kind, request, monkeypatch):
    folder = request.getfixturevalue(f"{kind}_files")
    monkeypatch.setattr(parquet_module, "_MIN_BLOCK_ROWS", 6)
    monkeypatch.setattr(csv_module, "_BLOCK_BYTES", 64)
    found = create_reader(f"{folder}/*.{kind}")
    blocks = found.blocks()
    assert len(blocks) > 4
    rows = [(b.source, row) for b in blocks for row in range(b.start, b.stop)]
    assert rows == [(0, i) for i in range(10)] + [(2, i) for i in range(25)]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_any_rows_in_any_order(kind, request, monkeypatch):
    folder = request.getfixturevalue(f"{kind}_files")
    monkeypatch.setattr(csv_module, "_BLOCK_BYTES", 64)
    monkeypatch.setattr(reader, "_MIN_READ_ROWS", 3)
    monkeypatch.setattr(reader, "READ_BYTES", 1)
    found = create_reader(f"{folder}/*.{kind}")
    order = order_of((2, 20, 25), (2, 3, 4), (2, 6, 9), (2, 22, 23), (0, 0, 1), (0, 9, 10))
    expected = [*range(220, 225), 203, *range(206, 209), 222, 0, 9]
    assert read(found, order, "id") == expected


@pytest.mark.parametrize("kind", ["parquet", "csv"])
@pytest.mark.parametrize("seed", range(5))
def test_random_intervals_equal_slices(kind, seed, request, monkeypatch):
    folder = request.getfixturevalue(f"{kind}_files")
    monkeypatch.setattr(csv_module, "_BLOCK_BYTES", 50)
    found = create_reader(f"{folder}/f2.{kind}")
    rows = np.random.default_rng(seed).choice(25, size=9, replace=False)
    wanted = intervals.from_rows(rows.astype(np.int64))
    order = RowOrder(np.zeros(len(wanted), dtype=np.int64), wanted)
    assert read(found, order, "id") == (200 + np.sort(rows)).tolist()


def test_paths_lists_globs_and_directories(parquet_files):
    (parquet_files / "_SUCCESS").write_text("")
    pq.write_table(pa.table({"id": [1]}), parquet_files / ".hidden.parquet")
    nested = parquet_files / "day=1"
    nested.mkdir()
    pq.write_table(pa.table({"id": [7]}), nested / "x.parquet")
    for unfinished in ("_temporary/0", "day=1/.staging", "_delta_log"):
        (parquet_files / unfinished).mkdir(parents=True)
        pq.write_table(pa.table({"id": [8]}), parquet_files / unfinished / "part-0.parquet")
    as_directory = ParquetReader(str(parquet_files), ["id"])
    assert [p.rsplit("/", 1)[1] for p in as_directory.paths] == [
        "x.parquet",
        "f0.parquet",
        "f1.parquet",
        "f2.parquet",
    ]
    listed = ParquetReader(f"{parquet_files}/f2.parquet, {parquet_files}/f[01].parquet", ["id"])
    assert [p[-10:] for p in listed.paths] == ["f2.parquet", "f0.parquet", "f1.parquet"]
    assert listed.num_rows == [25, 10, 0]


def test_a_file_named_twice_is_read_once(parquet_files, caplog):
    found = ParquetReader(f"{parquet_files}/f0.parquet,{parquet_files}/*.parquet", ["id"])
    assert found.total_rows == 35
    assert "named twice" in caplog.text


@pytest.mark.parametrize("path", ["nowhere/*.parquet", "nowhere.parquet", " , "])
def test_no_file(path, tmp_path):
    with pytest.raises(DataError, match=r"no parquet files exist|names no file"):
        ParquetReader(f"{tmp_path}/{path}" if path.strip(" ,") else path)


def test_unknown_file_system():
    with pytest.raises(MissingDependencyError, match="nosuchfs"):
        ParquetReader("nosuchfs://bucket/a.parquet")


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_fsspec_paths(kind, request):
    folder = request.getfixturevalue(f"{kind}_files")
    memory = fsspec.filesystem("memory")
    for name in ("f0", "f2"):
        memory.pipe(f"/bucket-{kind}/{name}.{kind}", (folder / f"{name}.{kind}").read_bytes())
    for path in (f"memory://bucket-{kind}/*.{kind}", f"memory://bucket-{kind}"):
        found = create_reader(path, ["id"], reader_type=f"{kind.title()}Reader")
        assert [v for b in found.to_batches() for v in b.column("id").to_pylist()] == IDS
        assert all(p.startswith("memory://") for p in found.paths)
        again = create_reader(found.paths[1], ["id"])
        assert again.total_rows == 25


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_only_needed_columns_are_read(kind, request):
    folder = request.getfixturevalue(f"{kind}_files")
    found = create_reader(f"{folder}/f2.{kind}", ["name"])
    assert found.schema.names == ["name"]
    assert {tuple(b.schema.names) for b in found.to_batches()} == {("name",)}


def test_kept_columns_pass_with_any_type(parquet_files):
    found = ParquetReader(f"{parquet_files}/f2.parquet", ["id"], kept_columns=["when", "id"])
    assert found.schema.names == ["id", "when"]
    assert found.schema.field("when").type == pa.timestamp("ms")
    everything = ParquetReader(f"{parquet_files}/f2.parquet", ["id"], kept_columns=None)
    assert everything.schema.names == ["id", "name", "when"]
    with pytest.raises(DataError, match=r"'when' of .* has type timestamp"):
        ParquetReader(f"{parquet_files}/f2.parquet", ["when"])


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_missing_column_is_found_before_reading(kind, request):
    folder = request.getfixturevalue(f"{kind}_files")
    with pytest.raises(DataError) as caught:
        create_reader(f"{folder}/*.{kind}", ["id", "nmae"])
    message = str(caught.value)
    assert "'nmae'" in message
    assert f"f0.{kind}" in message
    assert "did you mean 'name'" in message
    assert "the file has: id, name" in message


def test_a_column_missing_in_a_later_file(parquet_files):
    pq.write_table(pa.table({"id": [1]}), parquet_files / "f3.parquet")
    with pytest.raises(DataError, match=r"'name' is not in .*f3\.parquet"):
        ParquetReader(f"{parquet_files}/*.parquet", ["id", "name"])


def test_empty_input_is_an_error(parquet_files, tmp_path):
    with pytest.raises(DataError, match="has no rows"):
        ParquetReader(f"{parquet_files}/f1.parquet", ["id"])
    (tmp_path / "e.csv").write_text("")
    (tmp_path / "h.csv").write_text("a,b\n")
    for name in ("e.csv", "h.csv", "?.csv"):
        with pytest.raises(DataError, match="has no rows"):
            CsvReader(f"{tmp_path}/{name}", ["a"])


@pytest.mark.parametrize("name", ["x.parquet", "x.csv"])
def test_a_file_that_is_none_of_its_kind(name, tmp_path):
    (tmp_path / name).write_text('a,b\n1,2,3\n"')
    with pytest.raises(DataError, match=rf"{name} is not a readable"):
        create_reader(str(tmp_path / name), ["a"])


def test_parquet_files_of_different_writers_are_read_as_one(tmp_path):
    pq.write_table(pa.table({"a": pa.array([1, 2], pa.int32())}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"a": pa.array([3, 4], pa.int64())}), tmp_path / "2.parquet")
    pq.write_table(pa.table({"a": pa.array([None], pa.null())}), tmp_path / "3.parquet")
    pq.write_table(pa.table({"a": pa.array([5]).dictionary_encode()}), tmp_path / "4.parquet")
    found = ParquetReader(str(tmp_path), ["a"])
    assert found.schema.field("a").type == pa.int64()
    assert [v for b in found.to_batches() for v in b.column("a").to_pylist()] == [
        1, 2, 3, 4, None, 5,
    ]  # fmt: skip


def test_a_file_that_shrinks_meanwhile_is_an_error(parquet_files):
    found = CsvReader.__new__(CsvReader)
    path = parquet_files / "x.csv"
    path.write_text("id\n" + "1\n" * 100)
    found.__init__(str(path), ["id"])
    path.write_text("id\n" + "1\n" * 50)
    with pytest.raises(DataError, match="changed meanwhile"):
        list(found.to_batches())


# --- CSV ---


def test_csv_without_header_needs_named_columns(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("1\t2.5\tx\n3\t\t\n")
    fields = {"i": pa.int32(), "f": pa.float32(), "s": None}
    found = CsvReader(str(path), csv_format=CsvFormat(fields, delimiter="\t"))
    assert found.schema == pa.schema({"i": pa.int32(), "f": pa.float32(), "s": pa.string()})
    rows = [row for batch in found.to_batches() for row in batch.to_pylist()]
    assert rows == [{"i": 1, "f": 2.5, "s": "x"}, {"i": 3, "f": None, "s": ""}]
    with pytest.raises(ConfigError, match="nothing names the columns"):
        CsvFormat(with_header=False)
    too_few = CsvFormat({"i": pa.int32(), "f": pa.float32()}, delimiter="\t")
    with pytest.raises(DataError, match="input_fields must list all") as caught:
        CsvReader(str(path), csv_format=too_few)
    assert "a.csv" in str(caught.value)
    path.write_text("i\tf\ts\n1\t2.5\tx\n")
    with pytest.raises(DataError, match=r"its first line names the columns: set .*with_header"):
        CsvReader(str(path), csv_format=CsvFormat(fields, delimiter="\t"))


def test_csv_types_are_found_out_or_declared(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("i,f,s,d,b,n\n1,1.5,x,2020-01-01,true,\n2,2,y,2020-01-02,false,\n")
    found = CsvReader(str(path))
    kinds = [str(field.type) for field in found.schema]
    assert kinds == ["int64", "double", "string", "string", "string", "string"]
    declared = CsvFormat({"i": pa.string(), "f": pa.float32()}, with_header=True)
    found = CsvReader(str(path), ["f", "i"], csv_format=declared)
    assert [batch.to_pydict() for batch in found.to_batches()] == [
        {"i": ["1", "2"], "f": [1.5, 2.0]}
    ]


@pytest.mark.parametrize("declared", [pa.list_(pa.int64()), pa.map_(pa.string(), pa.int64())])
def test_csv_columns_are_scalar(declared):
    with pytest.raises(ConfigError, match="'a': a CSV column cannot be"):
        CsvFormat({"a": declared})


@pytest.mark.parametrize("delimiter", ["", "||", "é"])
def test_csv_delimiter_is_one_character(delimiter):
    with pytest.raises(ConfigError, match="not one character"):
        CsvFormat({"a": None}, delimiter=delimiter)


@pytest.mark.parametrize(
    "text",
    [
        'a,b\n1,"x\ny"\n2,"p""q"\n3,z\n',
        "a,b\r\n1,x\r\n2,y\r\n3,z\r\n",
        "a,b\n1,x\n\n2,y\n\n\n3,z",
        "\n\na,b\n1,x\n2,y\n3,z",
        "a,b\n1,x\n2,y\n3,z",
        "\ufeffa,b\n1,x\n2,y\n3,z\n",
        '"a","b"\n1,x\n2,y\n3,z\n',
        '"a","b\nc"\n1,x\n2,y\n3,z\n',
    ],
)
@pytest.mark.parametrize("block", [16, 4 << 20])
def test_csv_rows_are_counted_as_they_are_read(text, block, tmp_path, monkeypatch):
    monkeypatch.setattr(csv_module, "_BLOCK_BYTES", block)
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode())
    found = CsvReader(str(path), ["a"])
    assert found.num_rows == [3]
    for start, stop in itertools.combinations(range(4), 2):
        assert read(found, order_of((0, start, stop)), "a") == [1, 2, 3][start:stop]


@pytest.mark.parametrize("block", range(1, 12))
@pytest.mark.parametrize("with_header", [True, False])
@pytest.mark.parametrize("ending", ["", "\n"])
def test_csv_lines_are_counted_across_blocks(block, with_header, ending, monkeypatch):
    monkeypatch.setattr(csv_module, "_BLOCK_BYTES", block)
    lines = ["head", "a", "bb", "ccc", "dddddddddd", "e"]
    text = ("\n".join(lines) + ending).encode()
    rows, starts = csv_module._count_lines(pa.BufferReader(text), with_header)
    data = lines[1:] if with_header else lines
    assert rows == len(data)
    assert starts[0][0] == 0
    for row, offset in starts:
        assert text[offset:].decode().split("\n")[0] == [*data, ""][row]


def test_csv_starts_reading_near_the_row(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_module, "_BLOCK_BYTES", 1 << 12)
    path = tmp_path / "a.csv"
    path.write_text("a\n" + "\n".join(map(str, range(20_000))) + "\n")
    found = CsvReader(str(path), ["a"])
    starts = found._layouts[str(path)].starts
    assert len(starts) > 20
    for row, offset in random.Random(0).sample(starts, 5):
        if row < 20_000:
            assert path.read_bytes()[offset:].split(b"\n", 1)[0] == str(row).encode()
    assert read(found, order_of((0, 15_000, 15_003)), "a") == [15_000, 15_001, 15_002]


@pytest.mark.parametrize("with_header", [True, False])
@pytest.mark.parametrize(
    ("bad", "message"),
    [("5,x", "column 'b': CSV conversion error to int64: invalid value 'x'"),
     ("5,6,7", "Expected 2 columns, got 3")],
)  # fmt: skip
def test_a_bad_row_names_file_row_and_column(with_header, bad, message, tmp_path, monkeypatch):
    monkeypatch.setattr(csv_module, "_BLOCK_BYTES", 1 << 10)
    lines = [f"{i},{i}" for i in range(3000)]
    lines[2345] = bad
    path = tmp_path / "bad.csv"
    path.write_text("\n".join([*(["a,b"] if with_header else []), *lines]))
    fields = {"a": pa.int64(), "b": pa.int64()}
    found = CsvReader(str(path), csv_format=CsvFormat(fields, with_header=with_header))
    with pytest.raises(DataError) as caught:
        list(found.to_batches())
    assert f"{path}: row 2345 (counted from 0): " in str(caught.value)
    assert message in str(caught.value)


class ReadAhead(io.FileIO):
    """Says whether it was closed in the middle of a read."""

    closed_too_early = False

    def __init__(self, path):
        super().__init__(path)
        self.reading = threading.Lock()

    def read(self, size=-1):
        with self.reading:
            time.sleep(0.01)
            return super().read(size)

    def close(self):
        if self.reading.locked():
            type(self).closed_too_early = True
        super().close()


def test_a_file_is_not_closed_while_the_parser_reads_ahead(tmp_path, monkeypatch):
    """A closed file's number goes to the next one, from which the parser then took bytes."""
    monkeypatch.setattr(csv_module, "_BLOCK_BYTES", 64)
    monkeypatch.setattr(csv_module, "open_input", lambda path: pa.PythonFile(ReadAhead(path)))
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,"x"\n' + "2,y\n" * 200)
    found = CsvReader(str(path), ["a"])
    assert read(found, order_of((0, 3, 7)), "a") == [2] * 4
    assert not ReadAhead.closed_too_early


def test_csv_columns_of_the_same_name(tmp_path):
    (tmp_path / "a.csv").write_text("a,b,a\n1,2,3\n")
    with pytest.raises(DataError, match="columns of the same name: a"):
        CsvReader(str(tmp_path / "a.csv"))


def test_later_formats_are_unsupported(tmp_path):
    with pytest.raises(Unsupported):
        create_reader("odps://p/tables/t")
    with pytest.raises(ConfigError, match="format of"):
        create_reader(str(tmp_path))
    with pytest.raises(ConfigError, match="did you mean 'ParquetReader'"):
        create_reader(str(tmp_path), reader_type="ParketReader")


def test_a_large_row_group_is_not_held_in_memory(tmp_path):
    random = np.random.default_rng(0)
    rows = 1_000_000
    table = pa.table({f"c{i}": random.integers(0, 1 << 62, size=rows) for i in range(8)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=rows, use_dictionary=False)
    del table
    found = ParquetReader(str(tmp_path / "a.parquet"))
    pool = pa.default_memory_pool()
    pool.release_unused()
    before = pool.bytes_allocated()
    most = max(pool.bytes_allocated() - before for _ in found.to_batches())
    assert most < 32 << 20  # of 64 MB
