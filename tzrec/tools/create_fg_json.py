"""``python -m tzrec.tools.create_fg_json``: feature generation of a config as ``fg.json``."""

from __future__ import annotations

import argparse
import json
import posixpath
import sys
from typing import TYPE_CHECKING, Any

from tzrec.errors import ConfigError, Unsupported
from tzrec.fg.handler import FG_JSON, FgHandler
from tzrec.fg.kernels import warm_up
from tzrec.storage import file_system, open_file
from tzrec.tools.fg_setup import features_of, load_config, open_reader, setup_of
from tzrec.tools.shards import logger

if TYPE_CHECKING:
    from tzrec.protos.pipeline_pb2 import EasyRecConfig

_CLOUD = ("odps_project_name", "odps_schema_name")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the interface."""
    parser.add_argument("--pipeline_config_path", required=True, metavar="CONFIG")
    parser.add_argument(
        "--fg_output_dir", metavar="DIR", help="gets fg.json and the files that it names"
    )
    parser.add_argument("--fg_resource_name", metavar="NAME", help="file name (default fg.json)")
    parser.add_argument(
        "--reserves", metavar="NAMES", help="columns that are passed on (comma list)"
    )
    parser.add_argument(
        "--remove_bucketizer",
        action="store_true",
        help="leave out what makes ids; FG_BUCKETIZE does that later",
    )
    parser.add_argument(
        "--debug",
        action="store_true",
        help="also generate the first batch of train_input_path with the result",
    )
    for name in _CLOUD:
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    parser.add_argument("--force_update_resource", action="store_true", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> None:
    """Writes ``fg.json``, or shows it where no directory is given.

    Args:
        args: as `add_arguments` describes them.

    Raises:
        ConfigError: the config is wrong, or a file cannot be read.
        Unsupported: the result is to be uploaded to MaxCompute.
    """
    if any(getattr(args, name) for name in _CLOUD) or args.force_update_resource:
        raise Unsupported(
            "fg.json is not uploaded to MaxCompute",
            hint="give --fg_output_dir, and upload that directory with the tools of MaxCompute",
        )
    config = load_config(args.pipeline_config_path)
    setup = setup_of(config)
    options = {"bucketize_only": setup.bucketize_only, "farm_hash": setup.farm_hash}
    directory = args.fg_output_dir and (args.fg_output_dir.rstrip("/") or "/")
    fg_json = _create(config, directory, remove_bucketizer=args.remove_bucketizer)
    reserves = [name.strip() for name in (args.reserves or "").split(",") if name.strip()]
    if reserves:
        fg_json["reserves"] = reserves
    text = json.dumps(fg_json, indent=2, ensure_ascii=False) + "\n"
    if directory:
        path = posixpath.join(directory, args.fg_resource_name or FG_JSON)
        _write(path, text)
        logger.info("wrote %s: %d entries", path, len(fg_json["features"]))
        handler = FgHandler.load(path, **options)
    else:
        sys.stdout.write(text)
        handler = FgHandler(fg_json, **options)
    if args.debug:
        _check(config, handler)


def _create(
    config: EasyRecConfig, directory: str | None, *, remove_bucketizer: bool
) -> dict[str, Any]:
    from tzrec.features.feature import create_fg_json

    return create_fg_json(
        features_of(config), asset_dir=directory, remove_bucketizer=remove_bucketizer
    )


def _write(path: str, text: str) -> None:
    system, inner = file_system(path)
    system.makedirs(posixpath.dirname(inner), exist_ok=True)
    with open_file(path, "wb") as stream:
        stream.write(text.encode("utf-8", "surrogatepass"))


def _check(config: EasyRecConfig, handler: FgHandler) -> None:
    """Generates the first batch of the training data."""
    if not config.train_input_path:
        raise ConfigError("--debug needs data, but the config has no train_input_path")
    reader = open_reader(config, config.train_input_path, handler.columns)
    warm_up(logger.info)
    batch = next(reader.to_batches(max(int(config.data_config.batch_size), 1)))
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    results = handler.generate(columns)
    for name in handler.features:
        logger.info("%s: %d values in %d rows", name, len(results[name].values), batch.num_rows)


def main(argv: list[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; None takes those of the process.

    Returns:
        The exit code.
    """
    # The layer of commands stands above the tools.
    from tzrec.cli.job import tool_command

    return tool_command("tzrec.tools.create_fg_json", __doc__, add_arguments, run, argv)


if __name__ == "__main__":
    sys.exit(main())
