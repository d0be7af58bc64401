"""What a training run takes from its command to the end of its first step, and `tzrec --help`.

Runs `tzrec train` on the Criteo-shaped set (`criteo_shaped.py`) in fresh processes with a clock
at each mile: imports, config, features, loader, model, first batch, first step. CPU seconds are
those of the process and all its threads; on a busy machine they are what counts.

    python benchmarks/startup.py [--rows 500000] [--repeat 3]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

# In the order in which a run passes them.
MILES = ("imports", "config", "process group", "features, loaders", "model, optimizer",
         "first batch", "first step")  # fmt: skip

# Runs in the process that is measured: puts a clock behind some functions, and leaves after the
# first step with what they said.
CHILD = """
import json, os, sys, time
said = {}
def mile(name):
    said[name] = [time.process_time(), time.time()]
def behind(owner, name, label):
    function = getattr(owner, name)
    def call(*args, **kwargs):
        result = function(*args, **kwargs)
        mile(label)
        return result
    setattr(owner, name, call)
from tzrec.cli import main
from tzrec.cli import train as command
def instrument():
    with command.importing():
        import tzrec.main as composition
    from tzrec.training import job, trainer
    mile("imports")
    behind(composition, "prepare", "config")
    enter = composition.TrainingJob.__init__
    def starts(*args, **kwargs):
        mile("process group")
        enter(*args, **kwargs)
    composition.TrainingJob.__init__ = starts
    distribute = job.TrainingJob._trainer
    def build(*args):
        mile("features, loaders")
        result = distribute(*args)
        mile("model, optimizer")
        return result
    job.TrainingJob._trainer = build
    behind(trainer.Trainer, "_next", "first batch")
    step = trainer.Trainer._run_step
    def first(*args):
        step(*args)
        mile("first step")
        print(json.dumps(said))
        sys.stdout.flush()
        os._exit(0)
    trainer.Trainer._run_step = first
check = command.check_early
def checked(*args, **kwargs):
    check(*args, **kwargs)
    instrument()
command.check_early = checked
sys.exit(main(sys.argv[1:]))
"""


def main() -> int:
    """Makes the data where it is missing, measures, prints a table and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=500_000, help="of the Criteo-shaped set")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--dir", type=Path, default=Path("experiments/criteo_shaped"))
    args = parser.parse_args()
    config = prepare(args.dir, args.rows)
    runs = [first_step(config, args.threads) for _ in range(args.repeat)]
    helps = [help_seconds() for _ in range(args.repeat)]
    report(args, runs, helps)
    return 0


def prepare(root: Path, rows: int) -> Path:
    """Writes data and config."""
    from criteo_shaped import config_text, write_data

    data = root / f"train-{rows}.parquet"
    if not data.exists():
        write_data(data, rows)
    path = root / "startup.config"
    path.write_text(config_text(data, root / "startup-model", "adagrad"))
    return path


def first_step(config: Path, threads: int) -> dict[str, tuple[float, float]]:
    """Returns mile → CPU and wall seconds since the one before."""
    with tempfile.TemporaryDirectory() as model_dir:
        command = ["env", f"OMP_NUM_THREADS={threads}", "LOG_LEVEL=ERROR", sys.executable, "-c"]
        command += [CHILD, "train", str(config), "--model_dir", model_dir, "--no-report"]
        began = time.time()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout.splitlines()[-1])
    parts, before = {}, (0.0, began)
    for name in MILES:
        cpu, wall = said[name]
        parts[name] = (cpu - before[0], wall - before[1])
        before = (cpu, wall)
    return parts


def help_seconds() -> tuple[float, float]:
    """Returns CPU and wall seconds of `tzrec --help`."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "tzrec.cli", "--help"], check=True, stdout=subprocess.DEVNULL
    )
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, wall


def report(
    args: argparse.Namespace,
    runs: list[dict[str, tuple[float, float]]],
    helps: list[tuple[float, float]],
) -> None:
    """Prints medians, and on the last line all of them as JSON."""
    facts = {}
    print("| part | CPU s | wall s |\n|---|---|---|")
    for name in MILES:
        facts[name] = [float(np.median([run[name][i] for run in runs])) for i in (0, 1)]
        print(f"| {name} | {facts[name][0]:.2f} | {facts[name][1]:.2f} |")
    totals = [[sum(part[i] for part in run.values()) for i in (0, 1)] for run in runs]
    facts["all"] = [float(np.median([total[i] for total in totals])) for i in (0, 1)]
    facts["--help"] = [float(np.median([value[i] for value in helps])) for i in (0, 1)]
    print(f"| command to first step | {facts['all'][0]:.2f} | {facts['all'][1]:.2f} |")
    print(f"| `tzrec --help` | {facts['--help'][0]:.2f} | {facts['--help'][1]:.2f} |")
    rounded = {name: [round(value, 3) for value in pair] for name, pair in facts.items()}
    print(json.dumps({"threads": args.threads, **rounded}))


if __name__ == "__main__":
    sys.exit(main())
