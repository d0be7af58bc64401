"""Where the time of a training step goes, beside the least that this machine could take.

Models of the Criteo- and Taobao-shaped sets, batches of 4096 (DSSM with in-batch negatives:
1024), everything a run does but hooks. CPU milliseconds of this process per step, medians:

* ``input``: reading, decoding and parsing a batch, measured apart;
* ``lookup``: rows of tables into the output; ``rows' sums``: the way back; ``tables``: their
  update;
* ``products``: matrix products, forward and backward; ``other ops``: all other operators of the
  forward and backward pass; ``Python``: what autograd, dispatch and our code take (the rest);
* ``Adam``: update of the dense parameters; ``metrics``: of training.

``rows/s`` is of wall time, without the input, which the loader's thread prepares meanwhile.

The split of forward and backward into operators is torch's profiler's; shares are applied to the
time without it.

The floor: products at the measured rate of a matrix product of 4096 x 512 x 512 in that
precision, and bytes at the measured bandwidth of a copy in memory. Bytes: table rows of the batch
(each distinct row: read for the lookup, read and written for the update, states too; 64-byte
lines), dense parameters (weight, gradient, two states: read, three of them written).

    python benchmarks/step_budget.py
    python benchmarks/step_budget.py --models deepfm,mmoe --threads 1 --precisions FP32 --ops
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tzrec.options import prepare_process

CRITEO, TAOBAO = ("deepfm", "dlrm", "dcn_v2"), ("multi_tower", "mmoe", "multi_tower_din", "dssm")
PARTS = ("input", "lookup", "rows' sums", "tables", "products", "other ops", "Python", "Adam",
         "metrics")  # fmt: skip
PRODUCTS = ("mm", "bmm", "addmm", "baddbmm", "mkldnn_linear", "linear", "addmv", "mv", "_addmm")


def main() -> int:
    """Runs one process per model, precision and number of threads, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join((*CRITEO, *TAOBAO)))
    parser.add_argument("--precisions", default="FP32,BF16")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--batch-size", type=int, default=0, help="0 = that of the set")
    parser.add_argument("--dir", type=Path, default=Path("experiments/step_budget"))
    parser.add_argument("--ops", action="store_true", help="show the operators that take longest")
    parser.add_argument("--set", action="append", default=[], dest="edits", metavar="A.B=V")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args)))
        return 0
    results = []
    for model in args.models.split(","):
        for precision in args.precisions.split(","):
            for threads in args.threads.split(","):
                results.append(run_one(model, precision, threads))
                print(line(results[-1]), file=sys.stderr, flush=True)
    print(table(results))
    print(json.dumps(results))
    return 0


def run_one(model: str, precision: str, threads: str) -> dict[str, Any]:
    """Returns what a fresh process measured."""
    prepare_process()  # the child finds the environment of a command
    command = ["env", f"OMP_NUM_THREADS={threads}", *sys.orig_argv]
    command += ["--one", "--models", model, "--precisions", precision, "--threads", threads]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    *shown, last = output.strip().splitlines()
    for text in shown:
        print(text)
    result: dict[str, Any] = json.loads(last)
    return result


