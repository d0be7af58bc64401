"""Memory of a loader, which does not grow with its files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SCRIPT = """
import resource, sys
sys.path.insert(0, {here!r})
from google.protobuf import text_format
from datasets_fakes import DenseFake
from tzrec.datasets.dataset import create_dataloader
from tzrec.protos.data_pb2 import DataConfig

def used():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

config = text_format.Parse({config!r}, DataConfig())
features = [DenseFake("x%d" % i) for i in range(10)]
with create_dataloader(config, features, {path!r}) as loader:
    rows = 0
    for batch in loader:
        rows += batch.labels["label"].shape[0]
        if rows == {warm}:
            before = used()
print(rows, used() - before, used())
"""
COLUMNS, BATCH = 10, 1000


def write(path: Path, rows: int, *, csv: bool) -> int:
    """Writes random numbers, in pieces; returns the bytes of the file."""
    random = np.random.default_rng(0)
    piece = pa.table(
        {
            **{f"x{i}": random.random(50_000) for i in range(COLUMNS)},
            "label": random.integers(0, 2, 50_000),
        }
    )
    if csv:
        from pyarrow import csv as writers

        with writers.CSVWriter(str(path), piece.schema) as writer:
            for _ in range(rows // len(piece)):
                writer.write_table(piece)
    else:
        with pq.ParquetWriter(str(path), piece.schema, use_dictionary=False) as writer:
            # All rows in one row group: the worst case.
            writer.write_table(pa.concat_tables([piece] * (rows // len(piece))), rows)
    return path.stat().st_size


def growth(path: Path, rows: int, text: str) -> int:
    """Reads the file in a process of its own; returns MiB that it took after the first rows."""
    config = f'batch_size: {BATCH} label_fields: "label" with_header: true {text} '
    config += f"dataset_type: {path.suffix[1:].title()}Dataset"
    here = str(Path(__file__).parent)
    script = SCRIPT.format(here=here, config=config, path=str(path), warm=40 * BATCH)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    read, grown, _ = map(int, done.stdout.split())
    assert read == rows
    return grown


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_memory_does_not_grow_with_the_file(suffix, tmp_path):
    path, rows = tmp_path / f"a.{suffix}", 1_000_000 if suffix == "parquet" else 500_000
    size = write(path, rows, csv=suffix == "csv")
    assert size > 75 << 20
    assert growth(path, rows, "") < 40


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("text", ["", "shuffle: true shuffle_buffer_size: 32", "max_bad_rows: 9"])
def test_memory_of_a_large_file(suffix, text, tmp_path):
    path, rows = tmp_path / f"a.{suffix}", 10_000_000
    size = write(path, rows, csv=suffix == "csv")
    assert size > 800 << 20
    assert growth(path, rows, text) < 96
