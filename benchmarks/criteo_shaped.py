"""Training speed on a synthetic set of Criteo's shape.

13 numbers and 26 ids, Zipf distributed over tables of 100 to 1,000,000 rows (log-spaced), labels
from a planted model. DeepFM (or DLRM, DCN-V2) with vectors of 16, an MLP of 512-256-128, batches
of 4096, Adagrad on tables and Adam on the rest, one pass through `tzrec train`.

A run of one step is timed too; what it takes (imports, building, saving) is subtracted, so the
figures are those of a long run. CPU time is that of all processes that the command started.

With ``--raw`` the same rows hold words instead of ids, which feature generation (FG_DAG) hashes
into tables of the same size.

    python benchmarks/criteo_shaped.py --rows 1000000 --mixed_precision BF16 --threads 2
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

NUM_FLOATS, NUM_IDS = 13, 26
SMALLEST, LARGEST, EXPONENT = 100, 1_000_000, 1.05
CHUNK = 250_000

CONFIG = """\
train_input_path: "{data}"
eval_input_path: ""
model_dir: "{model_dir}"
train_config {{
  sparse_optimizer {{
    {optimizer} {{ lr: 0.02 }}
    constant_learning_rate {{}}
  }}
  dense_optimizer {{
    adam_optimizer {{ lr: 0.001 }}
    constant_learning_rate {{}}
  }}
  num_epochs: 1
  save_checkpoints_steps: 0
  log_step_count_steps: 50
  use_tensorboard: false
}}
data_config {{
  batch_size: 4096
  dataset_type: ParquetDataset
  fg_mode: {fg_mode}
  label_fields: "label"
  num_workers: 1
}}
{features}
model_config {{
{model}
  losses {{ binary_cross_entropy {{}} }}
  metrics {{ auc {{}} }}
}}
"""

_GROUP = '  feature_groups { group_name: "%s" group_type: %s feature_names: [%s] }\n'
_DEEP = "deep { hidden_units: [512, 256, 128] } final { hidden_units: [64] }"
# Model → its groups (name, type, features) and its layers, those of `examples/*_criteo.config`.
MODELS = {
    "deepfm": (
        [("wide", "WIDE", "ids"), ("fm", "DEEP", "ids"), ("deep", "DEEP", "all")],
        f"  deepfm {{ {_DEEP} }}",
    ),
    "dlrm": (
        [("dense", "DEEP", "floats"), ("sparse", "DEEP", "ids")],
        "  dlrm { dense_mlp { hidden_units: [64, 16] } final { hidden_units: [64, 32] } "
        "arch_with_sparse: true }",
    ),
    "dcn_v2": (
        [("all", "DEEP", "all")],
        f"  dcn_v2 {{ cross {{ cross_num: 3 low_rank: 32 }} {_DEEP} }}",
    ),
}


@dataclass(frozen=True)
class Cost:
    """What a command took.

    Attributes:
        wall: seconds.
        cpu: seconds of all its processes.
    """

    wall: float
    cpu: float


def main() -> int:
    """Makes the data where it is missing, times two runs, prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="deepfm", choices=list(MODELS))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--mixed_precision", default="FP32", choices=["FP32", "BF16", "FP16"])
    parser.add_argument("--threads", type=int, default=0, help="OMP_NUM_THREADS; 0 leaves it")
    parser.add_argument(
        "--optimizer", default="adagrad", help="adagrad, rowwise_adagrad, sgd, adam"
    )
    parser.add_argument("--raw", action="store_true", help="text ids through FG_DAG")
    parser.add_argument("--dir", type=Path, default=Path("experiments/criteo_shaped"))
    parser.add_argument("--set", action="append", default=[], dest="edits", metavar="A.B=V")
    args = parser.parse_args()
    data = args.dir / f"train-{args.rows}{'-raw' if args.raw else ''}.parquet"
    if not data.exists():
        started = time.perf_counter()
        write_data(data, args.rows, raw=args.raw)
        print(f"made {data} in {time.perf_counter() - started:.0f} s")
    config = args.dir / "criteo_shaped.config"
    config.write_text(
        config_text(data, args.dir / "model", args.optimizer, raw=args.raw, model=args.model)
    )
    edits = [f"train_config.mixed_precision={args.mixed_precision}"]
    edits += args.edits
    start_up = train(
        config,
        args.dir / "model",
        [*edits, "train_config.num_steps=1", "train_config.num_epochs=0"],
        args.threads,
    )
    whole = train(config, args.dir / "model", edits, args.threads)
    report(args, whole, start_up)
    return 0


