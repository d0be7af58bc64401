"""tzrec beside TorchRec and research frameworks: cost of a row, speed, memory, AUC of one pass.

Each system runs in a process and an environment of its own, one after the other, on the same
Parquet files, by its documented interface. Same vectors, networks, batch size, optimizer (Adam,
where tables can have it) and rate. What counts is reading and training, not importing, building
and testing.

    python benchmarks/peers/venvs.py                 makes the environments (about 4 GB)
    python benchmarks/peers/compare.py               all cases
    python benchmarks/peers/compare.py --quick       one small case
    python benchmarks/peers/compare.py --only din --systems tzrec FuxiCTR
    python benchmarks/peers/compare.py --threads 2   the cases with two threads
    python benchmarks/peers/compare.py --show        prints what was measured before
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import shapes
import venvs

HERE = Path(__file__).parent
BATCH_SIZE = 4096
TIME_LIMIT = 3600
CRITEO = ("deepfm", "dcn_v2", "dlrm")
MODELS = (*CRITEO, "mmoe", "din")


@dataclass(frozen=True)
class System:
    """One row of the tables.

    Attributes:
        runner: file of this folder.
        environment: a key of `venvs.PEERS`; empty for ours.
        setting: what the runner is told besides.
        models: those it has.
        threads: it is measured with.
    """

    runner: str
    environment: str = ""
    setting: str = ""
    models: tuple[str, ...] = MODELS
    threads: tuple[int, ...] = (1,)

    def takes(self, case: Case) -> bool:
        """Returns whether it is measured in a case."""
        return case.model in self.models and case.threads in self.threads


@dataclass(frozen=True)
class Case:
    """A model on a set, and the OMP_NUM_THREADS of all systems."""

    model: str
    vocabulary: int
    rows: int
    threads: int = 1

    @property
    def shape(self) -> shapes.Shape:
        make = shapes.criteo if self.model in CRITEO else shapes.taobao
        return make(self.vocabulary)


BASE = "tzrec"
NO_DLRM = tuple(model for model in MODELS if model != "dlrm")
SYSTEMS = {
    BASE: System("run_tzrec.py", setting="adam-FP32", threads=(1, 2)),
    "tzrec, BF16": System("run_tzrec.py", setting="adam-BF16", threads=(1, 2)),
    "tzrec, Adagrad": System("run_tzrec.py", setting="adagrad-FP32", threads=(1, 2)),
    "tzrec, BF16, Adagrad": System("run_tzrec.py", setting="adagrad-BF16", threads=(1, 2)),
    "TorchRec, Adagrad": System("run_torchrec.py", setting="adagrad-FP32", threads=(1, 2)),
    "TorchRec, BF16, Adagrad": System("run_torchrec.py", setting="adagrad-BF16", threads=(1, 2)),
    "TorchRec, row-wise": System("run_torchrec.py", setting="rowwise-FP32", threads=(1, 2)),
    "TorchRec, BF16, row-wise": System("run_torchrec.py", setting="rowwise-BF16", threads=(1, 2)),
    "DeepCTR-Torch": System("run_deepctr.py", "deepctr-torch", models=NO_DLRM),
    "torch-rechub": System("run_rechub.py", "torch-rechub", models=NO_DLRM),
    "FuxiCTR": System("run_fuxictr.py", "fuxictr"),
}
CASES = (
    *(Case(model, 4_700_000, 100_000) for model in CRITEO),
    *(Case(model, 4_700_000, 50_000) for model in ("mmoe", "din")),
    *(Case(model, 4_700_000, 100_000, threads=2) for model in CRITEO),
    Case("mmoe", 4_700_000, 50_000, threads=2),
    Case("dcn_v2", 1_300_000, 100_000),
    Case("mmoe", 1_300_000, 100_000),
    Case("din", 1_300_000, 50_000),
    Case("deepfm", 1_300_000, 100_000),
    Case("deepfm", 400_000, 100_000),
    # Rows enough to learn from: the one for AUC.
    Case("deepfm", 400_000, 1_000_000),
)
QUICK = (Case("deepfm", 1_300_000, 40_000),)


def main() -> int:
    """Runs what has not been run, prints the table; 1 if a system failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one small case")
    parser.add_argument("--only", default="", help="cases of one model")
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("--threads", type=int, default=0, help="cases of that many threads")
    parser.add_argument("--repeat", type=int, default=1, help="runs, of which the cheapest counts")
    parser.add_argument("--dir", type=Path, default=Path("experiments/peers"))
    parser.add_argument("--again", action="store_true", help="forget what was measured before")
    parser.add_argument("--show", action="store_true", help="run nothing")
    args = parser.parse_args()
    cases = [c for c in (QUICK if args.quick else CASES) if args.only in ("", c.model)]
    cases = [c for c in cases if args.threads in (0, c.threads)]
    results = {} if args.again else stored(args.dir)
    failed = 0
    for case in [] if args.show else cases:
        folder = shapes.make(args.dir / "data", case.shape, case.rows)
        for name in [n for n in args.systems if SYSTEMS[n].takes(case)]:
            key = key_of(case, name)
            if key in results:
                continue
            print(f"{name}: {case}", file=sys.stderr, flush=True)
            scratch = args.dir / "scratch"
            runs = [run(SYSTEMS[name], case, folder, scratch) for _ in range(args.repeat)]
            results[key] = cheapest(runs)
            failed += "error" in results[key]
            store(args.dir, results)
    print(table(results, cases))
    return int(failed > 0)


