"""What a row costs in training against vocabulary, number of features and length of histories.

* ``vocabulary``: DeepFM on rows of Criteo's shape (13 numbers, 26 Zipf ids, vectors of 16, batches
  of 4096), tables log-spaced from 100 rows on, that many rows in all;
* ``features``: the same with that many features, a third numbers, the others ids of tables of
  20,000 rows;
* ``length``: MultiTowerDIN on rows of Taobao's shape, histories of 1 to that many steps, batches
  of 256.

The wide part of DeepFM has tables of its own, with vectors of 4. Each point is a process with one
thread. CPU time of the process (reading included) over short runs of steps, each step with a new
batch; the start and the first steps do not count. The figure is the median of all runs. Figures
are kept in ``--dir``, and rounds of later calls count too.

    python benchmarks/scale.py
    python benchmarks/scale.py --what vocabulary --values 1e6,5e7 --rounds 1 --fresh
    python benchmarks/scale.py --report
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import criteo_shaped
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import taobao_shaped

from tzrec.options import prepare_process

VALUES = {
    "vocabulary": (100_000, 1_000_000, 10_000_000, 50_000_000),
    "features": (10, 50, 100, 200, 500),
    "length": (10, 50, 200, 1000, 2000),
}
NAMES = {"vocabulary": "rows of all tables", "features": "features", "length": "longest history"}
DIM, WIDE_DIM, BATCH, LENGTH_BATCH = 16, 4, 4096, 256
SMALLEST, ROWS_OF_A_FEATURE = 100, 20_000
WARM, RUN = 4, 4
TOLERANCE = 0.2
RESULTS, PLOTS = "results.json", Path(__file__).parent / "plots"
Records = dict[str, dict[str, list[dict[str, Any]]]]


def main() -> int:
    """Measures what is asked for, prints tables and writes plots."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--what", default=",".join(VALUES))
    parser.add_argument("--values", default="", help="by commas; empty: all")
    parser.add_argument("--rounds", type=int, default=2, help="processes per value")
    parser.add_argument("--runs", type=int, default=4, help=f"of {RUN} steps, per process")
    parser.add_argument("--dir", type=Path, default=Path("experiments/scale"))
    parser.add_argument("--plots", type=Path, default=PLOTS)
    parser.add_argument("--prepare", action="store_true", help="make the data, nothing else")
    parser.add_argument("--report", action="store_true", help="of what is measured already")
    parser.add_argument("--fresh", action="store_true", help="forget earlier figures of these")
    parser.add_argument("--set", action="append", default=[], dest="edits", metavar="A.B=V")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args)))
        return 0
    args.dir.mkdir(parents=True, exist_ok=True)
    asked = [(what, value) for what in args.what.split(",") for value in values_of(args, what)]
    if not args.report:
        for what, value in asked:
            data_file(args, what, value)
    if args.prepare:
        return 0
    records = load(args.dir)
    if not args.report:
        collect(args, asked, records)
    for what in VALUES:
        if records.get(what):
            print(f"\n{NAMES[what]}\n\n{table(what, records[what])}")
            args.plots.mkdir(parents=True, exist_ok=True)
            (args.plots / f"scale_{what}.svg").write_text(plot(what, records[what]))
    return 0


def values_of(args: argparse.Namespace, what: str) -> list[int]:
    """Returns the values to measure."""
    return [int(float(v)) for v in args.values.split(",")] if args.values else list(VALUES[what])


def load(directory: Path) -> Records:
    """Returns what was measured before: sweep → value → processes."""
    path = directory / RESULTS
    records: Records = json.loads(path.read_text()) if path.exists() else {}
    return records


def collect(args: argparse.Namespace, asked: list[tuple[str, int]], records: Records) -> None:
    """Measures in rounds over all values, so that a busy minute does not meet one value only."""
    if args.fresh:
        for what, value in asked:
            records.get(what, {}).pop(str(value), None)
    for _ in range(args.rounds):
        for what, value in asked:
            needed = memory_needed(what, value)
            if needed > free_memory():
                print(f"{what} {value:,}: left out, needs {needed / 1e9:.1f} GB", file=sys.stderr)
                continue
            found = run_one(what, value)
            records.setdefault(what, {}).setdefault(str(value), []).append(found)
            (args.dir / RESULTS).write_text(json.dumps(records, indent=1))
            cost = statistics.median(found["micros"])
            print(f"{what} {value:,}: {cost:.1f} µs, {found['peak']:.2f} GB", file=sys.stderr)


