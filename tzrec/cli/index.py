"""``tzrec index``."""

from __future__ import annotations

import argparse

from tzrec.cli.console import UsageError
from tzrec.cli.job import start
from tzrec.cli.parser import at_least

DESCRIPTION = (
    "Makes an index of item vectors. SOURCE is an exported match model, whose item tower\n"
    "embeds the table --items: the result also has the user tower, and is what\n"
    "tzrec.retrieval.Retriever loads. Or SOURCE is a table of vectors (tzrec embed)."
)
EXAMPLES = """\
  tzrec index run/export --items items.parquet --out run/retriever
  tzrec index run/export --items items.parquet --out run/retriever --type hnsw
  tzrec index run/items --out run/index --type flat
  tzrec index run/items --out run/retriever --user-tower run/export"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``tzrec index``."""
    parser.add_argument("source", metavar="SOURCE", help="export, or table of vectors")
    parser.add_argument("--out", required=True, metavar="DIR", help="new directory for the index")
    parser.add_argument("--items", metavar="FILES", help="with an export: rows of the items")
    parser.add_argument(
        "--user-tower", metavar="DIR", help="with a table: export to take the user tower of"
    )
    parser.add_argument("--id-field", metavar="NAME", help="column of ids, if that is not clear")
    parser.add_argument(
        "--vector-field", metavar="NAME", help="column of vectors, if that is not clear"
    )
    parser.add_argument("--batch-size", type=at_least(1), metavar="N", help="rows per batch")
    parser.add_argument(
        "--type",
        default="auto",
        choices=("auto", "flat", "ivf", "hnsw"),
        help="flat: exact; ivf, hnsw: approximate, for many items (default: by their number)",
    )
    parser.add_argument(
        "--metric",
        choices=("ip", "l2"),
        help="inner product or Euclidean distance (default: as the model, ip for a table)",
    )
    parser.add_argument(
        "--recall",
        type=float,
        default=0.99,
        metavar="R",
        help="share of the exact best 100 that ivf and hnsw shall find (default: %(default)s)",
    )
    for flag, least, what in (
        ("--nlist", 0, "ivf: lists (default: 4·√items)"),
        ("--nprobe", 0, "ivf: lists that a search looks into (default: as --recall needs)"),
        ("--ef-search", 0, "hnsw: candidates of a search (default: as --recall needs)"),
    ):
        parser.add_argument(flag, type=at_least(least), default=0, metavar="N", help=what)
    parser.add_argument(
        "--hnsw-m", type=at_least(2), default=32, metavar="N", help="hnsw: links (32)"
    )
    parser.add_argument(
        "--ef-construction",
        type=at_least(1),
        default=200,
        metavar="N",
        help="hnsw: candidates while building (200)",
    )


def run(args: argparse.Namespace) -> int:
    """Builds and writes the index."""
    wrong = ("user_tower", "vector_field") if args.items else ("batch_size",)
    for name in wrong:
        if getattr(args, name):
            flag = "--" + name.replace("_", "-")
            raise UsageError(
                f"tzrec index: {flag} is for {'a table of vectors' if args.items else '--items'}"
            )
    start()
    from tzrec.deploy.artefact import found_parts
    from tzrec.retrieval.build import index_export, index_vectors
    from tzrec.retrieval.index_info import IndexOptions

    options = IndexOptions(
        type=args.type,
        nlist=args.nlist,
        nprobe=args.nprobe,
        hnsw_m=args.hnsw_m,
        ef_construction=args.ef_construction,
        ef_search=args.ef_search,
        recall=args.recall,
    )
    if args.items:
        index_export(
            args.source,
            args.items,
            args.out,
            options,
            metric=args.metric,
            id_field=args.id_field,
            batch_size=args.batch_size,
        )
        return 0
    if "://" not in args.source and found_parts(args.source):
        raise UsageError(
            f"tzrec index: {args.source} is an export: which items?",
            hint="give the table of the items with --items",
        )
    index_vectors(
        args.source,
        args.out,
        options,
        metric=args.metric,
        id_field=args.id_field,
        vector_field=args.vector_field,
        user_tower=args.user_tower,
    )
    return 0
