"""Rows per second of feature generation, end to end through `FgHandler.process_arrow`.

    python benchmarks/fg.py [--rows 8192] [--seconds 1] [--only mix]

One thread. Times are CPU times (the median of repeated calls), so that other work on the machine
does not count. The same columns go through polars where it can compute the same thing, with its
own hash, since it has none of ours; their conversion to a frame is not counted. ``--cold``
measures import, compilation and loading from the cache in new processes instead.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from tzrec.fg import FgHandler
from tzrec.fg.kernels import use_backend
from tzrec.utils.memory import keep_freed_memory

BUCKETS = 1_000_003
Columns = dict[str, pa.Array]
Features = list[dict[str, Any]]
Workload = tuple[Features, Columns, str]


def words(random: np.random.Generator, count: int) -> list[str]:
    return [str(value) for value in random.integers(0, 10**6, count).tolist()]


def joined(random: np.random.Generator, rows: int, count: int, separator: str) -> pa.Array:
    return pa.array([separator.join(words(random, count)) for _ in range(rows)])


def lists(random: np.random.Generator, rows: int, count: int) -> pa.Array:
    offsets = pa.array(np.arange(0, rows * count + 1, count, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(words(random, rows * count)))


def id_of(name: str, column: str, **options: Any) -> dict[str, Any]:
    return {
        "feature_type": "id_feature",
        "feature_name": name,
        "expression": f"user:{column}",
        "hash_bucket_size": BUCKETS,
        "default_value": "",
        **options,
    }


def sequence_of(name: str, column: str) -> dict[str, Any]:
    steps = {"sequence_delim": ";", "sequence_length": 100, "default_value": "0", "value_dim": 1}
    return id_of(name, column, feature_type="sequence_id_feature", **steps)


def raw_of(name: str, column: str) -> dict[str, Any]:
    return {
        "feature_type": "raw_feature",
        "feature_name": name,
        "expression": f"item:{column}",
        "default_value": "0",
        "normalizer": "method=log10,threshold=0.05,default=-5",
    }


def combo_of(name: str, *columns: str) -> dict[str, Any]:
    return {
        "feature_type": "combo_feature",
        "feature_name": name,
        "expression": [f"user:{column}" for column in columns],
        "hash_bucket_size": BUCKETS,
    }


def lookup_of(name: str, column: str, key: str) -> dict[str, Any]:
    return {
        "feature_type": "lookup_feature",
        "feature_name": name,
        "map": f"user:{column}",
        "key": f"item:{key}",
        "combiner": "sum",
        "default_value": "0",
        "value_type": "float",
    }


def map_column(random: np.random.Generator, rows: int, entries: int) -> pa.Array:
    keys = np.concatenate([random.permutation(100)[:entries] for _ in range(rows)])
    offsets = pa.array(np.arange(0, rows * entries + 1, entries, dtype=np.int32))
    values = pa.array(random.random(rows * entries).astype(np.float32))
    return pa.MapArray.from_arrays(offsets, pa.array(keys.astype(str)), values)


def keys_column(random: np.random.Generator, rows: int, count: int) -> pa.Array:
    keys = random.integers(0, 100, (rows, count)).astype(str)
    return pa.array(["\x1d".join(row) for row in keys.tolist()])


def workloads(rows: int) -> dict[str, Workload]:
    """Returns name → features, columns, and the name of the polars version."""
    random = np.random.default_rng(0)
    five, three = joined(random, rows, 5, "\x1d"), joined(random, rows, 3, "\x1d")
    pair = {"a": three, "b": joined(random, rows, 3, "\x1d")}
    maps = {"m": map_column(random, rows, 20), "k": keys_column(random, rows, 2)}
    numbers = {"p": pa.array((random.random(rows) * 100).astype(np.float32))}
    return {
        "id, one string": ([id_of("f", "a")], {"a": pa.array(words(random, rows))}, "hash"),
        "id, int64": (
            [id_of("f", "a")],
            {"a": pa.array(random.integers(0, 10**9, rows))},
            "hash_int",
        ),
        "id, list of 5": ([id_of("f", "a")], {"a": lists(random, rows, 5)}, "hash_list"),
        "id, 5 joined by chr(29)": ([id_of("f", "a")], {"a": five}, "hash_joined"),
        "raw, log10": ([raw_of("f", "p")], numbers, "log10"),
        "combo 3x3": ([combo_of("f", "a", "b")], pair, "cross"),
        "lookup of 20, 2 keys": ([lookup_of("f", "m", "k")], maps, "lookup"),
        "sequence, list of 100": (
            [sequence_of("f", "a")],
            {"a": lists(random, rows, 100)},
            "hash_list",
        ),
        "sequence, 100 joined by ;": (
            [sequence_of("f", "a")],
            {"a": joined(random, rows, 100, ";")},
            "hash_steps",
        ),
        "mix of 40, sequences of 100": mix(random, rows, 100),
        "mix of 40, sequences of 5": mix(random, rows, 5),
    }


def mix(random: np.random.Generator, rows: int, steps: int) -> Workload:
    """Returns 40 features of 38 columns: the shape of a feed.

    16 ids of one string, 4 of one number, 4 of several values, 7 numbers, 2 products, 2 lookups,
    1 expression and 4 sequences.
    """
    columns: Columns = {}
    features: Features = []
    for i in range(16):
        columns[f"s{i}"] = pa.array(words(random, rows))
        features.append(id_of(f"id{i}", f"s{i}"))
    for i in range(4):
        columns[f"i{i}"] = pa.array(random.integers(0, 10**9, rows))
        features.append(id_of(f"int{i}", f"i{i}"))
        columns[f"m{i}"] = joined(random, rows, 5, "\x1d")
        features.append(id_of(f"multi{i}", f"m{i}"))
        columns[f"q{i}"] = lists(random, rows, steps)
        features.append(sequence_of(f"seq{i}", f"q{i}"))
    for i in range(7):
        columns[f"p{i}"] = pa.array((random.random(rows) * 100).astype(np.float32))
        features.append(raw_of(f"raw{i}", f"p{i}"))
    for i in range(2):
        features.append(combo_of(f"combo{i}", f"s{i}", f"s{i + 2}"))
        columns[f"k{i}"], columns[f"t{i}"] = (
            map_column(random, rows, 20),
            keys_column(random, rows, 1),
        )
        features.append(lookup_of(f"lookup{i}", f"k{i}", f"t{i}"))
    features.append(
        {
            "feature_type": "expr_feature",
            "feature_name": "ratio",
            "expression": "log(1 + p0) / (1 + p1)",
            "variables": ["item:p0", "item:p1"],
            "default_value": "0",
        }
    )
    assert len(features) == 40
    return features, columns, "mix"


def measure(call: Callable[[], object], seconds: float) -> float:
    """Returns the median CPU time of a call."""
    call()
    call()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < until:
        start = time.process_time_ns()
        call()
        times.append((time.process_time_ns() - start) / 1e9)
    return statistics.median(times)


def cold_start() -> None:
    """Prints the seconds of import, of compilation and of loading from the cache."""
    code = (
        "import time; t = time.perf_counter(); import json\n"
        "from tzrec.fg import FgHandler\n"
        "from tzrec.fg.kernels import warm_up\n"
        "u = time.perf_counter(); warm_up(); v = time.perf_counter()\n"
        "print(json.dumps([u - t, v - u, time.process_time()]))"
    )
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}  # noqa: TID251
        for name in ("cold", "from the cache"):
            command = [sys.executable, "-c", code]
            output = subprocess.run(command, env=environment, capture_output=True, check=True)
            imports, kernels, cpu = json.loads(output.stdout)
            print(f"{name}: import {imports:.2f} s, kernels {kernels:.2f} s, CPU {cpu:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--backend", choices=["numba", "numpy"])
    parser.add_argument("--no-polars", action="store_true")
    parser.add_argument("--cold", action="store_true")
    args = parser.parse_args()
    if args.cold:
        cold_start()
        return
    pa.set_cpu_count(1)
    keep_freed_memory()  # as commands do
    use_backend(args.backend)
    versions: dict[str, Callable[[Columns], Callable[[], object]]] = {}
    if not args.no_polars:
        os.environ["POLARS_MAX_THREADS"] = "1"  # noqa: TID251 (polars reads it when it is imported)
        from fg_polars import VERSIONS

        versions = VERSIONS
    print(f"million rows/s of CPU time{'':<8}{'tzrec':>10}{'polars':>10}{'ratio':>8}")
    for name, (features, columns, version) in workloads(args.rows).items():
        if args.only not in name:
            continue
        handler = FgHandler({"features": features})
        own = measure(partial(handler.process_arrow, columns), args.seconds)
        line = f"{name:<34}{args.rows / own / 1e6:10.2f}"
        if version in versions:
            other = measure(versions[version](columns), args.seconds)
            line += f"{args.rows / other / 1e6:10.2f}{other / own:8.1f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
