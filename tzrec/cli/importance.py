"""``tzrec importance``."""

from __future__ import annotations

import argparse

from tzrec.cli.console import UsageError
from tzrec.cli.job import check_early, start
from tzrec.cli.parser import add_checkpoint, add_config, add_edits, config_of

DESCRIPTION = (
    "Measures what each feature is worth to a trained model: how much worse the metrics get "
    "when its values are shuffled among the rows."
)
EXAMPLES = """\
  tzrec importance run/pipeline.config
  tzrec importance run/pipeline.config --metric grouped_auc --rows 20000 --out importance"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``tzrec importance``."""
    add_config(parser)
    add_checkpoint(parser)
    parser.add_argument(
        "--eval-input-path", metavar="FILES", help="rows with labels (default: the config's)"
    )
    parser.add_argument(
        "--metric", metavar="NAME", help="orders the features (default: the first of the config)"
    )
    parser.add_argument(
        "--rows",
        type=int,
        default=100_000,
        metavar="N",
        help="measure on the first N rows, held in memory (default: %(default)s)",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=3,
        metavar="N",
        help="shuffles of each feature (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        default="importance",
        metavar="DIR",
        help="gets importance.csv and importance.png (default: %(default)s)",
    )
    add_edits(parser)


def run(args: argparse.Namespace) -> int:
    """Measures, and writes table and picture."""
    path = config_of(args, "importance")
    for name in ("rows", "repeats"):
        if getattr(args, name) < 1:
            raise UsageError(f"--{name} is {getattr(args, name)}, must be at least 1")
    start()
    check_early(
        path, inputs=["eval_input_path"], eval_input_path=args.eval_input_path, edits=args.edits
    )
    from tzrec.tools.feature_importance import feature_importance

    feature_importance(
        path,
        args.out,
        checkpoint_path=args.checkpoint_path,
        eval_input_path=args.eval_input_path,
        metric=args.metric,
        num_rows=args.rows,
        repeats=args.repeats,
        edits=args.edits,
    )
    return 0