def memory_needed(what: str, value: int) -> float:
    """Returns about how many bytes training takes: weights, sums of squares, an int32 per row."""
    rows = {"vocabulary": value, "features": value * ROWS_OF_A_FEATURE, "length": 3_200_000}[what]
    activations = 1e6 * {"vocabulary": 300, "features": 2 * value, "length": 2 * value}[what]
    return 0.6e9 + rows * ((DIM + WIDE_DIM) * 8 + 2 * 4) + activations


def free_memory() -> float:
    """Returns bytes."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024.0 * next(int(at.split()[1]) for at in lines if at.startswith("MemAvailable"))


def run_one(what: str, value: int) -> dict[str, Any]:
    """Returns what a fresh process measured."""
    prepare_process()  # the child finds the environment of a command
    command = ["env", "OMP_NUM_THREADS=1", *sys.orig_argv]
    command += ["--one", "--what", what, "--values", str(value)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    result: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return result


def table_sizes(total: int) -> list[int]:
    """Returns the rows of the tables, log-spaced, ``total`` in all."""

    def sizes(top: float) -> np.ndarray:
        return np.geomspace(SMALLEST, top, criteo_shaped.NUM_IDS)

    low, high = float(SMALLEST), float(total)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sizes(middle).sum() < total else (low, middle)
    return [round(size) for size in sizes(low)]


def shape(what: str, value: int) -> tuple[int, list[int]]:
    """Returns the number of numbers, and the rows of the tables."""
    if what == "vocabulary":
        return criteo_shaped.NUM_FLOATS, table_sizes(value)
    floats = round(value / 3)
    return floats, [ROWS_OF_A_FEATURE] * (value - floats)


def data_file(args: argparse.Namespace, what: str, value: int) -> Path:
    """Returns a file with a batch for each step, which is written where it is missing."""
    steps = WARM + args.runs * RUN + RUN  # the loader reads ahead until the end
    path: Path = args.dir / f"{what}-{value}-{steps}.parquet"
    if path.exists():
        return path
    if what == "length":
        taobao_shaped.write_data(path, steps * LENGTH_BATCH, longest=value)
        return path
    rng, rows = np.random.default_rng(0), steps * BATCH
    floats, sizes = shape(what, value)
    columns = {"label": (rng.random(rows) < 0.3).astype(np.float32)}
    columns |= {f"int_{i}": rng.exponential(1.0, rows).astype(np.float32) for i in range(floats)}
    for i, size in enumerate(sizes):
        weights = np.cumsum(np.arange(1, size + 1) ** -criteo_shaped.EXPONENT)
        ranks = np.searchsorted(weights / weights[-1], rng.random(rows))
        # The frequent ids lie anywhere in a table.
        columns[f"cat_{i}"] = rng.permutation(size)[ranks]
    pq.write_table(pa.table(columns), path, row_group_size=RUN * BATCH)
    return path


def config_text(args: argparse.Namespace, what: str, value: int) -> str:
    """Returns the config of a point."""
    data, model_dir = data_file(args, what, value), args.dir / "model"
    if what == "length":
        return taobao_shaped.config_text(
            data, model_dir, model="multi_tower_din", batch_size=LENGTH_BATCH, longest=value
        )
    num_floats, sizes = shape(what, value)
    floats = [f"int_{i}" for i in range(num_floats)]
    ids = [f"cat_{i}" for i in range(len(sizes))]
    features = [
        f'feature_configs {{ raw_feature {{ feature_name: "{n}" expression: "user:{n}" }} }}'
        for n in floats
    ] + [
        f'feature_configs {{ id_feature {{ feature_name: "{n}" expression: "user:{n}" '
        f"num_buckets: {size} embedding_dim: {DIM} }} }}"
        for n, size in zip(ids, sizes, strict=True)
    ]
    lists = {"ids": ids, "all": [*floats, *ids]}
    groups, layers = criteo_shaped.MODELS["deepfm"]
    model = "".join(
        f'feature_groups {{ group_name: "{name}" group_type: {kind} feature_names: ['
        + ", ".join(f'"{n}"' for n in lists[names])
        + "] }\n"
        for name, kind, names in groups
    )
    return criteo_shaped.CONFIG.format(
        data=data,
        model_dir=model_dir,
        optimizer="adagrad_optimizer",
        fg_mode="FG_NONE",
        features="\n".join(features),
        model=model + layers,
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Trains in this process; returns the figures."""
    from step_budget import training

    what, value = args.what, int(args.values)
    path = args.dir / f"{what}-{value}.config"
    path.write_text(config_text(args, what, value))
    edits = ["train_config.mixed_precision=FP32", *args.edits]
    with training(path, edits, threads=1, steps=1) as (trainer, loader), loader:
        return timed(args, trainer, loader)


