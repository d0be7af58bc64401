"""``python -m tzrec.train_eval``: trains and evaluates (the interface's flags)."""

from __future__ import annotations

import argparse

from tzrec.cli.job import check_early, importing, interface_command
from tzrec.cli.parser import Parser


def parser() -> Parser:
    """Returns the flags."""
    flags = Parser(prog="tzrec.train_eval", description=__doc__, spellings=False)
    flags.add_argument("--pipeline_config_path", required=True, help="config file")
    flags.add_argument("--model_dir", help="overrides the config's model_dir")
    flags.add_argument("--train_input_path", help="overrides the config's train_input_path")
    flags.add_argument("--eval_input_path", help="overrides the config's eval_input_path")
    flags.add_argument(
        "--continue_train", action="store_true", help="go on in a model_dir with checkpoints"
    )
    flags.add_argument("--fine_tune_checkpoint", help="start with the weights of this checkpoint")
    flags.add_argument("--edit_config_json", help="JSON object of config path to value")
    flags.add_argument(
        "--ignore_restore_optimizer", action="store_true", help="restore model weights only"
    )
    return flags


def run(args: argparse.Namespace) -> None:
    """Trains."""
    overrides = {
        "train_input_path": args.train_input_path,
        "eval_input_path": args.eval_input_path,
        "model_dir": args.model_dir,
        "fine_tune_checkpoint": args.fine_tune_checkpoint,
        "edit_config_json": args.edit_config_json,
    }
    inputs = ("train_input_path", "eval_input_path")
    check_early(args.pipeline_config_path, inputs=inputs, **overrides)
    with importing():
        from tzrec.main import train_and_evaluate

    train_and_evaluate(
        args.pipeline_config_path,
        continue_train=args.continue_train,
        ignore_restore_optimizer=args.ignore_restore_optimizer,
        **overrides,
    )


def main(argv: list[str] | None = None) -> int:
    """Runs the module and returns its exit code."""
    return interface_command(parser(), run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
