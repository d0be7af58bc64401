"""``tzrec eval``."""

from __future__ import annotations

import argparse

from tzrec.cli.job import check_early, importing, start
from tzrec.cli.parser import add_checkpoint, add_config, add_edits, config_of
from tzrec.constant import EVAL_RESULT_FILENAME

DESCRIPTION = "Evaluates a checkpoint and appends the metrics to a file in the run directory."
EXAMPLES = """\
  tzrec eval run/pipeline.config
  tzrec eval run/pipeline.config --eval-input-path 'data/test-*.parquet'
  tzrec eval run/pipeline.config --checkpoint best
  tzrec eval run/pipeline.config --checkpoint run/model.ckpt-1000"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``tzrec eval``."""
    add_config(parser)
    add_checkpoint(parser)
    parser.add_argument("--eval-input-path", metavar="FILES", help="evaluation data")
    parser.add_argument(
        "--eval-result-filename",
        metavar="NAME",
        default=EVAL_RESULT_FILENAME,
        help="result file in the run directory (default: %(default)s)",
    )
    parser.add_argument(
        "--no-report",
        action="store_true",
        help="do not write a report (ROC, calibration, scores) beside the result file",
    )
    add_edits(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluates."""
    path = config_of(args, "eval")
    start()
    check_early(
        path, inputs=["eval_input_path"], eval_input_path=args.eval_input_path, edits=args.edits
    )
    with importing():
        from tzrec.main import evaluate

    evaluate(
        path,
        checkpoint_path=args.checkpoint_path,
        eval_input_path=args.eval_input_path,
        eval_result_filename=args.eval_result_filename,
        edits=args.edits,
        report=not args.no_report,
    )
    return 0