def timed(args: argparse.Namespace, trainer: Any, loader: Any) -> dict[str, Any]:
    """Returns CPU µs per row of each run, those of the tables, and memory in GB."""
    from step_budget import Budget, batch_rows

    groups = trainer.optimizer._tables._groups
    tables = [table for group in groups for table in group.trained.values()]
    micros, of_tables, rows = [], [], 0
    clocks: dict[str, list[float]] = {}
    trainer.model.train()
    batches = iter(loader)
    with Budget(args, trainer, [])._clocked(clocks):
        for number in range(WARM + args.runs * RUN):
            if number >= WARM and (number - WARM) % RUN == 0:
                for seconds in clocks.values():
                    seconds.append(0.0)
                started, rows = time.process_time(), 0
            batch = next(batches)
            rows += batch_rows(batch)
            trainer._run_step(batch)
            if number >= WARM and (number - WARM) % RUN == RUN - 1:
                micros.append(1e6 * (time.process_time() - started) / rows)
                parts = [clocks[name][-1] for name in ("lookup", "rows' sums", "tables")]
                of_tables.append(1e6 * sum(parts) / rows)
    total, _ = trainer.model(next(batches))
    trainer.optimizer.backward(total)
    status = Path("/proc/self/status").read_text().splitlines()
    states = [state for table in tables for state in (table.weight, *table.state.values())]
    return {
        "micros": micros,
        "of_tables": of_tables,
        "distinct": sum(len(table.pending()[0]) for table in tables if table.dim == DIM),
        "peak": next(int(at.split()[1]) for at in status if at.startswith("VmHWM")) * 1024 / 1e9,
        "tables": sum(state.nbytes for state in states) / 1e9,
    }


def points(records: dict[str, list[dict[str, Any]]]) -> list[dict[str, float]]:
    """Returns the figures of each value, ordered."""
    found = []
    for value, processes in sorted(records.items(), key=lambda item: int(item[0])):
        micros = [cost for process in processes for cost in process["micros"]]
        found.append(
            {
                "value": int(value),
                "micros": statistics.median(micros),
                "low": min(micros),
                "high": max(micros),
                "of_tables": statistics.median(c for p in processes for c in p["of_tables"]),
                "distinct": processes[-1]["distinct"],
                "peak": max(process["peak"] for process in processes),
                "tables": processes[-1]["tables"],
            }
        )
    return found


def fitted(found: list[dict[str, float]]) -> tuple[float, float]:
    """Returns slope and start of the straight line with the least relative errors."""
    x, y = (np.array([point[name] for point in found]) for name in ("value", "micros"))
    slope, start = np.polyfit(x, y, 1, w=1 / y) if len(x) > 1 else (0.0, y[0])
    return float(slope), float(start)


