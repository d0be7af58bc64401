from __future__ import annotations

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tzrec.datasets.dataset import create_writer
from tzrec.errors import ConfigError, DataError, Unsupported


def columns(*values: float) -> dict[str, pa.Array]:
    return {
        "score": pa.array(values, pa.float32()),
        "emb": pa.array([[v, v + 1] for v in values], pa.list_(pa.float32())),
    }


def test_parquet_parts_appear_at_close(tmp_path):
    out = tmp_path / "deep" / "out"
    writer = create_writer(str(out), "ParquetWriter", rank=3)
    writer.write(columns(1, 2))
    writer.write(columns(3))
    assert [path.name for path in out.iterdir()] == [".part-3.parquet.partial"]
    writer.close()
    assert [path.name for path in out.iterdir()] == ["part-3.parquet"]
    table = pq.read_table(out / "part-3.parquet")
    assert table.column("score").to_pylist() == [1, 2, 3]
    assert table.column("emb").to_pylist() == [[1, 2], [2, 3], [3, 4]]


def test_csv_has_a_header_and_lists_as_text(tmp_path):
    with create_writer(str(tmp_path), "CsvWriter") as writer:
        writer.write({**columns(0.5), "name": pa.array(['a,"b'])})
    table = pyarrow.csv.read_csv(tmp_path / "part-0.csv")
    assert table.to_pydict() == {"score": [0.5], "emb": ["[0.5, 1.5]"], "name": ['a,"b']}


@pytest.mark.parametrize("kind", ["CsvWriter", "ParquetWriter"])
def test_abort_leaves_nothing(kind, tmp_path):
    writer = create_writer(str(tmp_path), kind)
    writer.write(columns(1))
    writer.abort()
    writer.abort()
    assert list(tmp_path.iterdir()) == []

    def fail() -> None:
        with create_writer(str(tmp_path), kind) as other:
            other.write(columns(1))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_abort_after_close_keeps_the_file(tmp_path):
    writer = create_writer(str(tmp_path))
    writer.write(columns(1))
    writer.close()
    writer.close()
    writer.abort()
    assert (tmp_path / "part-0.parquet").exists()


def test_a_writer_replaces_an_older_file(tmp_path):
    for value in (1, 2):
        with create_writer(str(tmp_path)) as writer:
            writer.write(columns(value))
    assert pq.read_table(tmp_path / "part-0.parquet").column("score").to_pylist() == [2]


def test_fsspec_output():
    with create_writer("memory://outputs/run", "CsvWriter", rank=1) as writer:
        writer.write({"a": pa.array([1, 2])})
    memory = fsspec.filesystem("memory")
    assert memory.cat("/outputs/run/part-1.csv").decode().split() == ['"a"', "1", "2"]
    assert len(memory.ls("/outputs/run")) == 1


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"score": pa.array([1.0], pa.float32())}, "output columns changed"),
        ({**columns(1), "more": pa.array([1])}, "output columns changed"),
        ({**columns(1), "score": pa.array(["x"])}, "'score' changed from float to string"),
        ({**columns(1), "score": pa.array([1.0, 2.0], pa.float32())}, "differ in length"),
    ],
)
def test_the_first_batch_fixes_the_schema(second, message, tmp_path):
    with create_writer(str(tmp_path)) as writer:
        writer.write(columns(1))
        with pytest.raises(DataError, match=message):
            writer.write(second)


def test_unknown_and_later_writers(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'CsvWriter'"):
        create_writer(str(tmp_path), "CvsWriter")
    with pytest.raises(Unsupported):
        create_writer(str(tmp_path), "OdpsWriter")


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="output directory"):
        create_writer(str(tmp_path / "file" / "out"))
