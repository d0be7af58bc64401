"""``tzrec export``."""

from __future__ import annotations

import argparse

from tzrec.cli.job import check_early, importing, start
from tzrec.cli.parser import add_config, add_edits, at_least, config_of
from tzrec.deploy.options import INPUT_TILES, TABLE_TYPES, TARGETS, Asked, refuse_later
from tzrec.deploy.options import resolve_options as resolve
from tzrec.options import from_environment

DESCRIPTION = (
    "Exports a checkpoint as a model that runs without Python; compares it with the trained\n"
    "model first and publishes nothing if they differ. A match model becomes user/ and item/."
)
EXAMPLES = """\
  tzrec export run/pipeline.config --export-dir run/export
  tzrec export run/pipeline.config --export-dir best --checkpoint-path best
  tzrec export run/pipeline.config --export-dir run/export --quantize INT8
  tzrec export run/pipeline.config --export-dir s3://bucket/model --target aoti
  tzrec export run/pipeline.config --export-dir run/export --asset-files vocab.txt,notes.txt"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``tzrec export``."""
    add_config(parser)
    parser.add_argument(
        "--export-dir", metavar="DIR", required=True, help="new directory, local or s3://…"
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
    _add_options(parser)
    add_edits(parser)


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `ExportOptions`; they win over the environment."""
    types = ", ".join(TABLE_TYPES)
    parser.add_argument(
        "--target", choices=TARGETS, help="what runs the model (default: torchscript)"
    )
    parser.add_argument(
        "--quantize",
        metavar="TYPE",
        help=f"rows of pooled tables as {types} (default: as trained, FP32)",
    )
    parser.add_argument(
        "--quantize-sequence", metavar="TYPE", help="the same for tables of sequence groups"
    )
    parser.add_argument(
        "--input-tile",
        type=int,
        choices=INPUT_TILES,
        help="user features once a request: 2 repeats ids, 3 repeats vectors (default: 0, off)",
    )
    parser.add_argument(
        "--max-batch-size", type=at_least(1), metavar="N", help="most rows of the sample batch"
    )
    parser.add_argument(
        "--autotune", action="store_true", default=None, help="time kernels of a compiled model"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help="largest difference to the trained model (default: 1e-6; more with narrow types)",
    )


def check_options(asked: Asked | None = None, defaults: Asked | None = None) -> None:
    """Checks flags and environment before torch is imported.

    Raises:
        ConfigError: an option has a value that it cannot have.
        Unsupported: the environment asks for an export that this version does not have.
    """
    environment = from_environment()
    refuse_later(environment.no_effect)
    resolve(asked, environment.export, defaults=defaults)


def run(args: argparse.Namespace) -> int:
    """Exports."""
    path = config_of(args, "export")
    asked = Asked(
        target=args.target,
        quantisation=args.quantize,
        sequence_quantisation=args.quantize_sequence,
        input_tile=args.input_tile,
        max_batch_size=args.max_batch_size,
        autotune=args.autotune,
        tolerance=args.tolerance,
    )
    start()
    check_options(asked)
    check_early(path, edits=args.edits)
    with importing():
        from tzrec.main import export

    export(
        path,
        args.export_dir,
        checkpoint_path=args.checkpoint_path,
        asset_files=args.asset_files,
        additional_export_config=args.additional_export_config,
        item_input_path=args.item_input_path,
        edits=args.edits,
        asked=asked,
    )
    return 0
