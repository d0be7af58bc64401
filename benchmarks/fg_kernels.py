"""Rows per second of each kernel of feature generation, on both back ends.

    python benchmarks/fg_kernels.py [--rows 8192] [--seconds 0.3] [--only bucket] [--backend numba]

A row is a cell: one text, or a list of about five, a map of 20 entries and two keys, and so on,
as the name says. Times are the best and the median of repeated calls in one thread, outputs
allocated anew each time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from types import ModuleType

import numpy as np

from tzrec.fg import kernels as fg_kernels

BUCKETS = 1_000_003
Case = Callable[[ModuleType], object]


def lay_out(texts: list[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ends = np.cumsum([len(text) for text in texts])
    starts = np.concatenate([[0], ends[:-1]])
    return np.frombuffer(b"".join(texts), dtype=np.uint8), starts, ends


def words(random: np.random.Generator, count: int, digits: int = 6) -> list[bytes]:
    return [b"%d" % value for value in random.integers(0, 10**digits, count)]


def text_cases(rows: int) -> dict[str, Case]:
    random = np.random.default_rng(0)
    short, long = lay_out(words(random, rows)), lay_out(words(random, rows, 18))
    middle = lay_out(words(random, rows, 12))
    many = lay_out([b"\x1d".join(words(random, 5)) for _ in range(rows)])
    sequences = lay_out([b";".join(words(random, 100)) for _ in range(rows // 8)])
    lists = lay_out(words(random, 5 * rows))
    pairs = lay_out(
        [b"%s:%s" % pair for pair in zip(*[words(random, rows) for _ in range(2)], strict=True)]
    )
    prefix = np.frombuffer(b"feature_", dtype=np.uint8)
    ids = random.integers(0, 10**9, rows)

    def split_hash(k: ModuleType) -> object:
        starts, ends, _ = k.split(*many, 0x1D, -1, False)
        return k.bucket_text(many[0], starts, ends, BUCKETS, False)

    return {
        "bucket_text 6 bytes": lambda k: k.bucket_text(*short, BUCKETS, False),
        "bucket_text 12 bytes": lambda k: k.bucket_text(*middle, BUCKETS, False),
        "bucket_text 18 bytes": lambda k: k.bucket_text(*long, BUCKETS, False),
        "bucket_text 2^63-1 buckets": lambda k: k.bucket_text(*short, 2**63 - 1, False),
        "bucket_text farm": lambda k: k.bucket_text(*short, BUCKETS, True),
        "hash_text 6 bytes": lambda k: k.hash_text(*short, False),
        "bucket_text list of 5": lambda k: k.bucket_text(*lists, BUCKETS, False),
        "bucket_ints": lambda k: k.bucket_ints(ids, BUCKETS, False),
        "bucket_prefixed": lambda k: k.bucket_prefixed(prefix, *short, BUCKETS, False),
        "split 5": lambda k: k.split(*many, 0x1D, -1, False),
        "split + bucket_text 5": split_hash,
        "split 100 (/8 rows)": lambda k: k.split(*sequences, ord(";"), -1, True),
        "split_pairs": lambda k: k.split_pairs(*pairs, ord(":")),
        "concat 2": lambda k: k.concat((short, middle), prefix),
        "gather_text": lambda k: k.gather_text(*short),
    }


def number_cases(rows: int) -> dict[str, Case]:
    random = np.random.default_rng(1)
    ids = random.integers(0, 10**9, rows)
    prices = random.integers(0, 10**6, rows) / 100
    digits, decimals = lay_out([b"%d" % i for i in ids]), lay_out([b"%.2f" % p for p in prices])
    hard = random.random(rows)
    hard_text = lay_out([repr(value).encode() for value in hard.tolist()])
    lengths = random.integers(0, 7, rows).astype(np.int32)
    values = random.random(int(lengths.sum()))
    seldom = (random.random(rows) > 0.05).astype(np.int32)
    numbers = prices.astype(np.float32)
    bounds = np.linspace(0, 9999, 20, dtype=np.float32)
    some_ids = ids[: int(seldom.sum())]
    zero = np.zeros(1, dtype=np.int64)
    return {
        "parse_ints": lambda k: k.parse_ints(*digits),
        "parse_floats 2 decimals": lambda k: k.parse_floats(*decimals),
        "parse_floats 16 digits": lambda k: k.parse_floats(*hard_text),
        "format_ints": lambda k: k.format_ints(ids),
        "format_floats 2 decimals": lambda k: k.format_floats(prices),
        "format_floats 16 digits": lambda k: k.format_floats(hard),
        "format_floats32": lambda k: k.format_floats32(numbers),
        "fill_empty_ids": lambda k: k.fill_empty_ids(some_ids, seldom, zero),
        "take_first 3": lambda k: k.take_first(lengths, 3),
        "combine sum": lambda k: k.combine(values, lengths, 0),
        "combine gap_max": lambda k: k.combine(values, lengths, 6),
        "bucket_boundaries 20": lambda k: k.bucket_boundaries(numbers, bounds),
        "bucket_number": lambda k: k.bucket_number(ids, np.zeros(rows, np.uint8), BUCKETS),
    }


def map_cases(rows: int) -> dict[str, Case]:
    random = np.random.default_rng(2)

    def cells(count: int) -> tuple[np.ndarray, ...]:
        lengths = np.full(rows, count, dtype=np.int32)
        return *lay_out(words(random, count * rows, 2)), lengths

    few = cells(3), cells(3)
    three = cells(2), cells(2), cells(2)
    maps, keys = cells(20), cells(2)
    vocabulary = lay_out(sorted(set(words(random, 20_000))))
    ids = np.arange(len(vocabulary[1]))
    wanted = lay_out(words(random, rows))
    tables: dict[str, object] = {}

    def lookup(k: ModuleType) -> object:
        if k.__name__ not in tables:
            tables[k.__name__] = k.build_vocabulary(*vocabulary, ids)
        return k.lookup_vocabulary(tables[k.__name__], *wanted, -1)

    return {
        "bucket_cross 3x3": lambda k: k.bucket_cross(few, BUCKETS, False),
        "bucket_cross 3x3 farm": lambda k: k.bucket_cross(few, BUCKETS, True),
        "bucket_cross 2x2x2": lambda k: k.bucket_cross(three, BUCKETS, False),
        "cross_text 3x3": lambda k: k.cross_text(few, 95),
        "find_keys 2 of 20": lambda k: k.find_keys(*maps, *keys),
        "lookup_vocabulary of 20k": lookup,
    }


def measure(call: Callable[[], object], seconds: float) -> tuple[float, float]:
    """Returns the best and the median time of a call."""
    times: list[float] = []
    call()
    until = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < until:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times), statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--only", default="")
    parser.add_argument("--backend", choices=["numba", "numpy"], action="append")
    args = parser.parse_args()
    modules = []
    for name in args.backend or ["numba", "numpy"]:
        fg_kernels.use_backend(name)
        start = time.perf_counter()
        fg_kernels.warm_up(print)
        print(f"{name}: ready after {time.perf_counter() - start:.2f} s")
        modules.append(fg_kernels.kernels())
    print(
        f"million rows/s, best (median){'':<4}" + "".join(f"{m.__name__[16:]:>20}" for m in modules)
    )
    for name, case in (
        text_cases(args.rows) | number_cases(args.rows) | map_cases(args.rows)
    ).items():
        if args.only not in name:
            continue
        rows = args.rows // 8 if "/8" in name else args.rows
        cells = []
        for module in modules:
            best, median = measure(lambda m=module, c=case: c(m), args.seconds)
            cells.append(f"{rows / best / 1e6:10.2f} ({rows / median / 1e6:7.2f})")
        print(f"{name:<32}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