def key_of(case: Case, name: str) -> str:
    """Returns what a result is stored under."""
    return f"{case.model}/{case.vocabulary}/{case.rows}/{case.threads}/{name}"


def stored(directory: Path) -> dict[str, Any]:
    """Returns the results of earlier runs, without those that failed."""
    path = directory / "results.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    return {key: result for key, result in found.items() if "error" not in result}


def store(directory: Path, results: dict[str, Any]) -> None:
    """Writes the results."""
    unfinished = directory / "results.part"
    unfinished.write_text(json.dumps(results, indent=1))
    unfinished.rename(directory / "results.json")


def run(system: System, case: Case, folder: Path, scratch: Path) -> dict[str, Any]:
    """Runs a system in a process of its own.

    Returns:
        What `measure.finish` printed, or ``error``: the last line of a run that failed.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    command = [str(venvs.python(system.environment)), str(HERE / system.runner)]
    command += ["--data", str(folder), "--model", case.model, "--setting", system.setting]
    command += ["--batch-size", str(BATCH_SIZE), "--scratch", str(scratch)]
    done = subprocess.run(
        ["env", *environment(case.threads), *command],
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(done.stderr[-2000:], file=sys.stderr)
        return {"error": f"exit code {done.returncode}: {last}"}
    return json.loads(lines[-1])


def cheapest(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the run of the least CPU time, as neighbours only add to it, or the first failure."""
    failed = [found for found in runs if "error" in found]
    return failed[0] if failed else min(runs, key=cost_of)


def environment(threads: int) -> list[str]:
    """Returns what all systems find in their environment, as ``NAME=value``."""
    # Peers look for newer versions of themselves when they are imported: nothing answers.
    nowhere = "http://127.0.0.1:9"
    return [
        f"OMP_NUM_THREADS={threads}",
        # As commands of tzrec set it, for all systems: threads wait for 0.1 ms before they sleep.
        "OMP_WAIT_POLICY=PASSIVE",
        "GOMP_SPINCOUNT=10000",
        "PYTHONWARNINGS=ignore",
        f"https_proxy={nowhere}",
        f"http_proxy={nowhere}",
    ]


def table(results: dict[str, Any], cases: list[Case]) -> str:
    """Returns the Markdown table of the results of the cases."""
    lines = [
        "| model | rows in tables | rows | threads | system | CPU µs a row | × tzrec "
        "| rows per CPU s | rows/s | peak MiB | AUC |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        base = results.get(key_of(case, BASE), {})
        for name in SYSTEMS:
            found = results.get(key_of(case, name))
            if found is not None:
                size, rows = f"{case.vocabulary / 1e6:g} M", f"{case.rows / 1e6:g} M"
                cells = [case.model, size, rows, str(case.threads), name, *figures(found, base)]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def figures(found: dict[str, Any], base: dict[str, Any]) -> list[str]:
    """Returns cost, ratio to ``base``, speeds by CPU and by wall, peak and AUC of a result."""
    if "error" in found:
        return [f"failed: {found['error']}", "", "", "", "", ""]
    cost = cost_of(found)
    ratio = f"{cost / cost_of(base):.1f}" if base and "error" not in base else ""
    speeds = [f"{1e6 / cost:,.0f}", f"{found['rows'] / found['phases']['train']['wall']:,.0f}"]
    scores = ", ".join(f"{score:.4f}".lstrip("0") for score in found["auc"].values())
    return [f"{cost:.1f}", ratio, *speeds, f"{found['peak_mib']:,.0f}", scores]


def cost_of(found: dict[str, Any]) -> float:
    """Returns the CPU µs of a trained row."""
    return 1e6 * found["phases"]["train"]["cpu"] / found["rows"]


if __name__ == "__main__":
    sys.exit(main())
