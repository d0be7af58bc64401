"""What logging, metrics and summaries cost of a training step.

Trains the demo's config, or DeepFM on a set of Criteo's shape, in this process. What is watched:
train metrics, and the hooks (progress lines, TensorBoard, guards, checkpoints). Two figures:

* the time inside each of them, by a clock around their calls;
* the time of a step with all of them against one without any, in blocks of steps by turns, so
  that a drift of the machine hits both. Noisy: the first figure is the sharper one.

    python benchmarks/overhead.py --config demo
    python benchmarks/overhead.py --config criteo --rows 500000 --threads 2
    python benchmarks/overhead.py --summaries all
    python benchmarks/overhead.py --config criteo --delta 200
"""

from __future__ import annotations

import argparse
import collections
import functools
import json
import statistics
import sys
import time
from importlib import resources
from pathlib import Path
from typing import Any

BLOCK = 20
# Steps that compile kernels and fill caches.
WARM_UP = 40
ALL_SUMMARIES = [
    "loss", "learning_rate", "parameter", "global_gradient_norm", "gradient_norm", "gradient"
]  # fmt: skip


def main() -> int:
    """Makes the data where it is missing, trains, prints the figures and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", choices=["demo", "criteo"], default="demo")
    parser.add_argument("--rows", type=int, default=500_000, help="of the Criteo-shaped set")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--summaries", choices=["default", "all"], default="default")
    parser.add_argument(
        "--delta", type=int, default=0, help="steps between dumps of changed rows, 0 = no dumps"
    )
    parser.add_argument("--dir", type=Path, default=Path("experiments/overhead"))
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    config = demo_config(args.dir) if args.config == "demo" else criteo_config(args.dir, args.rows)
    add_train_metric(config)
    edits = [
        f"train_config.num_steps={args.steps}",
        "train_config.num_epochs=0",
        "train_config.save_checkpoints_epochs=0",
        "train_config.save_checkpoints_steps=0",
        "train_config.use_tensorboard=true",
        "train_config.log_step_count_steps=50",
    ]
    if args.delta:
        edits.append(f"train_config.delta_embedding_dump_config.dump_interval_steps={args.delta}")
    if args.summaries == "all":
        edits.append(f"train_config.tensorboard_summaries={json.dumps(ALL_SUMMARIES)}")
    watch = train_watched(config, edits, args.dir / "model" / f"{time.time():.0f}")
    report(args, watch)
    return 0


def demo_config(root: Path) -> Path:
    """Writes the demo's data and config."""
    from tzrec.demo.clicklog import Shop, write_click_log

    data = root / "demo"
    if not (data / "train.parquet").exists():
        data.mkdir(parents=True, exist_ok=True)
        write_click_log(data, Shop())
    text = resources.files("tzrec.demo").joinpath("demo.config").read_text()
    path = root / "demo.config"
    path.write_text(text.replace("experiments/demo/data", str(data)))
    return path


def criteo_config(root: Path, rows: int) -> Path:
    """Writes data of Criteo's shape and its config."""
    from criteo_shaped import config_text, write_data

    data = root / f"criteo-{rows}.parquet"
    if not data.exists():
        write_data(data, rows)
    path = root / "criteo.config"
    path.write_text(config_text(data, root / "model", "adagrad"))
    return path


def add_train_metric(config: Path) -> None:
    """Adds the AUC of training."""
    config.write_text(
        config.read_text().replace("  losses", "  train_metrics { auc {} }\n  losses")
    )


