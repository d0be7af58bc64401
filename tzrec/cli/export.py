"""``tzrec export``."""

from __future__ import annotations

import argparse

from tzrec.cli.job import check_early, start
from tzrec.cli.parser import add_config, add_edits, config_of

DESCRIPTION = (
    "Exports a checkpoint as a TorchScript model; compares it with the trained model first\n"
    "and publishes nothing if they differ. A match model becomes user/ and item/."
)
EXAMPLES = """\
  tzrec export run/pipeline.config --export-dir run/export
  tzrec export run/pipeline.config --export-dir best --checkpoint-path best
  tzrec export run/pipeline.config --export-dir run/export --asset-files vocab.txt,notes.txt"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``tzrec export``."""
    add_config(parser)
    parser.add_argument(
        "--export-dir", metavar="DIR", required=True, help="new directory for the model"
    )
    parser.add_argument(
        "--checkpoint-path",
        metavar="DIR",
        help="checkpoint, or latest, or best (default: as export_config.exporter_type says)",
    )
    parser.add_argument("--asset-files", metavar="FILES", help="comma list of files to copy along")
    parser.add_argument(
        "--additional-export-config", metavar="JSON", help="merged into model_acc.json"
    )
    parser.add_argument(
        "--item-input-path",
        metavar="FILES",
        help="match models: rows of items to check the item tower with (default: training data)",
    )
    add_edits(parser)


def run(args: argparse.Namespace) -> int:
    """Exports."""
    path = config_of(args, "export")
    start()
    check_early(path, edits=args.edits)
    from tzrec.main import export

    export(
        path,
        args.export_dir,
        checkpoint_path=args.checkpoint_path,
        asset_files=args.asset_files,
        additional_export_config=args.additional_export_config,
        item_input_path=args.item_input_path,
        edits=args.edits,
    )
    return 0
