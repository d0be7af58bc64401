"""``tzrec check``: everything that can be known without training."""

from __future__ import annotations

import argparse

from tzrec.cli.parser import add_config, add_edit_json, add_edits, config_of
from tzrec.cli.rules import RULES
from tzrec.config.messages import shortest_float, which_field
from tzrec.config.pipeline import Pipeline, prepare
from tzrec.config.specs import LOSSES
from tzrec.config.validate.frame import Context
from tzrec.config.validate.objectives import metric_names

DESCRIPTION = (
    "Checks a config: fields, features, groups, model, losses, optimizers. All problems are\n"
    "shown at once, each with its line. Needs no torch and no data, and answers at once."
)
EXAMPLES = """\
  tzrec check rank.config
  tzrec check rank.config --data               also look at the columns of the data files
  tzrec check rank.config --set train_config.num_epochs=3"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``tzrec check``."""
    add_config(parser)
    parser.add_argument(
        "--data",
        action="store_true",
        help="compare with the columns of the data files too, and with the ranges that Parquet "
        "files tell (reads no rows)",
    )
    parser.add_argument("--train-input-path", metavar="FILES", help="training data")
    parser.add_argument("--eval-input-path", metavar="FILES", help="evaluation data")
    parser.add_argument("--model-dir", metavar="DIR", help="run directory")
    add_edits(parser)
    add_edit_json(parser)


def run(args: argparse.Namespace) -> int:
    """Checks, and says what the config is about."""
    path = config_of(args, "check")
    pipeline = prepare(
        path,
        train_input_path=args.train_input_path,
        eval_input_path=args.eval_input_path,
        model_dir=args.model_dir,
        edit_config_json=args.edit_config_json,
        edits=args.edits,
        log_warnings=False,
        rules=RULES,
    )
    for line in pipeline.warning_lines():
        print(f"warning: {line}")
    lines = summary(pipeline)
    if args.data:
        from tzrec.cli.check_data import check_data

        found, warnings = check_data(pipeline)
        for line in warnings:
            print(f"warning: {line}")
        lines += found
    print(f"{path}: OK")
    for name, text in lines:
        print(f"  {name:<9} {text}")
    return 0


def summary(pipeline: Pipeline) -> list[tuple[str, str]]:
    """Returns what a config is about, a few words a line."""
    config = pipeline.config
    context = Context(config)
    losses = [name for task in context.tasks for name in task.loss_names()]
    known = metric_names(context)
    metrics = [name for task in context.tasks for name in task.metric_names()]
    if known is not None:  # the means of the losses are among them
        metrics = [name for name in known if not name.startswith(tuple(LOSSES))]
    ids = [feature for feature in context.features if feature.is_sparse]
    steps = [feature for feature in context.features if feature.is_sequence]
    numbers = len(context.features) - len(ids)
    groups = ", ".join(context.groups)
    rows = sum(feature.rows or 0 for feature in ids)
    train = config.train_config
    length = f"{train.num_steps} steps" if train.num_steps else _count(train.num_epochs, "epoch")
    return [
        ("model", f"{context.model_type}: {', '.join(losses) or 'its own loss'}"),
        ("metrics", ", ".join(metrics) or "none"),
        (
            "features",
            f"{_count(len(ids), 'id')}, {_count(numbers, 'number')}"
            + (f" ({len(steps)} of them in sequences)" if steps else ""),
        ),
        ("groups", groups),
        ("tables", f"{rows:,} rows before sharing"),
        (
            "training",
            f"{length}, batches of {config.data_config.batch_size}, sparse "
            f"{_optimizer(train.sparse_optimizer)}, dense {_optimizer(train.dense_optimizer)}",
        ),
    ]


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _optimizer(optimizer: object) -> str:
    name = which_field(optimizer, "optimizer") or ""  # type: ignore[arg-type]
    rate = getattr(optimizer, name).lr if name else 0.0
    return f"{name.removesuffix('_optimizer')} {shortest_float(rate):g}"
