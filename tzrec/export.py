"""``python -m tzrec.export``: exports a checkpoint (the interface's flags)."""

from __future__ import annotations

import argparse

from tzrec.cli.job import check_early, interface_command
from tzrec.cli.parser import Parser


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
    """Exports."""
    check_early(args.pipeline_config_path)
    from tzrec.main import export

    export(
        args.pipeline_config_path,
        args.export_dir,
        checkpoint_path=args.checkpoint_path,
        asset_files=args.asset_files,
        additional_export_config=args.additional_export_config,
        item_input_path=args.item_input_path,
    )


def main(argv: list[str] | None = None) -> int:
    """Runs the module and returns its exit code."""
    return interface_command(parser(), run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
