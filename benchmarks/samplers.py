"""What samplers cost: building their tables, memory, draws.

    python benchmarks/samplers.py [--items 1000000 --users 1000000 --edges 10000000] [--text]

Writes an item table (id, weight by a power law, three attributes) and an edge table of random
users and items (each user's edges apart from each other, the worst case), as Parquet or as text
with a typed header, builds the samplers, and draws for batches of random positives. ``--folder``
keeps the tables for another run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import pickle
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from google.protobuf import text_format
from pyarrow import csv

from tzrec.datasets.samplers.base import BaseSampler
from tzrec.datasets.samplers.factory import create_sampler
from tzrec.protos.data_pb2 import DataConfig

PIECE = 1_000_000
FIELDS = {"item_id": pa.int64(), "price": pa.float32(), "brand": pa.string()}
ATTRIBUTES = 'attr_fields: ["item_id", "price", "brand"] item_id_field: "item_id"'


def item_pieces(num_items: int):
    random = np.random.default_rng(0)
    for first in range(0, num_items, PIECE):
        size = min(PIECE, num_items - first)
        brands = random.integers(0, 100_000, size).astype(str)
        yield pa.table(
            {
                # A bijection: ids in no order.
                "item_id": (np.arange(first, first + size) * 0x9E3779B1) % (1 << 40),
                "weight": random.pareto(1.2, size) + 1,
                "price": random.random(size, dtype=np.float32),
                "brand": pa.array(np.char.add("b", brands)),
            }
        )


def edge_pieces(num_edges: int, num_users: int, num_items: int):
    random = np.random.default_rng(1)
    for first in range(0, num_edges, PIECE):
        size = min(PIECE, num_edges - first)
        yield pa.table(
            {
                "user_id": random.integers(0, num_users, size),
                "item_id": (random.integers(0, num_items, size) * 0x9E3779B1) % (1 << 40),
                "weight": np.ones(size, dtype=np.float32),
            }
        )


def write(path: Path, pieces, header: str) -> None:
    if path.suffix == ".parquet":
        writer = None
        for piece in pieces:
            writer = writer or pq.ParquetWriter(path, piece.schema)
            writer.write_table(piece)
        writer.close()
        return
    with pa.OSFile(str(path), "wb") as file:
        file.write(header.encode())
        options = csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
        for piece in pieces:
            if "brand" in piece.column_names:
                values = [piece.column(name).cast(pa.string()) for name in FIELDS]
                joined = pc.binary_join_element_wise(*values, ":")
                piece = piece.select(["item_id", "weight"]).append_column("attrs", joined)
            csv.write_csv(piece, file, options)


def write_tables(folder: Path, sizes: argparse.Namespace, suffix: str) -> None:
    items, edges = folder / f"items{suffix}", folder / f"edges{suffix}"
    if not items.exists():
        write(items, item_pieces(sizes.items), "id:int64\tweight:float\tattrs:string\n")
    users = folder / "users.txt"
    users.write_text("id:int64\tweight:float\n0\t1\n")  # only its header is read
    if not edges.exists():
        pieces = edge_pieces(sizes.edges, sizes.users, sizes.items)
        write(edges, pieces, "user:int64\titem:int64\tweight:float\n")


def sampler_of(kind: str, folder: Path, suffix: str, num_sample: int) -> BaseSampler:
    items, edges = folder / f"items{suffix}", folder / f"edges{suffix}"
    text = f'num_sample: {num_sample} {ATTRIBUTES} weight_field: "weight" '
    if kind == "negative_sampler":
        text += f'input_path: "{items}"'
    else:
        text += f'item_input_path: "{items}" user_input_path: "{folder}/users.txt" '
        text += 'user_id_field: "user_id" '
    if kind.endswith("v2"):
        text += f'pos_edge_input_path: "{edges}" '
    if kind.startswith("hard"):
        text += f'hard_neg_edge_input_path: "{edges}" num_hard_sample: 4 '
    config = text_format.Parse(f"dataset_type: ParquetDataset {kind} {{ {text} }}", DataConfig())
    sampler = create_sampler(config, FIELDS, is_training=True, with_log_q=True)
    assert sampler is not None
    return sampler


def measure(kind: str, folder: Path, suffix: str, args: argparse.Namespace) -> None:
    sampler = sampler_of(kind, folder, suffix, args.num_sample)
    began, cpu = time.perf_counter(), time.process_time()
    sampler.build()
    built, cpu_built = time.perf_counter() - began, time.process_time() - cpu
    peak = peak_memory()
    random = np.random.default_rng(2)
    keys = sampler.arrays["items.keys"]
    batches = [
        {
            "item_id": pa.array(random.choice(keys, args.batch_size)),
            "user_id": pa.array(random.integers(0, args.users, args.batch_size)),
        }
        for _ in range(20)
    ]
    sampler.get(batches[0], np.random.default_rng(0))
    began, cpu = time.perf_counter(), time.thread_time()
    for number, batch in enumerate(batches):
        rows = sampler.get(batch, np.random.default_rng(number))
    per_batch, cpu = (time.perf_counter() - began) / 20, (time.thread_time() - cpu) / 20
    num_rows = rows.num_negatives + (
        0 if rows.hard_neg_indices is None else len(rows.hard_neg_indices)
    )
    print(
        f"| {kind} | {built:.1f} | {cpu_built:.1f} | {peak / 1e9:.2f} | "
        f"{sampler.arrays.nbytes / 1e9:.2f} | {len(pickle.dumps(sampler)):,} | "
        f"{num_rows:,} | {1e3 * per_batch:.2f} | {1e3 * cpu:.2f} | "
        f"{draws_per_second(sampler) / 1e6:.1f} |",
        flush=True,
    )


def peak_memory() -> int:
    """Most memory that this process has had, shared memory included."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def draws_per_second(sampler: BaseSampler) -> float:
    """Draws without taking attributes: for 4,096 positives, or each for another user."""
    sampler.config.num_sample = 2_000_000
    keys = sampler.arrays["items.keys"]
    num_rows = sampler.num_sample if "positive.starts" in sampler.arrays else 4096
    positives = np.random.default_rng(3).integers(0, len(keys), num_rows).astype(np.int32)
    columns = {"user_id": pa.array(positives, pa.int64())}
    began = time.thread_time()
    sampler._draw(positives, columns, 7)
    return sampler.num_sample / (time.thread_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--edges", type=int, default=10_000_000)
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--num-sample", type=int, default=1024)
    parser.add_argument("--text", action="store_true", help="text with a typed header")
    parser.add_argument("--folder", type=Path, help="where the tables are kept")
    parser.add_argument(
        "--kinds",
        nargs="*",
        default=["negative_sampler", "negative_sampler_v2", "hard_negative_sampler"],
    )
    args = parser.parse_args()
    suffix = ".txt" if args.text else ".parquet"
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        run(spawn, write_tables, folder, args, suffix)
        print(
            f"{args.items:,} items, {args.users:,} users, {args.edges:,} edges ({suffix[1:]}); "
            f"batches of {args.batch_size:,}"
        )
        print(
            "| sampler | build s | CPU s | peak GB | tables GB | pickle bytes | rows | ms/batch | "
            "CPU ms/batch | M draws/s |"
        )
        print("|---|---|---|---|---|---|---|---|---|---|")
        for kind in args.kinds:
            run(spawn, measure, kind, folder, suffix, args)


def run(spawn, function, *arguments) -> None:
    """Calls a function in a process of its own: its memory is counted apart."""
    process = spawn.Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{function.__name__} failed")


if __name__ == "__main__":
    main()
