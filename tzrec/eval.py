"""``python -m tzrec.eval``: evaluates a checkpoint (the interface's flags)."""

from __future__ import annotations

import argparse

from tzrec.cli.job import check_early, importing, interface_command
from tzrec.cli.parser import Parser
from tzrec.constant import EVAL_RESULT_FILENAME


def parser() -> Parser:
    """Returns the flags."""
    flags = Parser(prog="tzrec.eval", description=__doc__, spellings=False)
    flags.add_argument("--pipeline_config_path", required=True, help="config file")
    flags.add_argument("--checkpoint_path", help="checkpoint, default the newest of model_dir")
    flags.add_argument("--eval_input_path", help="overrides the config's eval_input_path")
    flags.add_argument(
        "--eval_result_filename",
        default=EVAL_RESULT_FILENAME,
        help="result file in model_dir (default: %(default)s)",
    )
    return flags


def run(args: argparse.Namespace) -> None:
    """Evaluates."""
    check_early(
        args.pipeline_config_path,
        inputs=["eval_input_path"],
        eval_input_path=args.eval_input_path,
    )
    with importing():
        from tzrec.main import evaluate

    evaluate(
        args.pipeline_config_path,
        checkpoint_path=args.checkpoint_path,
        eval_input_path=args.eval_input_path,
        eval_result_filename=args.eval_result_filename,
    )


def main(argv: list[str] | None = None) -> int:
    """Runs the module and returns its exit code."""
    return interface_command(parser(), run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
