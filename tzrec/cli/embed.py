"""``tzrec embed``."""

from __future__ import annotations

import argparse
from pathlib import Path

from tzrec.cli.job import check_early, start
from tzrec.cli.parser import add_checkpoint, add_edits, at_least

DESCRIPTION = (
    "Writes the vector of every row of a table, with its id, by one tower of a match model\n"
    "(or of TDM: --tower item). MODEL is an export, or the config or the directory of a run."
)
EXAMPLES = """\
  tzrec embed run/export --tower item --input items.parquet --out run/items
  tzrec embed run/export --tower user --input users.parquet --out run/users --id-field user_id
  tzrec embed run --tower item --input items.parquet --out run/items --checkpoint best"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``tzrec embed``."""
    parser.add_argument("model", metavar="MODEL", help="export, config, or model_dir")
    parser.add_argument("--tower", required=True, choices=("user", "item"), help="which tower")
    parser.add_argument(
        "--input", required=True, metavar="FILES", help="rows (comma list of globs)"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="directory for part-0.parquet")
    parser.add_argument(
        "--id-field", metavar="NAME", help="column of ids (default: that of the config's sampler)"
    )
    parser.add_argument(
        "--reserved-columns", metavar="NAMES", help="further columns to keep (comma list)"
    )
    parser.add_argument("--batch-size", type=at_least(1), metavar="N", help="rows per batch")
    parser.add_argument(
        "--dataset-type", metavar="TYPE", help="ParquetDataset or CsvDataset (default: by name)"
    )
    parser.add_argument(
        "--writer-type", metavar="TYPE", help="ParquetWriter (the default) or CsvWriter"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the part files of DIR")
    add_checkpoint(parser)
    add_edits(parser)


def run(args: argparse.Namespace) -> int:
    """Embeds."""
    start()
    if Path(args.model).is_file():
        check_early(args.model, edits=args.edits, for_serving=True)
    from tzrec.retrieval.embed import embed

    embed(
        args.model,
        args.tower,
        args.input,
        args.out,
        id_field=args.id_field,
        reserved_columns=args.reserved_columns,
        batch_size=args.batch_size,
        dataset_type=args.dataset_type,
        writer_type=args.writer_type,
        checkpoint_path=args.checkpoint_path,
        edits=args.edits,
        overwrite=args.overwrite,
    )
    return 0
