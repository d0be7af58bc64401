"""Work on shards of a table: all rows once, in order, with their errors."""

import logging
import os
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tzrec.datasets.bad_rows import BadRows
from tzrec.datasets.parquet_dataset import ParquetReader
from tzrec.datasets.split import RowOrder
from tzrec.errors import DataError
from tzrec.tools import shards
from tzrec.tools.shards import num_processes, run_shards
from tzrec.utils import progress
from tzrec.utils.progress import Progress


class Collect:
    """Collects the values of a column; negative ones cannot be used."""

    def __init__(self):
        self.aborted = 0

    def start(self, number):
        return Collecting(self, number)


class Collecting:
    def __init__(self, task, number):
        self.task, self.number, self.values, self.sizes = task, number, [], []

    def compute(self, batch):
        values = batch.column("x").to_pylist()
        for row, value in enumerate(values):
            if value < 0:
                raise DataError(f"{value} in row {row} of the batch is negative")
        return values

    def keep(self, result):
        self.values += result
        self.sizes.append(len(result))

    def finish(self):
        return self.number, self.values, self.sizes

    def abort(self):
        self.task.aborted += 1


@pytest.fixture
def reader_of(tmp_path):
    def make(values, limit=0):
        half = len(values) // 2
        pq.write_table(pa.table({"x": values[:half]}), tmp_path / "a.parquet", row_group_size=7)
        pq.write_table(pa.table({"x": values[half:]}), tmp_path / "b.parquet", row_group_size=7)
        return ParquetReader(str(tmp_path), ["x"], bad_rows=BadRows(limit))

    return make


def run(task, reader, **options):
    return run_shards(task, reader, processes=1, batch_size=5, what="testing", **options)


def test_all_rows_in_order(reader_of):
    [(number, values, sizes)], bad = run(Collect(), reader_of(list(range(50))))
    assert (number, values, bad) == (0, list(range(50)), 0)
    assert max(sizes) <= 5


def test_a_bad_row_is_named_and_the_work_aborted(reader_of):
    task, values = Collect(), list(range(50))
    values[25 + 9] = -3
    with pytest.raises(DataError) as found:
        run(task, reader_of(values))
    assert "b.parquet" in found.value.message
    assert "row 9 (counted from 0): -3 is negative" in found.value.message
    assert task.aborted == 1


def test_bad_rows_are_left_out_up_to_the_limit(reader_of):
    values = list(range(50))
    for row in (3, 4, 34):
        values[row] = -1
    [(_, found, _)], bad = run(Collect(), reader_of(values, limit=3))
    assert found == [value for value in values if value >= 0]
    assert bad == 3
    with pytest.raises(DataError, match="more than max_bad_rows: 2"):
        run(Collect(), reader_of(values, limit=2))


def test_an_error_of_all_rows_blames_none(reader_of):
    class Broken(Collecting):
        def compute(self, batch):
            raise DataError("broken")

    task = Collect()
    task.start = lambda number: Broken(task, number)
    with pytest.raises(DataError, match=r"in .*a\.parquet: broken"):
        run(task, reader_of(list(range(50)), limit=9))


def test_what_processes_get_can_be_sent(reader_of):
    reader = reader_of(list(range(40)), limit=2)

    class Nothing:
        def done(self, rows):
            pass

    shared = shards._Shared(None, reader, 6, None)
    again = pickle.loads(pickle.dumps(shared))
    again.task, again.control = Collect(), Nothing()
    order = RowOrder.of_blocks(reader.blocks())
    (number, values, _), bad = again.run(4, order.cut(11, 33), lambda: None)
    assert (number, values, bad) == (4, list(range(11, 33)), 0)
    assert again.reader.bad_rows.limit == 2


def test_number_of_processes():
    cores = len(os.sched_getaffinity(0))
    assert num_processes(None, 1000) == 1
    assert num_processes(None, 10**9) == cores
    assert num_processes(7, 10**9) == 7
    assert num_processes(7, 3) == 3


def test_progress_in_lines(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    done = [0]
    with caplog.at_level(logging.INFO, "tzrec"), Progress("counting", 2000, lambda: done[0]) as bar:
        bar.show()
        now[0], done[0] = 20.0, 500
        bar.show()
        now[0] = 21.0
        bar.show()
    assert caplog.messages == ["counting: 500 of 2,000 rows (25%), 25 rows/s"]
