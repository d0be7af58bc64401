"""``python -m tzrec.tools.feature_selection``: a config with the features that matter.

Reads the dropout probabilities that a run with ``variational_dropout`` has learnt; see
`tzrec.modules.variational_dropout`.
"""

from __future__ import annotations

import argparse
import logging
import os
import posixpath
import sys
from typing import Any

from tzrec.config import prepare
from tzrec.config.feature_facts import flatten
from tzrec.config.load import save_message
from tzrec.config.prune import prune_features
from tzrec.errors import CheckpointError, ConfigError
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.storage import file_system, is_remote
from tzrec.tools.importance_files import draw_bars, write_csv

logger = logging.getLogger("tzrec")

DESCRIPTION = (
    "Writes a config with the features that a run with model_config.variational_dropout has "
    "dropped least, and a table of how often it drops each."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the interface."""
    parser.add_argument("--pipeline_config_path", required=True, metavar="CONFIG")
    parser.add_argument("--model_dir", metavar="DIR", help="overrides the config's")
    parser.add_argument(
        "--output_dir", required=True, metavar="DIR", help="gets tables, pictures and the config"
    )
    parser.add_argument(
        "--topk", type=int, default=100, metavar="K", help="features a group keeps (default 100)"
    )
    parser.add_argument("--visualize", action="store_true", help="draw a picture per group")
    parser.add_argument(
        "--clear_variational_dropout",
        action="store_true",
        help="the new config trains without variational dropout",
    )


def run(args: argparse.Namespace) -> None:
    """Writes ``feature_dropout_ratio_{group}.csv`` per group, and the smaller config.

    Args:
        args: as `add_arguments` describes them.

    Raises:
        ConfigError: the config is wrong, or has no variational dropout.
        CheckpointError: the checkpoint holds no dropout probabilities.
    """
    if args.topk < 1:
        raise ConfigError(f"--topk is {args.topk}, must be at least 1")
    path = posixpath.join(args.output_dir, posixpath.basename(args.pipeline_config_path))
    if _same_place(path, args.pipeline_config_path):
        raise ConfigError(
            f"--output_dir is the folder of the config: {path} would be overwritten",
            hint="give another --output_dir",
        )
    config = prepare(args.pipeline_config_path, model_dir=args.model_dir).config
    if not config.model_config.HasField("variational_dropout"):
        raise ConfigError(
            "model_config has no variational_dropout: nothing was learnt about its features",
            hint="train with variational_dropout {}, or run tzrec importance on any trained model",
        )
    sequences = {feature.name for feature in flatten(config) if feature.is_sequence}
    keep: dict[str, list[str]] = {}
    _make_directory(args.output_dir)
    for group, dropped in drop_probabilities(config).items():
        ranked = sorted(dropped.items(), key=lambda item: item[1])
        stem = posixpath.join(args.output_dir, f"feature_dropout_ratio_{group}")
        write_csv(f"{stem}.csv", ["feature_name", "mean_drop_p"], ranked)
        if args.visualize:
            draw_bars(f"{stem}.png", ranked, label=f"dropout probability, group {group}")
        members = _members(config, group)
        able = [name for name, _ in ranked if name in members and name not in sequences]
        keep[group] = able[: args.topk]
        left_out = able[args.topk :]
        listed = f": {', '.join(left_out)}" if left_out else ""
        logger.info(
            "group %s: %d features, %d left out%s", group, len(dropped), len(left_out), listed
        )
    pruned = prune_features(config, keep)
    if args.clear_variational_dropout:
        pruned.model_config.ClearField("variational_dropout")
    save_message(pruned, path)
    logger.info(
        "wrote %s: %d of %d feature_configs",
        path,
        len(pruned.feature_configs),
        len(config.feature_configs),
    )
    logger.info("train it in a directory of its own: tzrec train %s --model-dir DIR", path)


def drop_probabilities(config: EasyRecConfig) -> dict[str, dict[str, float]]:
    """Returns group → entry → learnt dropout probability of the newest checkpoint.

    Entries are features and outputs of sequence encoders.

    Raises:
        CheckpointError: there is no checkpoint, or it holds no such probabilities.
    """
    import torch

    from tzrec.modules.variational_dropout import VariationalDropout
    from tzrec.training import build
    from tzrec.training.checkpoint.files import StateFiles, local_copy
    from tzrec.training.checkpoint.find import resolve

    checkpoint, _ = resolve(config.model_dir, "latest", config.export_config)
    features = build.build_features(config.data_config, config.feature_configs)
    with torch.device("meta"):  # names only: tables may be large
        model: Any = build.build_model(config, features, with_labels=False)
    found: dict[str, dict[str, float]] = {}
    with local_copy(checkpoint) as directory:
        files = StateFiles(directory / "model")
        for where, dropout in model.named_modules():
            if not isinstance(dropout, VariationalDropout):
                continue
            key, group = f"model.{where}.feature_p", dropout.group_name
            names = list(dropout.features_dimension)
            if files.shapes.get(key) != (len(names),):
                raise CheckpointError(
                    f"{checkpoint} holds no dropout probabilities of the {len(names)} entries of "
                    f"group {group!r}",
                    hint="the config must be the one that the checkpoint was trained with",
                )
            probabilities = torch.sigmoid(files.whole(key).float()).tolist()
            found[group] = dict(zip(names, probabilities, strict=True))
    logger.info("dropout probabilities of %s", checkpoint)
    return found


def _members(config: EasyRecConfig, name: str) -> set[str]:
    groups = config.model_config.feature_groups
    return {n for group in groups if group.group_name == name for n in group.feature_names}


def _same_place(path: str, other: str) -> bool:
    if is_remote(path) or is_remote(other):
        return path == other
    return os.path.realpath(path) == os.path.realpath(other)


def _make_directory(path: str) -> None:
    system, inner = file_system(path)
    system.makedirs(inner, exist_ok=True)


def main(argv: list[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; None takes those of the process.

    Returns:
        The exit code.
    """
    # The layer of commands stands above the tools.
    from tzrec.cli.job import tool_command

    return tool_command("tzrec.tools.feature_selection", DESCRIPTION, add_arguments, run, argv)


if __name__ == "__main__":
    sys.exit(main())
