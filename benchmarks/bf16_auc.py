"""Does BF16 cost AUC? Pairs of runs, FP32 and BF16, with the same seeds.

Criteo-shaped: DeepFM (or DLRM, DCN-V2), one pass, AUC of rows that were not trained on. Frappe
(DeepFM) and census (MMoE): the protocols of `benchmarks/accuracy`, best AUC of the valid part;
finished runs of that benchmark are taken where they are found.

    python benchmarks/bf16_auc.py --seeds 3 [--sets criteo,frappe,census]

Prints a table, and on the last line all values as JSON.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PRECISIONS = ("FP32", "BF16")
# Set → module in `accuracy`, model, precision of its protocol.
PROTOCOLS = {
    "frappe": ("frappe", "deepfm", "BF16"),
    "census": ("census_income", "mmoe", "FP32"),
}
LARGEST = 5e-4


def main() -> int:
    """Runs what is missing and prints the table; exits with 1 where AUC differs by too much."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", default="criteo,frappe,census")
    parser.add_argument("--models", default="deepfm", help="of the Criteo-shaped set")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the Criteo-shaped set")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dir", type=Path, default=HERE.parent / "experiments" / "bf16_auc")
    parser.add_argument("--runs", type=Path, default=HERE.parent / "experiments" / "accuracy")
    args = parser.parse_args()
    args.dir.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, list[float]]] = {}
    for name in args.sets.split(","):
        for model in args.models.split(",") if name == "criteo" else [""]:
            for seed in range(1, args.seeds + 1):
                for precision in PRECISIONS:
                    values = (
                        criteo(args, model, precision, seed)
                        if name == "criteo"
                        else protocol(args, name, precision, seed)
                    )
                    for metric, value in values.items():
                        by_precision = found.setdefault(f"{name} {model}{metric}", {})
                        by_precision.setdefault(precision, []).append(value)
                        print(f"{name} {metric} {precision} seed {seed}: {value:.5f}", flush=True)
    return report(found)


def criteo(args: argparse.Namespace, model: str, precision: str, seed: int) -> dict[str, float]:
    """Returns the AUC of a DeepFM on a tenth of the rows, trained on the others."""
    from criteo_shaped import config_text, write_data

    result = args.dir / f"criteo-{args.rows}-{model}-{precision}-{seed}.json"
    if result.exists():
        found: dict[str, float] = json.loads(result.read_text())
        return found
    data, held_out = args.dir / f"train-{args.rows}.parquet", args.dir / f"test-{args.rows}.parquet"
    if not held_out.exists():
        write_and_cut(write_data, args.rows, data, held_out)
    config, model_dir = args.dir / "criteo.config", args.dir / "model"
    text = config_text(data, model_dir, "adagrad", model=model)
    fine = "metrics { auc { thresholds: 10000 } }"
    config.write_text(text.replace("metrics { auc {} }", fine))
    edits = [
        f"train_config.mixed_precision={precision}",
        f"train_config.seed={seed}",
        f"eval_input_path={held_out}",
        "data_config.shuffle=true",
    ]
    subprocess.run(["rm", "-rf", str(model_dir)], check=True)
    command = ["env", f"OMP_NUM_THREADS={args.threads}", sys.executable, "-m", "tzrec.cli"]
    command += ["train", str(config), *(text for edit in edits for text in ("--set", edit))]
    with (args.dir / "log.txt").open("ab") as log:
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)
    lines = (model_dir / "train_eval_result_v2.txt").read_text().splitlines()
    values = {"auc": json.loads(lines[-1])["auc"]}
    result.write_text(json.dumps(values))
    return values


def write_and_cut(write_data: Any, rows: int, train: Path, test: Path) -> None:
    """Writes the set and cuts its last tenth off."""
    import pyarrow.parquet as pq

    whole = train.with_suffix(".whole")
    write_data(whole, rows + rows // 10)
    table = pq.read_table(whole)
    pq.write_table(table.slice(0, rows), train)
    pq.write_table(table.slice(rows), test)
    whole.unlink()


def protocol(args: argparse.Namespace, name: str, precision: str, seed: int) -> dict[str, float]:
    """Returns the best metrics of the valid part."""
    sys.path.insert(0, str(HERE / "accuracy"))
    module, model, of_protocol = PROTOCOLS[name]
    dataset, runs = importlib.import_module(module).DATASET, importlib.import_module("runs")
    data = args.runs.resolve() / dataset.folder / "data"
    place = runs.Place(data, args.runs.resolve(), args.threads)
    edits = [] if precision == of_protocol else [f"train_config.mixed_precision={precision}"]
    values: dict[str, float] = runs.run(dataset, model, seed, place, edits=edits)["valid"]
    return values


def report(found: dict[str, dict[str, list[float]]]) -> int:
    """Prints means, differences and their standard errors; returns the exit code."""
    print("\n| set | FP32 | BF16 | difference | ± (standard error of pairs) |")
    print("|---|---|---|---|---|")
    worst = 0.0
    for name, values in found.items():
        pairs = [b - a for a, b in zip(values["FP32"], values["BF16"], strict=True)]
        mean = statistics.mean(pairs)
        error = statistics.stdev(pairs) / math.sqrt(len(pairs)) if len(pairs) > 1 else math.nan
        means = " | ".join(f"{statistics.mean(values[p]):.5f}" for p in PRECISIONS)
        print(f"| {name} | {means} | {mean:+.5f} | {error:.5f} |")
        worst = max(worst, abs(mean))
    print(f"\nlargest difference {worst:.5f}, allowed {LARGEST}")
    print(json.dumps(found))
    return int(worst >= LARGEST)


if __name__ == "__main__":
    sys.exit(main())