def table_sizes() -> list[int]:
    """Rows of the 26 tables."""
    return [int(size) for size in np.geomspace(SMALLEST, LARGEST, NUM_IDS).round()]


def write_data(path: Path, rows: int, seed: int = 0, *, raw: bool = False) -> None:
    """Writes the rows to ``path``, chunk by chunk; ``raw`` makes words of 8 letters of the ids."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    draws = []
    for size in table_sizes():
        weights = np.arange(1, size + 1) ** -EXPONENT
        # The frequent ids lie anywhere in a table.
        draws.append((np.cumsum(weights) / weights.sum(), rng.permutation(size)))
    effects = [rng.normal(0, 0.5, size).astype(np.float32) for size in table_sizes()]
    slopes = rng.normal(0, 0.2, NUM_FLOATS)
    writer, temporary = None, path.with_suffix(".part")
    for start in range(0, rows, CHUNK):
        n = min(CHUNK, rows - start)
        floats = rng.exponential(1.0, (NUM_FLOATS, n)).astype(np.float32)
        ids = [order[np.searchsorted(cumulated, rng.random(n))] for cumulated, order in draws]
        logit = slopes @ floats - 1.5
        for effect, column in zip(effects, ids, strict=True):
            logit += effect[column]
        label = (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(np.float32)
        columns = {"label": label}
        columns |= {f"int_{i}": floats[i] for i in range(NUM_FLOATS)}
        columns |= {f"cat_{i}": words(ids[i]) if raw else ids[i] for i in range(NUM_IDS)}
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(temporary, table.schema)
        writer.write_table(table)
    writer.close()
    temporary.rename(path)


def words(ids: np.ndarray) -> pa.Array:
    """Returns ids as hexadecimal words, as Criteo's are."""
    scattered = (ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)
    return pa.array([f"{number:08x}" for number in scattered.tolist()])


def config_text(
    data: Path, model_dir: Path, optimizer: str, *, raw: bool = False, model: str = "deepfm"
) -> str:
    """Returns the config of a model of `MODELS` for the data."""
    makes_ids = "hash_bucket_size" if raw else "num_buckets"
    floats = [f"int_{i}" for i in range(NUM_FLOATS)]
    ids = [f"cat_{i}" for i in range(NUM_IDS)]
    features = [
        f'feature_configs {{ raw_feature {{ feature_name: "{n}" expression: "user:{n}" }} }}'
        for n in floats
    ] + [
        f'feature_configs {{ id_feature {{ feature_name: "{n}" expression: "user:{n}" '
        f"{makes_ids}: {size} embedding_dim: 16 }} }}"
        for n, size in zip(ids, table_sizes(), strict=True)
    ]
    lists = {
        name: ", ".join(f'"{n}"' for n in names)
        for name, names in {"floats": floats, "ids": ids, "all": [*floats, *ids]}.items()
    }
    groups, layers = MODELS[model]
    return CONFIG.format(
        data=data,
        model_dir=model_dir,
        optimizer=f"{optimizer}_optimizer",
        fg_mode="FG_DAG" if raw else "FG_NONE",
        features="\n".join(features),
        model="".join(_GROUP % (name, kind, lists[names]) for name, kind, names in groups) + layers,
    )


def train(config: Path, model_dir: Path, edits: list[str], threads: int) -> Cost:
    """Runs `tzrec train` in a fresh ``model_dir``; its output is shown."""
    shutil.rmtree(model_dir, ignore_errors=True)
    command = ["env", f"OMP_NUM_THREADS={threads}"] if threads else []
    command += [sys.executable, "-m", "tzrec.cli", "train", str(config)]
    for edit in edits:
        command += ["--set", edit]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, cpu)


def report(args: argparse.Namespace, whole: Cost, start_up: Cost) -> None:
    """Prints the figures, and on the last line all of them as JSON."""
    wall, cpu = whole.wall - start_up.wall, whole.cpu - start_up.cpu
    facts = {
        "model": args.model,
        "rows": args.rows,
        "optimizer": args.optimizer,
        "mixed_precision": args.mixed_precision,
        "threads": args.threads,
        "raw": args.raw,
        "rows_per_second": round(args.rows / wall),
        "cpu_us_per_row": round(1e6 * cpu / args.rows, 1),
        "whole": asdict(whole),
        "one_step": asdict(start_up),
    }
    print(
        f"\n{args.rows:,} rows in {whole.wall:.1f} s, of which {start_up.wall:.1f} s start and end"
    )
    print(f"{facts['rows_per_second']:,} rows/s, {facts['cpu_us_per_row']} CPU µs per row")
    print(json.dumps(facts))


if __name__ == "__main__":
    sys.exit(main())
