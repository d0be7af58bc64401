"""Speed and memory of the metrics.

Updates: microseconds for a batch, fastest of several rounds. Metrics that keep rows: seconds for
all updates and for `compute` over many rows, and by how much the process grew. Rows come in
batches of 4096; groups are drawn uniformly; one thread.

    python benchmarks/metrics.py
    python benchmarks/metrics.py --rows 10000000 --groups 1000000 --check
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import timeit
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

BATCH = 4096


def main() -> int:
    """Prints two tables, and the figures as JSON on the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--groups", type=int, default=1_000_000)
    parser.add_argument("--check", action="store_true", help="compare grouped AUC with pandas")
    args = parser.parse_args()
    torch.set_num_threads(1)
    facts = {"updates": updates(), "kept": kept(args.rows, args.groups)}
    if args.check:
        facts["pandas"] = check(args.rows, args.groups)
    print(json.dumps({"rows": args.rows, "groups": args.groups, **facts}))
    return 0


def updates() -> dict[str, float]:
    """Times one update of each metric whose state does not grow."""
    from tzrec.metrics.accuracy import Accuracy
    from tzrec.metrics.auc import AUC
    from tzrec.metrics.decay_auc import DecayAUC
    from tzrec.metrics.mean import RunningMean
    from tzrec.metrics.normalized_entropy import NormalizedEntropy
    from tzrec.metrics.regression import MeanSquaredError
    from tzrec.metrics.xauc import XAUC

    scores, targets = torch.rand(BATCH), torch.rand(BATCH)
    labels = (targets < 0.3).long()
    cases: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "auc": (AUC(), (scores, labels)),
        "auc, decayed": (DecayAUC(), (scores, labels)),
        "accuracy": (Accuracy(), (scores, labels)),
        "mean squared error": (MeanSquaredError(), (scores, targets)),
        "normalized entropy": (NormalizedEntropy(), (scores, labels)),
        "mean of a loss": (RunningMean(), (torch.tensor(0.3), BATCH)),
        "xauc in batch": (XAUC(in_batch=True), (scores, targets)),
    }
    print(f"update with {BATCH} rows, µs")
    found = {}
    for name, (metric, columns) in cases.items():
        metric.update(*columns)  # compiles
        rounds = timeit.repeat(lambda m=metric, c=columns: m.update(*c), number=100, repeat=10)
        found[name] = round(min(rounds) * 1e4, 1)
        print(f"  {name:20} {found[name]:8.1f}")
    return found


def batches(num_rows: int, num_groups: int) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yields (scores, labels, targets, keys)."""
    rng = np.random.default_rng(0)
    ids = rng.integers(-(2**62), 2**62, num_groups)
    for start in range(0, num_rows, BATCH):
        size = min(BATCH, num_rows - start)
        columns = (
            rng.random(size, np.float32),
            (rng.random(size) < 0.3).astype(np.int64),
            rng.random(size, np.float32),
            ids[rng.integers(0, num_groups, size)],
        )
        yield tuple(map(torch.from_numpy, columns))


def kept(num_rows: int, num_groups: int) -> dict[str, dict[str, float]]:
    """Times the metrics that keep rows."""
    from tzrec.metrics.grouped_auc import GroupedAUC
    from tzrec.metrics.grouped_xauc import GroupedXAUC
    from tzrec.metrics.xauc import XAUC

    cases: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
        "grouped auc": (GroupedAUC, (0, 1, 3)),
        "grouped xauc": (GroupedXAUC, (0, 2, 3)),
        "xauc": (XAUC, (0, 2)),
    }
    print(f"{num_rows:,} rows, {num_groups:,} groups     updates s  compute s  grown MB")
    found = {}
    for name, (make, columns) in cases.items():
        run(make(), 2 * BATCH, 10, columns)  # compiles
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = peak_memory()
        seconds, value = run(make(), num_rows, num_groups, columns)
        grown = peak_memory() - before
        found[name] = {"updates": seconds[0], "compute": seconds[1], "MB": grown, "value": value}
        print(f"  {name:28} {seconds[0]:10.2f} {seconds[1]:10.2f} {grown:9.0f}")
    return found


def run(
    metric: Any, num_rows: int, num_groups: int, columns: tuple[int, ...]
) -> tuple[tuple[float, float], float]:
    """Feeds a metric; returns CPU seconds of its updates and of `compute`, and the value."""
    updating = 0.0
    for batch in batches(num_rows, num_groups):
        started = time.process_time()
        metric.update(*(batch[i] for i in columns))
        updating += time.process_time() - started
    started = time.process_time()
    value = float(metric.compute())
    return (updating, time.process_time() - started), value


def peak_memory() -> float:
    """Returns the most memory that the process had since the peak was forgotten, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def check(num_rows: int, num_groups: int) -> float:
    """Computes grouped AUC with pandas; returns its CPU seconds."""
    import pandas as pd

    rows = zip(*batches(num_rows, num_groups), strict=True)
    columns = [torch.cat(parts).numpy() for parts in rows]
    started = time.process_time()
    frame = pd.DataFrame({"s": columns[0], "y": columns[1], "k": columns[3]})
    frame["ry"] = frame.groupby("k").s.rank() * frame.y
    by = frame.groupby("k").agg(ry=("ry", "sum"), p=("y", "sum"), n=("y", "size"))
    both = by[(by.p > 0) & (by.p < by.n)]
    value = ((both.ry - both.p * (both.p + 1) / 2) / (both.p * (both.n - both.p))).mean()
    seconds = time.process_time() - started
    print(f"pandas: grouped auc {value:.12f} in {seconds:.1f} CPU s")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
