from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets_table import ROWS

from tzrec.datasets import workers


@pytest.fixture
def folder(tmp_path):
    first = 0
    for number, rows in enumerate(ROWS):
        ids = list(range(first, first + rows))
        table = pa.table(
            {
                "id": pa.array(ids, pa.int64()),
                "price": pa.array(ids, pa.float64()),
                "label": pa.array([i % 2 for i in ids], pa.int32()),
                "name": pa.array([f"n{i}" for i in ids], pa.string()),
            }
        )
        pq.write_table(table, tmp_path / f"p{number}.parquet", row_group_size=5)
        first += rows
    return tmp_path


@pytest.fixture
def bad_row(folder):
    table = pq.read_table(folder / "p2.parquet")
    prices = table.column("price").to_pylist()
    prices[13] = None
    table = table.set_column(1, "price", pa.array(prices, pa.float64()))
    pq.write_table(table, folder / "p2.parquet")
    return folder


@pytest.fixture
def nothing_left():
    yield
    assert not [t for t in threading.enumerate() if t.name == "tzrec-loader"]
    assert multiprocessing.active_children() == []


@pytest.fixture
def workers_as_threads(monkeypatch):
    """The pool of a loader has threads, which start at once, in place of processes."""

    def pool(num_workers, *, mp_context, initializer, initargs):
        monkeypatch.setattr(workers, "_parser", initargs[0])
        return ThreadPoolExecutor(num_workers)

    monkeypatch.setattr(workers, "ProcessPoolExecutor", pool)