class Watch:
    """Clocks around the watched calls, and steps with and without them by turns.

    Attributes:
        seconds: part → seconds in it, in the steps with everything.
        on: seconds of each step with everything.
        off: seconds of each step without.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = collections.defaultdict(float)
        self.on: list[float] = []
        self.off: list[float] = []
        self._last = 0.0
        self._marks: list[Any] = []

    def attach(self, trainer: Any) -> None:
        """Puts clocks into a trainer that is about to start."""
        from tzrec.training.hooks.base import Hook

        watch, watched = self, list(trainer.hooks)
        tables = row_tables(trainer)

        class Clock(Hook):
            """Ends a step, and switches the watched parts on and off."""

            def after_step(self, trainer: Any, result: Any) -> None:
                watch.end_step(trainer.state.step)
                ends = trainer.state.step == trainer.num_steps
                off = (trainer.state.step // BLOCK) % 2 == 1 and not ends
                if trainer.state.step % BLOCK == 0:
                    watch.mark(tables, off=off)
                trainer.hooks = [self] if off else [*watched, self]
                trainer.base_model.__dict__["update_train_metric"] = nothing if off else update

        for hook in watched:
            for method in ("before_forward", "before_update", "after_step"):
                setattr(hook, method, self.timed(type(hook).__name__, getattr(hook, method)))
        update = self.timed("train metrics", trainer.base_model.update_train_metric)
        trainer.base_model.__dict__["update_train_metric"] = update
        trainer.hooks = [*watched, Clock()]

    def mark(self, tables: list[Any], *, off: bool) -> None:
        """Lets tables note the rows that they move, for dumps of changed rows, or not."""
        if off:
            self._marks = [table.moved for table in tables]
        for table, marks in zip(tables, self._marks, strict=False):
            table.moved = None if off else marks

    def timed(self, name: str, function: Any) -> Any:
        @functools.wraps(function)
        def call(*args: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args)
            finally:
                self.seconds[name] += time.perf_counter() - started

        return call

    def end_step(self, step: int) -> None:
        now = time.perf_counter()
        off = ((step - 1) // BLOCK) % 2 == 1
        if step <= WARM_UP:
            self.seconds.clear()
        else:
            (self.off if off else self.on).append(now - self._last)
        self._last = now


def row_tables(trainer: Any) -> list[Any]:
    """Returns the tables that are updated by our kernels."""
    from tzrec.ops.cpu.collections import CpuTables

    return [
        table
        for module in trainer.model.modules()
        if isinstance(module, CpuTables)
        for table in module.tables.trained.values()
    ]


def nothing(*_: Any) -> None:
    """Stands in for what is switched off."""


def train_watched(config: Path, edits: list[str], model_dir: Path) -> Watch:
    """Runs `tzrec train` in this process with a watch on its trainer."""
    import logging

    from tzrec.main import train_and_evaluate
    from tzrec.training.trainer import Trainer

    edits = [*edits, "eval_input_path="]
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    watch, fit = Watch(), Trainer.fit

    def watched_fit(trainer: Any) -> None:
        watch.attach(trainer)
        fit(trainer)

    Trainer.fit = watched_fit  # type: ignore[method-assign]
    try:
        train_and_evaluate(str(config), model_dir=str(model_dir), edits=edits)
    finally:
        Trainer.fit = fit  # type: ignore[method-assign]
    return watch


def report(args: argparse.Namespace, watch: Watch) -> None:
    """Prints the figures, and on the last line all of them as JSON."""
    step = sum(watch.on) / len(watch.on)
    shares = {name: seconds / sum(watch.on) for name, seconds in watch.seconds.items()}
    print(f"\na step takes {1e3 * step:.2f} ms; of it, by the clock:")
    for name, share in sorted(shares.items(), key=lambda item: -item[1]):
        print(f"  {name:16} {1e6 * share * step:8.1f} µs {100 * share:6.2f} %")
    print(f"  {'all':16} {1e6 * sum(shares.values()) * step:8.1f} µs "
          f"{100 * sum(shares.values()):6.2f} %")  # fmt: skip
    medians = statistics.median(watch.on), statistics.median(watch.off)
    print(f"median step with {1e3 * medians[0]:.3f} ms, without {1e3 * medians[1]:.3f} ms: "
          f"{100 * (medians[0] / medians[1] - 1):+.2f} %")  # fmt: skip
    facts = {
        "config": args.config,
        "summaries": args.summaries,
        "delta": args.delta,
        "step_ms": round(1e3 * step, 3),
        "percent_by_clock": round(100 * sum(shares.values()), 3),
        "median_ms": [round(1e3 * value, 3) for value in medians],
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    sys.exit(main())
