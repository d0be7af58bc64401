"""How fast batches come: in-process thread against worker processes.

    python benchmarks/loader.py [--rows 300000] [--workers 1 2] [--work-ms 0 8]

Writes a Parquet file of 26 id, 13 number and one label column (and one of text lists with
``--text``), and reads it through the loader. ``--work-ms`` burns CPU per batch in the consumer,
as a training step does. CPU seconds count this process and its workers from the first batch
on, without that burnt work; what worker processes cost to start is in the seconds of the start.

With ``--memory`` files of one million rows and of that many are read instead, each in a fresh
process, whose memory is given: at its peak, without that before the first batch.

    python benchmarks/loader.py --memory 20000000
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from google.protobuf import text_format

from tzrec.datasets.dataset import create_dataloader
from tzrec.features.feature import create_features
from tzrec.protos.data_pb2 import DataConfig
from tzrec.protos.feature_pb2 import FeatureConfig

NUM_IDS, NUM_FLOATS = 26, 13


def write_table(path: Path, rows: int, *, text: bool) -> None:
    random = np.random.default_rng(0)
    columns: dict[str, pa.Array] = {}
    for i in range(NUM_IDS):
        ids = random.integers(0, 100_000, size=rows)
        if text:
            pair = np.char.add(np.char.add(ids.astype(str), "\x03"), np.roll(ids, 1).astype(str))
            columns[f"c{i}"] = pa.array(pair)
        else:
            columns[f"c{i}"] = pa.array(ids)
    for i in range(NUM_FLOATS):
        columns[f"d{i}"] = pa.array(random.random(rows, dtype=np.float32))
    columns["label"] = pa.array(random.integers(0, 2, size=rows))
    pq.write_table(pa.table(columns), path, row_group_size=100_000)


def features() -> list:
    texts = [
        f'id_feature {{ feature_name: "c{i}" num_buckets: 100000 embedding_dim: 8 }}'
        for i in range(NUM_IDS)
    ] + [f'raw_feature {{ feature_name: "d{i}" }}' for i in range(NUM_FLOATS)]
    return create_features([text_format.Parse(text, FeatureConfig()) for text in texts])


def cpu_seconds() -> float:
    """CPU time of this process and its living children."""
    this = psutil.Process()
    times = [process.cpu_times() for process in [this, *this.children(recursive=True)]]
    return sum(t.user + t.system for t in times)


def burn(milliseconds: float) -> None:
    end = time.thread_time() + milliseconds / 1000
    block = np.ones((256, 256), dtype=np.float32)
    while time.thread_time() < end:
        block @ block


def measure(
    path: Path, loader_text: str, *, work_ms: float, batch_size: int, made: list | None = None
) -> dict[str, float]:
    config = text_format.Parse(
        f'dataset_type: ParquetDataset batch_size: {batch_size} label_fields: "label" '
        + loader_text,
        DataConfig(),
    )
    rows, began = 0, time.perf_counter()
    with create_dataloader(config, made or features(), str(path)) as loader:
        for batch in loader:
            if not rows:
                first, first_cpu = time.perf_counter(), cpu_seconds()
            rows += batch.labels["label"].numel()
            burn(work_ms)
        end, cpu = time.perf_counter(), cpu_seconds() - first_cpu
    return {
        "start": first - began,
        "rows/s": rows / (end - first),
        "rows/s with start": rows / (end - began),
        "cpu": (cpu - work_ms / 1000 * -(-rows // batch_size)) * 1e6 / rows,
    }


def write_long_table(path: Path, rows: int, group: int) -> None:
    """Writes rows of the same columns chunk by chunk, in row groups of ``group`` rows."""
    random = np.random.default_rng(0)
    part = {f"c{i}": random.integers(0, 100_000, 1_000_000) for i in range(NUM_IDS)}
    part |= {f"d{i}": random.random(1_000_000, dtype=np.float32) for i in range(NUM_FLOATS)}
    part["label"] = random.integers(0, 2, 1_000_000)
    table = pa.table(part)
    with pq.ParquetWriter(path, table.schema) as writer:
        for start in range(0, rows, group):
            copies = [table.slice(0, min(group, rows - start) % 1_000_000)]
            copies += [table] * (min(group, rows - start) // 1_000_000)
            writer.write_table(pa.concat_tables(copies), row_group_size=group)


class PeakMemory(threading.Thread):
    """Watches how much memory this process holds.

    Attributes:
        before: bytes when it started.
        peak: most bytes since then.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process()
        self.before = self.peak = self._process.memory_info().rss
        self._ends = threading.Event()

    def run(self) -> None:
        while not self._ends.wait(0.02):
            self.peak = max(self.peak, self._process.memory_info().rss)

    def end(self) -> int:
        """Returns the bytes above those of the start."""
        self._ends.set()
        self.join()
        return self.peak - self.before


def read_whole(path: Path, loader_text: str) -> dict[str, float]:
    """Reads a file in this process; returns MB above those of the start, and rows/s."""
    make = features()
    memory = PeakMemory()
    memory.start()
    facts = measure(path, loader_text, work_ms=0.0, batch_size=4096, made=make)
    return {"peak MB": memory.end() / 1e6, "rows/s": facts["rows/s"]}


def compare_memory(rows: int) -> None:
    """Prints the memory of short and long files, with row groups of two sizes."""
    print("| rows | rows of a row group | shuffle | peak MB | rows/s |\n|---|---|---|---|---|")
    for group in (100_000, 1_000_000):
        for size in (1_000_000, rows):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "rows.parquet"
                write_long_table(path, size, group)
                for text in ("loader: THREAD", "loader: THREAD shuffle: true"):
                    command = [sys.executable, __file__, "--read", str(path), text]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    facts = json.loads(done.stdout.splitlines()[-1])
                    print(
                        f"| {size:,} | {group:,} | {'yes' if 'shuffle' in text else 'no'} | "
                        f"{facts['peak MB']:,.0f} | {facts['rows/s']:,.0f} |",
                        flush=True,
                    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--work-ms", type=float, nargs="*", default=[0.0, 8.0])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--text", action="store_true", help="ids as multi-value text")
    parser.add_argument("--memory", type=int, default=0, metavar="ROWS", help="of the long file")
    parser.add_argument("--read", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        print(json.dumps(read_whole(Path(args.read[0]), args.read[1])))
        return
    if args.memory:
        compare_memory(args.memory)
        return
    kinds = {"thread": "loader: THREAD", "thread, shuffle": "loader: THREAD shuffle: true"}
    for workers in args.workers:
        kinds[f"{workers} process(es)"] = f"loader: PROCESS num_workers: {workers}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        write_table(path, args.rows, text=args.text)
        print(f"{args.rows:,} rows x {NUM_IDS + NUM_FLOATS + 1} columns, batch {args.batch_size}")
        print("| loader | work ms/batch | rows/s | with start | start s | CPU s per 1M rows |")
        print("|---|---|---|---|---|---|")
        for work_ms in args.work_ms:
            for kind, text in kinds.items():
                runs = [
                    measure(path, text, work_ms=work_ms, batch_size=args.batch_size)
                    for _ in range(args.repeat)
                ]
                best = {key: float(np.median([run[key] for run in runs])) for key in runs[0]}
                print(
                    f"| {kind} | {work_ms:g} | {best['rows/s']:,.0f} | "
                    f"{best['rows/s with start']:,.0f} | {best['start']:.2f} | {best['cpu']:.2f} |"
                )


if __name__ == "__main__":
    main()
