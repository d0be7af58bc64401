"""Candidates a second and latency: the bare model, `Predictor`, and `tzrec serve`.

    python benchmarks/serving.py
    python benchmarks/serving.py --fg FG_DAG --input-tile 3 --quantize INT8 --workers 2

One user and 200 candidates a request; DeepFM with feature generation (`serving_model`). All of it
runs on the same number of threads, one torch thread each:

    model       the exported model on parsed batches
    rows        `Predictor.predict` on Python lists, on Arrow
    request     `Predictor.predict_request` on Python lists, on Arrow
    saturation  `tzrec serve` under wrk, as many requests as it answers
    half        the same at half of that rate, arriving at random: the latency to look at

Beside wall time stands CPU time, which other work on the machine changes less.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import serving_model
from serving_load import Bodies, Load, cpu_seconds, run_load, write_bodies

REQUESTS = 64
ARROW = "application/vnd.apache.arrow.stream"


def main() -> int:
    """Builds the artefact where it is missing, measures, prints, and JSON on the last line."""
    args = parse_arguments()
    args.dir.mkdir(parents=True, exist_ok=True)
    export = stage("build")
    facts: dict[str, Any] = {
        "fg": args.fg,
        "candidates": args.candidates,
        "workers": args.workers,
        "threads": args.threads,
        "inside": json.loads(stage("inside")),
    }
    show_inside(facts["inside"], args)
    if not args.no_http:
        facts["http"] = serve_and_load(Path(export), args)
        show_http(facts, args)
    print(json.dumps(facts))
    return 0


def stage(name: str) -> str:
    """Runs a part of the benchmark in a process of one OpenMP thread; returns its last line."""
    command = ["env", "OMP_NUM_THREADS=1", sys.executable, __file__, *sys.argv[1:]]
    done = subprocess.run(
        [*command, "--stage", name], check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout.splitlines()[-1]


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", type=Path, default=Path("experiments/serving"))
    parser.add_argument("--fg", default="FG_NORMAL", choices=serving_model.FG_MODES)
    parser.add_argument("--candidates", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=10, help="of each measurement")
    parser.add_argument("--workers", type=int, default=1, help="processes of the server")
    parser.add_argument("--threads", type=int, default=2, help="model calls at a time, altogether")
    parser.add_argument("--connections", type=int, default=16, help="at saturation")
    parser.add_argument("--target", default="torchscript")
    parser.add_argument("--input-tile", type=int, default=0)
    parser.add_argument("--quantize", default="")
    parser.add_argument("--mixed-precision", default="", help="of the export: BF16, FP16")
    parser.add_argument("--body", default="rows", help="of rows (JSON), columns (JSON), arrow")
    parser.add_argument("--no-http", action="store_true")
    parser.add_argument("--serve", default="", help="more flags of tzrec serve, in one word")
    parser.add_argument("--stage", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        print(json.dumps(run_inside(args)) if args.stage == "inside" else export_of(args))
        raise SystemExit(0)
    return args


def export_of(args: argparse.Namespace) -> Path:
    """Returns the exported directory, made where it is missing."""
    from tzrec.deploy.options import ExportOptions

    options = ExportOptions(
        target=args.target,
        input_tile=args.input_tile,
        quantisation=args.quantize,
        mixed_precision=args.mixed_precision,
    )
    return serving_model.build(args.dir, args.fg, options=options)


def run_inside(args: argparse.Namespace) -> dict[str, list[float]]:
    """Returns measurement → wall and CPU time of a request, in milliseconds."""
    import torch

    from tzrec.deploy import Predictor

    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    predictor = Predictor.load(export_of(args))
    drawn = serving_model.Requests(args.dir, args.fg)
    pairs = [drawn.draw(args.candidates) for _ in range(REQUESTS)]
    rows = [drawn.repeated(*pair) for pair in pairs]
    types = predictor.column_types
    typed = [tuple(_arrow(part, types) for part in pair) for pair in pairs]
    typed_rows = [_arrow(one, types) for one in rows]
    parsed = [predictor.parse_request(*pair) for pair in pairs]
    calls: dict[str, tuple[Callable[[Any], object], Sequence[Any]]] = {
        "model": (predictor.forward, parsed),
        "rows": (predictor.predict, rows),
        "rows, Arrow": (predictor.predict, typed_rows),
        "request": (lambda pair: predictor.predict_request(*pair), pairs),
        "request, Arrow": (lambda pair: predictor.predict_request(*pair), typed),
    }
    return {
        name: measure(call, inputs, args.threads, args.seconds)
        for name, (call, inputs) in calls.items()
    }


def _arrow(columns: dict[str, list[Any]], types: dict[str, Any]) -> dict[str, Any]:
    return {name: pa.array(values, types[name]) for name, values in columns.items()}


def measure(
    call: Callable[[Any], object], inputs: Sequence[Any], threads: int, seconds: float
) -> list[float]:
    """Returns wall and CPU time of a call in milliseconds, with calls on some threads at once."""
    for one in inputs[:20]:
        call(one)
    counts = [0] * threads
    until = time.perf_counter() + seconds

    def work(number: int) -> None:
        while time.perf_counter() < until:
            call(inputs[(7 * number + counts[number]) % len(inputs)])
            counts[number] += 1

    workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    wall, cpu = time.perf_counter(), time.process_time()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    calls = sum(counts)
    return [1e3 * (time.perf_counter() - wall) / calls, 1e3 * (time.process_time() - cpu) / calls]


def serve_and_load(export: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Starts `tzrec serve`, loads it, and returns what it came to."""
    kinds = args.body.split(",")
    command = [sys.executable, "-m", "tzrec.cli", "serve", str(export), "--port", "0"]
    command += ["--workers", str(args.workers), "--threads", str(args.threads // args.workers)]
    with (args.dir / "serve.log").open("w") as log:
        server = subprocess.Popen(
            [*command, *args.serve.split()], stdout=log, stderr=log, start_new_session=True
        )
    try:
        url = wait_for(args.dir / "serve.log", server) + "/v1/predict"
        wait_until_idle(server.pid)
        return {kind: load(url, bodies_of(kind, args), server.pid, args) for kind in kinds}
    finally:
        server.terminate()
        server.wait(30)


def load(url: str, bodies: Bodies, server: int, args: argparse.Namespace) -> dict[str, Any]:
    """Loads a server with requests of one kind."""
    seconds = args.seconds
    run_load(url, bodies, server=server, seconds=3, connections=4)
    full = run_load(url, bodies, server=server, seconds=seconds, connections=args.connections)
    half = run_load(
        url, bodies, server=server, seconds=3 * seconds, connections=64, rate=full.rate / 2
    )
    return {"saturation": asdict(full), "half": asdict(half), "body_kib": round(bodies.kib, 1)}


def bodies_of(kind: str, args: argparse.Namespace) -> Bodies:
    """Writes requests as the server takes them: JSON of rows or columns, or Arrow."""
    drawn = serving_model.Requests(args.dir, args.fg)
    pairs = [drawn.draw(args.candidates) for _ in range(REQUESTS)]
    if kind == "arrow":
        tables = [pa.table(drawn.repeated(*pair)) for pair in pairs]
        return write_bodies(args.dir / "arrow", list(map(stream_of, tables)), ARROW)
    documents = [
        {
            "context": {name: values[0] for name, values in context.items()},
            "items": items if kind == "columns" else pa.table(items).to_pylist(),
        }
        for context, items in pairs
    ]
    written = [json.dumps(one).encode() for one in documents]
    return write_bodies(args.dir / kind, written, "application/json")


def stream_of(table: pa.Table) -> bytes:
    """Returns a table as Arrow IPC stream."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def wait_for(log: Path, server: subprocess.Popen[bytes], seconds: float = 120) -> str:
    """Returns the address of a server that is ready."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and server.poll() is None:
        text = log.read_text()
        if " for http://" in text:
            url = text.partition(" for http://")[2].split()[0]
            try:
                with urllib.request.urlopen(f"http://{url}/ready", timeout=5) as answer:
                    if answer.status == 200:
                        return f"http://{url}"
            except OSError:
                pass
        time.sleep(0.2)
    raise SystemExit(f"the server does not start:\n{log.read_text()}")


def wait_until_idle(server: int, seconds: float = 120) -> None:
    """Waits while workers other than the first are still loading."""
    until = time.monotonic() + seconds
    spent, before = 1.0, cpu_seconds(server)
    while spent > 0.1 and time.monotonic() < until:
        time.sleep(2)
        now = cpu_seconds(server)
        spent, before = now - before, now


def show_inside(found: dict[str, list[float]], args: argparse.Namespace) -> None:
    """Prints what was measured within one process."""
    print(f"\n{args.fg}, one user x {args.candidates} candidates, {args.threads} threads")
    print(f"{'':<16}{'candidates/s':>14}{'ms a request':>14}{'CPU ms':>9}{'CPU to model':>14}")
    for name, (wall, cpu) in found.items():
        print(
            f"{name:<16}{1e3 * args.candidates / wall:>14,.0f}{wall:>14.2f}{cpu:>9.2f}"
            f"{cpu / found['model'][1]:>14.2f}"
        )


def show_http(facts: dict[str, Any], args: argparse.Namespace) -> None:
    """Prints what the server did."""
    wall, cpu = facts["inside"]["model"]
    print(f"\nHTTP, {args.workers} workers {args.serve}")
    head = ("KiB", "requests/s", "candidates/s", "p50 ms", "p90", "p99", "max", "CPU ms", "errors")
    print(" " * 20 + "".join(f"{name:>13}" for name in (*head, "of model", "CPU to")))
    for kind, found in facts["http"].items():
        for name in ("saturation", "half"):
            load = Load(**found[name])
            cells = [
                str(found["body_kib"]),
                f"{load.rate:.1f}",
                f"{load.rate * args.candidates:,.0f}",
                *(f"{value:.2f}" for value in (load.p50, load.p90, load.p99, load.max)),
                f"{load.cpu_ms:.2f}",
                str(load.errors),
                f"{load.rate * wall / 1e3:.0%}",
                f"{load.cpu_ms / cpu:.2f}",
            ]
            print(f"{f'{kind}, {name}':<20}" + "".join(f"{cell:>13}" for cell in cells))


if __name__ == "__main__":
    sys.exit(main())
