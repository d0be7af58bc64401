"""``tzrec train``."""

from __future__ import annotations

import argparse
import os
import sys

from tzrec.cli.console import UsageError
from tzrec.cli.job import check_early, importing, start
from tzrec.cli.parser import add_config, add_edit_json, add_edits, at_least, config_of
from tzrec.options import from_environment, set_thread_counts

DESCRIPTION = "Trains the model of a config, saves checkpoints, evaluates after each."
EXAMPLES = """\
  tzrec train rank.config
  tzrec train rank.config --model-dir run2 --set train_config.num_epochs=3
  tzrec train rank.config --continue           go on where the last run stopped
  tzrec train rank.config --nproc 2            two processes on this machine
  torchrun --nnodes 2 --nproc-per-node 2 ... -m tzrec.train_eval --pipeline_config_path rank.config
                                               several machines"""

_TEXTS = (
    "--model-dir",
    "--train-input-path",
    "--eval-input-path",
    "--fine-tune-checkpoint",
    "--on-mismatch",
    "--edit-config-json",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``tzrec train``."""
    add_config(parser)
    parser.add_argument("--model-dir", metavar="DIR", help="where the run goes (config: model_dir)")
    parser.add_argument(
        "--train-input-path", metavar="FILES", help="training data (comma list of globs)"
    )
    parser.add_argument("--eval-input-path", metavar="FILES", help='evaluation data, "" for none')
    parser.add_argument(
        "--continue",
        "--continue-train",
        dest="continue_train",
        action="store_true",
        help="go on from the newest checkpoint of the run directory",
    )
    parser.add_argument(
        "--fine-tune-checkpoint", metavar="DIR", help="start with the weights of this checkpoint"
    )
    parser.add_argument(
        "--ignore-restore-optimizer",
        action="store_true",
        help="restore weights, but not the optimizers' state",
    )
    parser.add_argument(
        "--on-mismatch",
        choices=("strict", "remap", "reset"),
        help="a table that is not as it was in the checkpoint: refuse it (the default), keep the "
        "rows that mean the same, or start it afresh (config: train_config.on_table_mismatch)",
    )
    parser.add_argument(
        "--no-report",
        action="store_true",
        help="do not write report.html (curves, scores, features) into the run directory",
    )
    parser.add_argument(
        "--nproc",
        type=at_least(1),
        default=1,
        metavar="N",
        help="processes on this machine, which share the embedding tables (GPUs: one each)",
    )
    add_edits(parser)
    add_edit_json(parser)


def run(args: argparse.Namespace) -> int:
    """Trains."""
    path = config_of(args, "train")
    edits = list(args.edits)
    if args.on_mismatch:
        edits.append(f"train_config.on_table_mismatch={args.on_mismatch.upper()}")
    overrides = {
        "train_input_path": args.train_input_path,
        "eval_input_path": args.eval_input_path,
        "model_dir": args.model_dir,
        "fine_tune_checkpoint": args.fine_tune_checkpoint,
        "edit_config_json": args.edit_config_json,
        "edits": tuple(edits),
    }
    start()
    check_early(path, inputs=("train_input_path", "eval_input_path"), **overrides)
    if args.nproc > 1:
        return _launch(args)
    with importing():
        from tzrec.main import train_and_evaluate

    train_and_evaluate(
        path,
        continue_train=args.continue_train,
        ignore_restore_optimizer=args.ignore_restore_optimizer,
        report=not args.no_report,
        **overrides,
    )
    return 0


def _launch(args: argparse.Namespace) -> int:
    """Runs this command in several processes."""
    if from_environment().launched:
        raise UsageError(
            "tzrec train: --nproc starts the processes itself, but this is one of a launcher's",
            hint="leave --nproc out under torchrun",
        )
    set_thread_counts(None, max((os.cpu_count() or 1) // args.nproc, 1))
    from tzrec.training.distributed.launch import launch

    command = [sys.executable, "-m", "tzrec.cli", "train", *_arguments(args)]
    return launch(command, args.nproc)


def _arguments(args: argparse.Namespace) -> list[str]:
    """Returns the command line of one process: all flags but ``--nproc``."""
    found = [config_of(args, "train")]
    for flag in _TEXTS:
        value = getattr(args, flag.strip("-").replace("-", "_"))
        if value is not None:
            found.append(f"{flag}={value}")
    found += [f"--set={edit}" for edit in args.edits]
    switches = {
        "--continue": args.continue_train,
        "--ignore-restore-optimizer": args.ignore_restore_optimizer,
        "--no-report": args.no_report,
    }
    return found + [flag for flag, on in switches.items() if on]
