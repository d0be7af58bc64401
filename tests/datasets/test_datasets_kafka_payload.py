"""What a message may hold, and the numbers of its rows."""

import os

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka_broker import bare, payload

from tzrec.datasets.kafka import rowcode
from tzrec.datasets.kafka.payload import Decoder
from tzrec.datasets.position import DataPosition, StreamMark
from tzrec.errors import DataError

TABLE = pa.table(
    {
        "id": [1, 2, 3],
        "words": ["x", "", None],
        "list": [[1], None, []],
        "map": pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64())),
        "word": pa.array(["p", "q", "p"]).dictionary_encode(),
    }
)
BATCH = TABLE.to_batches()[0]


def test_streams():
    decoder = Decoder()
    kinds = set()
    for table in (TABLE, TABLE.slice(1), pa.concat_tables([TABLE, TABLE])):
        found = decoder.decode(payload(table))
        assert pa.Table.from_batches([found.batch]).equals(table.combine_chunks())
        kinds.add(found.kind)
    assert len(kinds) == 1
    assert decoder.decode(payload(TABLE.select(["id"]))).kind not in kinds
    empty = decoder.decode(payload(TABLE.slice(0, 0)))
    assert (empty.batch.num_rows, empty.batch.schema) == (0, TABLE.schema)
    # Without its last mark, as a writer leaves it that was not closed.
    assert decoder.decode(payload(TABLE)[:-8]).batch.num_rows == 3


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_streams(compression):
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, TABLE.schema, options=options) as writer:
        writer.write(TABLE)
    assert Decoder().decode(sink.getvalue().to_pybytes()).batch.equals(BATCH)


def test_many_schemas():
    decoder = Decoder()
    for number in range(200):
        found = decoder.decode(payload(pa.table({f"c{number}": [number]})))
        assert found.batch.to_pydict() == {f"c{number}": [number]}


def test_bare_batches():
    plain = BATCH.select(["id", "words", "list", "map"])
    assert Decoder(plain.schema).decode(bare(plain)).batch.equals(plain)
    with pytest.raises(DataError, match="without a schema"):
        Decoder().decode(bare(plain))
    other = pa.schema([("id", pa.string()), ("words", pa.string()), ("more", pa.string())])
    with pytest.raises(DataError, match=r"not of data_config.input_fields"):
        Decoder(other).decode(bare(plain.select(["id", "words"])))


@pytest.mark.parametrize(
    "value",
    [b"", b"x", b'{"id": 1}', b"\xff\xff\xff\xff", b"\x00" * 64, payload(TABLE)[:40]],
)
def test_what_is_no_stream(value):
    with pytest.raises(DataError, match=r"is no Arrow IPC stream|begins with"):
        Decoder().decode(value)


def test_a_column_named_twice():
    batch = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    with pytest.raises(DataError, match="has two columns 'a'"):
        Decoder().decode(payload(pa.Table.from_batches([batch])))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_messages_are_an_error_or_rows(data):
    """Never a crash: bytes are changed, cut and repeated."""
    value = bytearray(payload(TABLE))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(value) - 1))
        value[place] = data.draw(st.integers(0, 255))
    value = bytes(value[: data.draw(st.integers(1, len(value)))])
    try:
        found = Decoder(BATCH.schema).decode(value)
    except DataError:
        return
    found.batch.validate(full=True)
    found.batch.to_pydict()


def test_noise():
    for size in range(1, 300):
        with pytest.raises(DataError):
            Decoder(BATCH.schema).decode(os.urandom(size))


@pytest.mark.parametrize(("offset", "rows"), [(0, 1), (7, 5), (2**40, 2**21 - 1)])
def test_row_numbers(offset, rows):
    codes = rowcode.encode(offset, rows)
    assert len(codes) == rows
    assert np.all(np.diff(codes) > 0)
    places = [rowcode.place_of(int(code)) for code in codes[[0, -1]]]
    assert places == [(offset, 0), (offset, rows - 1)]
    assert rowcode.mark_after(int(codes[-1])) == StreamMark(offset + 1, 0)
    if rows > 1:
        assert rowcode.mark_after(int(codes[0])) == StreamMark(offset, 1)
    assert rowcode.row_numbers(codes).tolist() == list(range(rows))
    assert codes[-1] < rowcode.encode(offset + 1, 1)[0]


def test_numbers_of_a_message_without_rows_and_of_a_rest():
    (end,) = rowcode.encode(5, 0)
    assert rowcode.mark_after(int(end)) == StreamMark(6, 0)
    rest = rowcode.encode(5, 4, 2)
    assert rest.tolist() == rowcode.encode(5, 4)[2:].tolist()


@pytest.mark.parametrize(("offset", "rows"), [(0, 2**21), (2**41, 1)])
def test_too_much_to_number(offset, rows):
    with pytest.raises(DataError, match="readable are"):
        rowcode.encode(offset, rows)


def test_positions_of_streams():
    position = DataPosition()
    position.add({"t:0": StreamMark(4, 2), "t:1": StreamMark(1)})
    position.add({"t:0": StreamMark(5), "file": [(0, 3)]})
    other = DataPosition()
    other.add({"t:1": StreamMark(0, 9), "t:2": StreamMark(7, 1)})
    position.merge(other)
    assert position.marks == {"t:0": (5, 0), "t:1": (1, 0), "t:2": (7, 1)}
    data = position.to_json()
    assert data["offsets"] == {"t:0": 4, "t:1": 0, "t:2": 6}
    assert data["rows"] == {"t:2": 1}
    assert DataPosition.from_json(data) == position
    assert position.num_rows == 3
    assert str(position) == "t:0 before offset 5, t:1 before offset 1, t:2 before offset 7"
    assert DataPosition.of_offsets({"t:0": 4}).marks == {"t:0": (5, 0)}
    many = DataPosition.of_offsets({f"t:{p}": p for p in range(9)})
    assert str(many).endswith("and 5 more partitions")