def config_file(args: argparse.Namespace, model: str) -> Path:
    """Writes data where it is missing, and the config."""
    import criteo_shaped
    import taobao_shaped

    args.dir.mkdir(parents=True, exist_ok=True)
    path = args.dir / f"{model}.config"
    if model in CRITEO:
        data = args.dir / f"criteo-{args.rows}.parquet"
        if not data.exists():
            criteo_shaped.write_data(data, args.rows)
        text = criteo_shaped.config_text(data, args.dir / "model", "adagrad", model=model)
    else:
        data = args.dir / f"taobao-{args.rows}.parquet"
        if not data.exists():
            taobao_shaped.write_data(data, args.rows)
        text = taobao_shaped.config_text(
            data, args.dir / "model", model=model, batch_size=args.batch_size
        )
    path.write_text(text)
    return path


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Trains in this process; returns the figures."""
    edits = [f"train_config.mixed_precision={args.precisions}", *args.edits]
    path = config_file(args, args.models)
    with training(path, edits, threads=int(args.threads), steps=args.steps) as (trainer, loader):
        with loader:
            cost, batches = read(loader, args.steps)
        return Budget(args, trainer, batches).figures(cost)


@contextlib.contextmanager
def training(
    path: Path, edits: list[str], *, threads: int, steps: int
) -> Iterator[tuple[Any, Any]]:
    """Yields the trainer of a config, without hooks, and its loader, which is not started.

    Args:
        path: of the config.
        edits: of it, ``PATH=VALUE``.
        threads: of torch.
        steps: that the trainer is made for.
    """
    import torch

    from tzrec.config.pipeline import prepare
    from tzrec.constant import Mode
    from tzrec.optim.optimizer import build_optimizer
    from tzrec.options import from_environment
    from tzrec.training import build
    from tzrec.training.distributed.process_group import process_group
    from tzrec.training.distributed.wrap import distribute
    from tzrec.training.trainer import Trainer
    from tzrec.utils.memory import keep_freed_memory

    keep_freed_memory(without_bound=True)  # as training does
    torch.set_num_threads(threads)
    config = prepare(str(path), edits=edits).config
    options = from_environment()
    with process_group(options) as device:
        build.seed_everything(1)
        features = build.build_features(config.data_config, config.feature_configs)
        loader = build.build_loader(
            config, features, config.train_input_path, mode=Mode.TRAIN, options=options
        )
        model = distribute(
            build.build_train_wrapper(config, features, device),
            train_config=config.train_config,
            device=device,
        )
        optimizer = build_optimizer(model, config.train_config)
        yield Trainer(model, optimizer, loader=loader, hooks=[], num_steps=steps), loader


def read(loader: Any, steps: int) -> tuple[float, list[Any]]:
    """Returns CPU seconds per batch, and batches."""
    list(loader)  # kernels compile, files come into the cache
    started, batches = time.process_time(), list(loader)
    return (time.process_time() - started) / len(batches), batches[: max(steps, 8)]


@dataclasses.dataclass
class Budget:
    """Measures the steps of a trainer.

    Attributes:
        args: of the command line.
        trainer: about to start.
        batches: read already, taken round and round.
    """

    args: argparse.Namespace
    trainer: Any
    batches: list[Any]

    def figures(self, input_seconds: float) -> dict[str, Any]:
        """Returns milliseconds by part, and those of the floor."""
        clocks, walls = self._timed()
        whole = {name: statistics.median(values) for name, values in clocks.items()}
        step = whole.pop("step")
        model = step - sum(whole.values())
        shares = self._shares()
        parts = {"input": 1e3 * input_seconds}
        parts |= {name: 1e3 * whole.get(name, 0.0) for name in ("lookup", "rows' sums", "tables")}
        parts |= {name: 1e3 * model * share for name, share in shares.items()}
        parts |= {name: 1e3 * whole.get(name, 0.0) for name in ("Adam", "metrics")}
        flops = self._flops()
        gemm, copy = gemm_rate(self.args.precisions), copy_rate()
        rows, dense = self._bytes()
        threads = int(self.args.threads)
        floor = {
            "products": 1e3 * flops / gemm,
            "rows": 1e3 * rows / copy,
            "Adam": 1e3 * dense / copy,
        }
        num_rows = statistics.mean(batch_rows(batch) for batch in self.batches)
        return {
            "model": self.args.models,
            "precision": self.args.precisions,
            "threads": threads,
            "batch": round(num_rows),
            "cpu_ms": 1e3 * step + parts["input"],
            "wall_ms": 1e3 * statistics.median(walls),
            "parts": parts,
            "floor": floor,
            "gflop": flops / 1e9,
            "gflop_per_s": gemm / 1e9,
            "gb_per_s": copy / 1e9,
            "table_mb": rows / 1e6,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }

    def _step(self, number: int) -> None:
        self.trainer._run_step(self.batches[number % len(self.batches)])

    def _timed(self) -> tuple[dict[str, list[float]], list[float]]:
        """Returns CPU seconds of each step by part, ``step`` being the whole; and wall seconds."""
        self.trainer.model.train()
        clocks: dict[str, list[float]] = {"step": []}
        walls = []
        with self._clocked(clocks):
            for number in range(6):
                self._step(number)
            for number in range(self.args.steps):
                for values in clocks.values():
                    values.append(0.0)
                started, wall = time.process_time(), time.perf_counter()
                self._step(number)
                clocks["step"][-1] = time.process_time() - started
                walls.append(time.perf_counter() - wall)
        steps = self.args.steps
        return {name: values[-steps:] for name, values in clocks.items()}, walls

    @contextlib.contextmanager
    def _clocked(self, clocks: dict[str, list[float]]) -> Iterator[None]:
        """Puts clocks around what is no operator of the model."""
        from tzrec.ops.cpu.group import TableGroup

        optimizer, base = self.trainer.optimizer, self.trainer.base_model
        places: list[tuple[str, Any, str]] = [
            ("lookup", TableGroup, "pool"),
            ("lookup", TableGroup, "gather"),
            ("rows' sums", TableGroup, "add"),
            ("tables", optimizer._tables, "apply"),
            ("metrics", base, "update_train_metric"),
        ]
        places += [("Adam", inner, "step") for inner in optimizer._inner()]
        before = []
        for part, owner, name in places:
            clocks.setdefault(part, [0.0])
            own = name in vars(owner)
            before.append((owner, name, vars(owner)[name] if own else None, own))
            setattr(owner, name, clocked(getattr(owner, name), clocks[part]))
        try:
            yield
        finally:
            for owner, name, function, own in before:
                setattr(owner, name, function) if own else delattr(owner, name)

    def _shares(self) -> dict[str, float]:
        """Returns the shares of products, other operators and Python in forward and backward."""
        import torch
        from torch.profiler import ProfilerActivity, profile

        model, optimizer, steps = self.trainer.model, self.trainer.optimizer, 6
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            for number in range(steps):
                with torch.profiler.record_function("whole pass"):
                    optimizer.zero_grad()
                    total, _ = model(self.batches[number % len(self.batches)])
                    optimizer.backward(total)
                optimizer.drop()
        events = {event.key: event for event in recorded.key_averages()}
        whole = events.pop("whole pass").cpu_time_total
        own = {
            name.removeprefix("aten::"): event.self_cpu_time_total
            for name, event in events.items()
            if name.startswith(("aten::", "fbgemm::", "mkldnn"))
        }
        lookups = sum(
            event.self_cpu_time_total
            for name, event in events.items()
            if "_PooledLookup" in name or "_RowLookup" in name
        )
        whole = max(whole - lookups, 1.0)
        if self.args.ops:
            for name, value in sorted(own.items(), key=lambda item: -item[1])[:16]:
                count = next(e.count for k, e in events.items() if k.removeprefix("aten::") == name)
                print(f"  {name:44}{value / 1e3 / steps:9.2f} ms {count / steps:6.0f} calls")
        products = sum(value for name, value in own.items() if name in PRODUCTS)
        others = sum(own.values()) - products
        return {
            "products": products / whole,
            "other ops": others / whole,
            "Python": max(1 - (products + others) / whole, 0.0),
        }

    def _flops(self) -> float:
        """Returns the operations of the matrix products of a step."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            total, _ = self.trainer.model(self.batches[0])
            self.trainer.optimizer.backward(total)
        self.trainer.optimizer.drop()
        return float(counter.get_total_flops())

    def _bytes(self) -> tuple[float, float]:
        """Returns the bytes that tables and dense parameters must move in a step."""
        rows = 0.0
        for batch in self.batches[:4]:
            total, _ = self.trainer.model(batch)
            self.trainer.optimizer.backward(total)
            for group in self.trainer.optimizer._tables._groups:
                for table in group.trained.values():
                    count = len(table.pending()[0])
                    width = -(-table.dim * 4 // 64) * 64
                    # Lookup: read. Update: weight and accumulator, read and written.
                    rows += count * width * (1 + 4)
            self.trainer.optimizer.drop()
        dense = sum(p.numel() for o in self.trainer.optimizer._dense for p in o.params.values())
        return rows / min(4, len(self.batches)), float(dense * 4 * (4 + 3))


def clocked(function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """Returns the function with a clock that adds to the last of ``seconds``."""

    def call(*args: Any, **kwargs: Any) -> Any:
        started = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[-1] += time.process_time() - started

    return call


def batch_rows(batch: Any) -> int:
    """Returns the rows of a batch."""
    return int(next(iter(batch.labels.values())).shape[0])


def gemm_rate(precision: str) -> float:
    """Returns operations per CPU second of a matrix product of 4096 x 512 x 512."""
    import torch

    kind = torch.bfloat16 if precision == "BF16" else torch.float32
    a, b = torch.randn(4096, 512).to(kind), torch.randn(512, 512).to(kind)
    return 2 * 4096 * 512 * 512 / best(lambda: torch.mm(a, b.t()))


def copy_rate() -> float:
    """Returns bytes per CPU second, read and written, of a copy in memory."""
    import torch

    source = torch.ones(32 << 20)
    target = torch.empty_like(source)
    return 2 * source.nbytes / best(lambda: target.copy_(source), 6)


def best(call: Callable[[], Any], times: int = 30) -> float:
    """Returns the fewest CPU seconds of a call."""
    seconds = []
    for _ in range(times):
        started = time.process_time()
        call()
        seconds.append(time.process_time() - started)
    return min(seconds[1:])


def line(result: dict[str, Any]) -> str:
    """Returns a row of the table."""
    parts = " | ".join(f"{result['parts'][part]:.1f}" for part in PARTS)
    floor = sum(result["floor"].values())
    micros = 1e3 * result["cpu_ms"] / result["batch"]
    return (
        f"| {result['model']} | {result['precision']} | {result['threads']} | {parts} "
        f"| {result['cpu_ms']:.1f} | {micros:.1f} | {floor:.1f} | {result['cpu_ms'] / floor:.2f} "
        f"| {1e3 * result['batch'] / result['wall_ms']:,.0f} |"
    )


def table(results: list[dict[str, Any]]) -> str:
    """Returns the table as Markdown."""
    figures = ("step", "µs per row", "floor", "step / floor", "rows/s")
    names = ["model", "", "threads", *PARTS, *figures]
    head = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    rates = {(r["precision"], r["threads"]): r for r in results}
    notes = [
        f"{precision}, {threads} threads: {r['gflop_per_s']:.0f} GFLOP and {r['gb_per_s']:.1f} GB "
        "per CPU second"
        for (precision, threads), r in rates.items()
    ]
    return "\n".join([*head, *map(line, results), "", *notes])


if __name__ == "__main__":
    sys.exit(main())
