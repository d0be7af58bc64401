"""``python -m tzrec.tools.tdm.init_tree``: a first item tree, in the order of category and id."""

from __future__ import annotations

import argparse
import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tzrec.errors import DataError
from tzrec.retrieval.tree_codes import leaf_codes
from tzrec.tools.tdm import tree_tool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the interface."""
    tree_tool.add_arguments(parser)
    parser.add_argument(
        "--cate_id_field",
        metavar="NAME",
        help="column with the category: its items are neighbours (default: in the order of ids)",
    )


def run(args: argparse.Namespace) -> None:
    """Writes the tables of a tree whose leaves are in the order of category and id.

    Args:
        args: as `add_arguments` describes them.

    Raises:
        ConfigError: a flag has a value that it cannot have.
        DataError: the item table lacks a column, has an item twice, an id is missing, or an item
            has several categories.
    """
    tree_tool.check_arguments(args)
    more = [args.cate_id_field] if args.cate_id_field else []
    items, table = tree_tool.read_items(args, more)
    columns = {"id": items.ids}
    keys = [("id", "ascending")]
    if args.cate_id_field:
        category = table[args.cate_id_field]
        if pa.types.is_nested(category.type):
            raise DataError(
                f"category {args.cate_id_field!r} has type {category.type}, not one value an item"
            )
        columns["category"] = category
        keys.insert(0, ("category", "ascending"))
    order = pc.sort_indices(pa.table(columns), sort_keys=keys).to_numpy()
    codes = np.empty(len(order), np.int64)
    codes[order] = leaf_codes(len(order), args.n_cluster)
    tree_tool.write(args, items, codes)


def main(argv: list[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; None takes those of the process.

    Returns:
        The exit code.
    """
    # The layer of commands stands above the tools.
    from tzrec.cli.job import tool_command

    return tool_command("tzrec.tools.tdm.init_tree", __doc__, add_arguments, run, argv)


if __name__ == "__main__":
    sys.exit(main())
