"""``python -m tzrec.export``: exports a checkpoint (the interface's flags)."""

from __future__ import annotations

import argparse
import logging

from tzrec.cli.export import check_options
from tzrec.cli.job import check_early, importing, interface_command
from tzrec.cli.parser import Parser
from tzrec.deploy.options import INTERFACE_DEFAULTS
from tzrec.options import from_environment

logger = logging.getLogger("tzrec")


def parser() -> Parser:
    """Returns the flags."""
    flags = Parser(prog="tzrec.export", description=__doc__, spellings=False)
    flags.add_argument("--pipeline_config_path", required=True, help="config file")
    flags.add_argument("--checkpoint_path", help="checkpoint, default by export_config")
    flags.add_argument("--export_dir", required=True, help="new directory for the model")
    flags.add_argument("--asset_files", help="comma list of files to copy along")
    flags.add_argument("--additional_export_config", help="JSON, merged into model_acc.json")
    flags.add_argument("--item_input_path", help="items, for the item tower of two-tower models")
    return flags


def run(args: argparse.Namespace) -> None:
    """Exports; pooled tables as INT8 where the environment does not say otherwise."""
    check_options(defaults=INTERFACE_DEFAULTS)
    if from_environment().export.quantisation is None:
        logger.info(
            "pooled embedding tables are quantised to %s, the default of python -m tzrec.export; "
            "QUANT_EMB=0 keeps them as trained",
            INTERFACE_DEFAULTS.quantisation,
        )
    check_early(args.pipeline_config_path)
    with importing():
        from tzrec.main import export

    export(
        args.pipeline_config_path,
        args.export_dir,
        checkpoint_path=args.checkpoint_path,
        asset_files=args.asset_files,
        additional_export_config=args.additional_export_config,
        item_input_path=args.item_input_path,
        defaults=INTERFACE_DEFAULTS,
    )


def main(argv: list[str] | None = None) -> int:
    """Runs the module and returns its exit code."""
    return interface_command(parser(), run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
