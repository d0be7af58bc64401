"""``tzrec hitrate``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tzrec.cli.console import UsageError
from tzrec.cli.job import start
from tzrec.cli.retrieve import add_query_arguments

DESCRIPTION = (
    "Measures what users get against what they took: recall, NDCG, hit rate, MRR, precision\n"
    "and coverage at several K. All items of the index compete, none is sampled."
)
EXAMPLES = """\
  tzrec hitrate run/retriever --input test.parquet --k 10,50,100
  tzrec hitrate run/retriever --input test.parquet --seen train.parquet --by-user
  tzrec hitrate run/retriever --input test.parquet --exact --out result.json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``tzrec hitrate``."""
    add_query_arguments(parser)
    parser.add_argument(
        "--k",
        type=_numbers,
        default=[10, 20, 50, 100],
        metavar="K,...",
        help="list lengths (10,20,50,100)",
    )
    parser.add_argument(
        "--by-user",
        action="store_true",
        help="rows of one user are one query with all their items (default: each row is one)",
    )
    parser.add_argument("--out", metavar="FILE", help="write the metrics as JSON too")


def _numbers(text: str) -> list[int]:
    try:
        found = [int(word) for word in text.split(",") if word.strip()]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers of at least 1")
    return found


def run(args: argparse.Namespace) -> int:
    """Measures and prints."""
    if args.out and not Path(args.out).absolute().parent.is_dir():
        raise UsageError(f"tzrec hitrate: --out {args.out}: there is no such directory")
    if start().world_size > 1:
        raise UsageError("tzrec hitrate runs in one process", hint="start it without torchrun")
    from tzrec.retrieval.measure import EvaluationOptions, evaluate_table
    from tzrec.retrieval.queries import QueryTable
    from tzrec.retrieval.retriever import Retriever
    from tzrec.retrieval.seen import SeenOptions

    retriever = Retriever.load(args.retriever)
    result = evaluate_table(
        retriever,
        QueryTable(args.input, args.vector_field, args.batch_size),
        EvaluationOptions(args.item_field, args.by_user, args.k, is_exact=args.exact),
        seen=SeenOptions(args.seen, args.seen_column, args.user_field, args.item_field),
    )
    skipped = f", {result.num_skipped:,} without a right item" if result.num_skipped else ""
    print(f"{result.num_queries:,} queries{skipped}, {result.num_items:,} items")
    print(f"{retriever.index.info}{' (searched exactly)' if args.exact else ''}")
    print(result.table())
    if args.out:
        body = {
            "num_queries": result.num_queries,
            "num_skipped": result.num_skipped,
            "num_items": result.num_items,
            "metrics": result.metrics,
        }
        Path(args.out).write_text(json.dumps(body, indent=2) + "\n")
    return 0
