"""``tzrec retrieve``."""

from __future__ import annotations

import argparse

from tzrec.cli.console import UsageError
from tzrec.cli.job import start
from tzrec.cli.parser import at_least

DESCRIPTION = (
    "Finds the best items for every row of a table of users, best first: columns item_ids and\n"
    "scores. RETRIEVER is what `tzrec index` made; without a user tower in it the table holds\n"
    "vectors of users."
)
EXAMPLES = """\
  tzrec retrieve run/retriever --input users.parquet --out run/found --k 100
  tzrec retrieve run/retriever --input users.parquet --out run/found --seen train.parquet
  tzrec retrieve run/index --input run/users --out run/found --reserved-columns user_id"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``tzrec retrieve``."""
    add_query_arguments(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="directory for part-0.parquet")
    parser.add_argument(
        "--k", type=at_least(1), default=100, metavar="K", help="items a user (%(default)s)"
    )
    parser.add_argument(
        "--reserved-columns", metavar="NAMES", help="columns to keep (default: the user ids)"
    )
    parser.add_argument(
        "--writer-type", metavar="TYPE", help="ParquetWriter (the default) or CsvWriter"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the part files of DIR")


def add_query_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags about users and what they have seen."""
    parser.add_argument("retriever", metavar="RETRIEVER", help="directory of `tzrec index`")
    parser.add_argument(
        "--input", required=True, metavar="FILES", help="users (comma list of globs)"
    )
    parser.add_argument(
        "--vector-field", metavar="NAME", help="column of vectors (default: use the user tower)"
    )
    parser.add_argument(
        "--seen", default="", metavar="FILES", help="log whose items a user must not get again"
    )
    parser.add_argument(
        "--seen-column", default="", metavar="NAME", help="column of --input with such items"
    )
    parser.add_argument(
        "--user-field", metavar="NAME", help="column of user ids (default: that of the sampler)"
    )
    parser.add_argument(
        "--item-field", metavar="NAME", help="column of item ids (default: as in the index)"
    )
    parser.add_argument("--batch-size", type=at_least(1), metavar="N", help="rows per batch")
    parser.add_argument(
        "--exact", action="store_true", help="compare with every item, whatever the index"
    )


def run(args: argparse.Namespace) -> int:
    """Retrieves."""
    if args.item_field and not args.seen:
        raise UsageError("tzrec retrieve: --item-field is for --seen")
    start()
    from tzrec.retrieval.queries import QueryTable
    from tzrec.retrieval.retrieve import retrieve_table
    from tzrec.retrieval.retriever import Retriever
    from tzrec.retrieval.seen import SeenOptions

    retrieve_table(
        Retriever.load(args.retriever),
        QueryTable(args.input, args.vector_field, args.batch_size),
        args.out,
        k=args.k,
        seen=SeenOptions(args.seen, args.seen_column, args.user_field, args.item_field),
        reserved_columns=args.reserved_columns,
        writer_type=args.writer_type,
        is_exact=args.exact,
        overwrite=args.overwrite,
    )
    return 0
