"""``tzrec data generate``: rows for a config, and the command that trains on them."""

from __future__ import annotations

import argparse
import posixpath
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tzrec.demo.shape.tables import Table
    from tzrec.demo.shape.write import Plan, Written
    from tzrec.protos.pipeline_pb2 import EasyRecConfig

DEFAULT_OUT = "experiments/generated"
_ROWS = 100_000
_MIB = 2**20


def add_arguments(parser: argparse.ArgumentParser, count: Callable[[int], Any]) -> None:
    """Adds the flags.

    Args:
        parser: of the command.
        count: makes the type of whole numbers from a least one on.
    """
    parser.add_argument(
        "--for", dest="config", required=True, metavar="CONFIG", help="config file to fit"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="gets train/, eval/ and tables/ of samplers "
        f"(default: {DEFAULT_OUT}/ and the name of the config)",
    )
    parser.add_argument(
        "--rows", type=count(1), default=_ROWS, metavar="N", help=f"to train on (default {_ROWS})"
    )
    parser.add_argument(
        "--eval-rows", type=count(1), metavar="N", help="to evaluate on (default: a tenth)"
    )
    parser.add_argument(
        "--files", type=count(1), default=1, metavar="K", help="files to train on (default 1)"
    )
    parser.add_argument(
        "--seed", type=count(0), default=0, metavar="S", help="other rows of the same story"
    )
    parser.add_argument(
        "--items",
        type=count(1),
        default=0,
        metavar="N",
        help="items to match users with (default: as the rows suggest)",
    )
    parser.add_argument(
        "--users",
        type=count(1),
        default=0,
        metavar="N",
        help="users (default: a tenth of the rows)",
    )
    parser.add_argument(
        "--format", choices=("parquet", "csv"), help="default: what the config reads"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace rows that were generated before"
    )


def run(args: argparse.Namespace, config: EasyRecConfig) -> int:
    """Generates rows and says what they are.

    Args:
        args: as `add_arguments` describes them, and ``edits``, the edits of the config.
        config: the checked config.
    """
    from tzrec.demo.shape.write import Plan, write
    from tzrec.protos.data_pb2 import CsvDataset

    kind = "csv" if config.data_config.dataset_type == CsvDataset else "parquet"
    plan = Plan(
        args.out or posixpath.join(DEFAULT_OUT, _stem(args.config)),
        rows=args.rows,
        eval_rows=args.eval_rows or max(args.rows // 10, 1),
        files=args.files,
        seed=args.seed,
        format=args.format or kind,
        overwrite=args.overwrite,
        items=args.items,
        users=args.users,
    )
    started = time.monotonic()
    written = write(config, plan)
    seconds = time.monotonic() - started
    command = train_command(args, plan, written.tables)
    sys.stdout.write(_summary(plan, written, seconds) + f"next: {command}\n")
    return 0


def _stem(path: str) -> str:
    return posixpath.basename(path).partition(".")[0]


def train_command(args: argparse.Namespace, plan: Plan, tables: Sequence[Table] = ()) -> str:
    """Returns the command that trains on the rows.

    Args:
        args: of this command.
        plan: where the rows are.
        tables: what the sampler draws from.
    """
    words = ["tzrec", "train", args.config]
    words += ["--train-input-path", plan.folder("train")]
    words += ["--eval-input-path", plan.folder("eval")]
    edits = list(args.edits)
    if args.format == "parquet":
        edits.append("data_config.dataset_type=ParquetDataset")
    elif args.format == "csv":
        edits += ["data_config.dataset_type=CsvDataset", "data_config.with_header=true"]
    edits += [f"{table.field}={table.path}" for table in tables]
    for edit in edits:
        words += ["--set", edit]
    return shlex.join(words)


def _summary(plan: Plan, written: Written, seconds: float) -> str:
    lines = [f"{plan.out}: generated rows, made up but for the labels' dependence on the features"]
    files = {"train": plan.files, "eval": 1}
    for part, rows in written.rows.items():
        count = f"{files[part]} file{'' if files[part] == 1 else 's'}"
        size = written.sizes[part] / _MIB
        lines.append(f"  {part:<5} {rows:>11,} rows, {count}, {size:.1f} MiB")
    rate = sum(written.rows.values()) / max(seconds, 1e-9)
    lines.append(f"  {len(written.columns)} columns, {seconds:.1f} s ({rate:,.0f} rows/s)")
    lines.append(f"signal: {', '.join(written.signal) or 'none'}")
    for label, share in written.shares.items():
        bound = written.bounds[label]
        best = "" if bound is None else f"; no model can beat AUC {bound:.4f}"
        lines.append(f"label {label}: {share:.1%} ones{best}")
    for table in written.tables:
        lines.append(f"{table.path}: {table.rows:,} rows")
    for top, recall in written.recalls.items():
        chance = min(top / (written.num_negatives + 1), 1.0)
        lines.append(
            f"recall@{top}: about {recall:.3f} for who knows all tastes, {chance:.3f} by chance "
            f"({written.num_negatives:,} negatives)"
        )
    return "\n".join(lines) + "\n"