def table(what: str, records: dict[str, list[dict[str, Any]]]) -> str:
    """Returns the figures as Markdown."""
    found = points(records)
    slope, start = fitted(found)
    against = "against the cheapest" if what == "vocabulary" else "against the straight line"
    names = [NAMES[what], "distinct rows a batch", "CPU µs per row", "least, most",
             "of it tables", against, "peak GB", "of it tables GB"]  # fmt: skip
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    cheapest, worst = min(point["micros"] for point in found), 0.0
    for point in found:
        expected = cheapest if what == "vocabulary" else start + slope * point["value"]
        off = point["micros"] / expected - 1
        worst = max(worst, abs(off))
        lines.append(
            f"| {point['value']:,} | {point['distinct']:,} | {point['micros']:.1f} "
            f"| {point['low']:.1f}, {point['high']:.1f} | {point['of_tables']:.1f} | {off:+.0%} "
            f"| {point['peak']:.2f} | {point['tables']:.2f} |"
        )
    kind = "flat" if what == "vocabulary" else f"{start:.1f} + {slope:.3g} × {NAMES[what]}"
    verdict = "within" if worst <= TOLERANCE else "NOT within"
    return "\n".join([*lines, "", f"{kind}: {verdict} {TOLERANCE:.0%} (largest {worst:.0%})"])


STYLE = """<style>
svg { color: #0072b2; font-family: sans-serif; } text { fill: #555; font-size: 11px; }
text.axis { font-size: 12px; } .grid { stroke: #ddd; fill: none; }
.frame { stroke: #999; fill: none; } .line, .thin { fill: none; stroke: currentColor; }
.line { stroke-width: 1.8; } .thin { stroke-dasharray: 4 3; } .dot { fill: currentColor; }
.c0 { color: #0072b2; } .c1 { color: #d55e00; } .c2 { color: #777; }
.key { fill: currentColor; } .paper { fill: #fff; } </style>"""


def plot(what: str, records: dict[str, list[dict[str, Any]]]) -> str:
    """Returns a picture of cost beside memory."""
    found = points(records)
    slope, start = fitted(found)
    x = [point["value"] for point in found]
    cost = {"all": [p["micros"] for p in found], "tables": [p["of_tables"] for p in found]}
    if what != "vocabulary":
        cost["straight line"] = [start + slope * value for value in x]
    memory = {"peak": [p["peak"] for p in found], "tables": [p["tables"] for p in found]}
    left = panel(what, x, cost, "CPU µs per row")
    right = panel(what, x, memory, "GB")
    return (
        '<svg viewBox="0 0 680 260" width="680" height="260" xmlns="http://www.w3.org/2000/svg">\n'
        f'{STYLE}\n<rect class="paper" width="680" height="260"/>\n{left}\n'
        + right.replace("<svg ", '<svg x="340" ', 1)
        + "\n</svg>\n"
    )


def panel(what: str, x: list[float], series: dict[str, list[float]], unit: str) -> str:
    """Returns one chart; vocabularies on a log scale."""
    from tzrec.training.report.svg import Frame, Line

    places = [float(np.log10(value)) for value in x] if what == "vocabulary" else x
    top = 1.15 * max(max(values) for values in series.values())
    low = min(places) if what == "vocabulary" else 0.0
    margin = 0.04 * (max(places) - low)
    begin = low - margin if what == "vocabulary" else 0.0
    frame = Frame((begin, max(places) + margin), (0.0, top), labels=(NAMES[what], unit))
    for index, (name, values) in enumerate(series.items()):
        is_fit = name == "straight line"
        style = "thin" if is_fit else "line"
        frame.line(Line(name, places, values, index, style=style, dots=not is_fit))
        frame.add(f'<text class="key c{index}" x="68" y="{26 + 14 * index}">{name}</text>')
    ticks = None
    if what == "vocabulary":
        ticks = [(at, f"{v / 1e6:g} M") for at, v in zip(places, x, strict=True)]
    picture = frame.svg(f"{unit} against {NAMES[what]}", x_ticks=ticks)
    # CSS of a page beats attributes, so the colour of names is a style.
    for index, colour in enumerate(("#0072b2", "#d55e00", "#777")):
        picture = picture.replace(f'class="key c{index}"', f'style="fill: {colour}"')
    return picture.replace("<svg ", '<svg width="340" height="260" ', 1)


if __name__ == "__main__":
    sys.exit(main())
