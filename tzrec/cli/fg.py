"""``tzrec fg``."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from tzrec.cli.console import UsageError
from tzrec.cli.job import start
from tzrec.cli.parser import add_config, add_edit_json, add_edits, at_least, config_of
from tzrec.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from tzrec.protos.pipeline_pb2 import EasyRecConfig

DESCRIPTION = (
    "Feature generation of a config: shows what one row becomes (--row), writes the features\n"
    "of a table (--data, --out), or counts missing and unknown values (--stats)."
)
EXAMPLES = """\
  tzrec fg rank.config --row '{"user_id": 7, "tags": ["a", "b"], "price": 9.5}'
  tzrec fg rank.config --data 'raw/*.parquet' --out features
  tzrec fg rank.config --data raw.csv --out values --bucketize-later --reserve request_id
  tzrec fg rank.config --stats 'raw/*.parquet'"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``tzrec fg``."""
    add_config(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--row", metavar="JSON", help="column to value; shows each step")
    what.add_argument("--data", metavar="FILES", help="generate these rows (comma list of globs)")
    what.add_argument("--stats", metavar="FILES", help="count missing and unknown values in these")
    parser.add_argument("--features", metavar="NAMES", help="with --row: show these only")
    parser.add_argument("--out", metavar="DIR", help="with --data: gets part-00000.parquet, ...")
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--encoded", action="store_true", help="write ids and numbers, for FG_NONE (default)"
    )
    form.add_argument(
        "--bucketize-later",
        action="store_true",
        help="write values before ids, for FG_BUCKETIZE",
    )
    parser.add_argument(
        "--reserve",
        metavar="NAMES",
        help="columns to pass on beside labels and weights (comma list, or ALL_COLUMNS)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the Parquet files of DIR")
    parser.add_argument(
        "--workers", type=at_least(1), metavar="N", help="processes (default: one for each core)"
    )
    parser.add_argument(
        "--batch-size", type=at_least(1), default=8192, metavar="N", help="rows at a time"
    )
    add_edits(parser)
    add_edit_json(parser)


def run(args: argparse.Namespace) -> int:
    """Shows, generates or counts."""
    path = config_of(args, "fg")
    _check_flags(args)
    start()
    from tzrec.tools.fg_setup import load_config

    config = load_config(path, args.edits, args.edit_config_json)
    if args.row is not None:
        _show(config, args.row, _names(args.features))
    elif args.stats is not None:
        _measure(config, args)
    else:
        _generate(config, args, path)
    return 0


def _check_flags(args: argparse.Namespace) -> None:
    """Raises a UsageError where a flag does not fit what is to be done."""
    if args.data is not None and args.out is None:
        raise UsageError("tzrec fg: --data needs --out DIR")
    of_data = ("out", "encoded", "bucketize_later", "reserve", "overwrite")
    wrong = [name for name in of_data if args.data is None and getattr(args, name)]
    wrong += ["features"] if args.row is None and args.features else []
    wrong += ["workers"] if args.row is not None and args.workers else []
    if wrong:
        flag = wrong[0].replace("_", "-")
        raise UsageError(f"tzrec fg: --{flag} has no effect here", hint="see tzrec fg --help")


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _show(config: EasyRecConfig, text: str, names: list[str]) -> None:
    from tzrec.fg.explain import explain
    from tzrec.tools.fg_setup import row_columns, setup_of

    try:
        row = json.loads(text)
    except ValueError as error:
        raise UsageError(f"tzrec fg: --row is no JSON: {error}") from None
    if not isinstance(row, dict):
        raise UsageError("tzrec fg: --row must be a JSON object, column to value")
    handler = setup_of(config).handler(1)
    unknown = [name for name in names if name not in handler.features]
    if unknown:
        raise ConfigError(
            f"there is no feature {unknown[0]!r}{did_you_mean(unknown[0], handler.features)}"
        )
    columns, absent = row_columns(config, handler.columns, row)
    if absent:
        print(f"not given, so missing: {', '.join(absent)}\n")
    print("\n".join(explain(handler, columns, names)))


def _measure(config: EasyRecConfig, args: argparse.Namespace) -> None:
    from tzrec.tools.generate_features import Options, measure

    options = Options(processes=args.workers, batch_size=args.batch_size)
    print("\n".join(measure(config, args.stats, options).lines()))


def _generate(config: EasyRecConfig, args: argparse.Namespace, path: str) -> None:
    from tzrec.tools.generate_features import Options, generate

    options = Options(
        processes=args.workers,
        batch_size=args.batch_size,
        bucketize_later=args.bucketize_later,
        reserve=_names(args.reserve),
        overwrite=args.overwrite,
    )
    done = generate(config, args.data, args.out, options)
    mode = "FG_BUCKETIZE" if args.bucketize_later else "FG_NONE"
    print(f"{args.out}: {done}")
    print(f"columns: {', '.join(done.columns)}")
    flags: dict[str, Any] = {
        "data_config.fg_mode": mode,
        "data_config.dataset_type": "ParquetDataset",
    }
    edits = " ".join(f"--set {name}={value}" for name, value in flags.items())
    sys.stdout.write(f"next: tzrec train {path} --train-input-path {args.out} {edits}\n")
