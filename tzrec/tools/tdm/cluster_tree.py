"""``python -m tzrec.tools.tdm.cluster_tree``: an item tree by the vectors of a trained model."""

from __future__ import annotations

import argparse
import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tzrec.errors import ConfigError, DataError
from tzrec.retrieval.tree_cluster import cluster_codes
from tzrec.tools.tdm import tree_tool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the interface."""
    tree_tool.add_arguments(parser)
    parser.add_argument(
        "--embedding_field",
        default="item_emb",
        metavar="NAME",
        help="column with the vector of an item: a list, or text (default item_emb)",
    )
    parser.add_argument(
        "--parallel", type=int, default=16, metavar="N", help="threads (default 16)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the clustering")


def run(args: argparse.Namespace) -> None:
    """Writes the tables of a tree whose nodes hold items with similar vectors.

    Args:
        args: as `add_arguments` describes them.

    Raises:
        ConfigError: a flag has a value that it cannot have.
        DataError: the item table lacks a column, has an item twice, or a vector is wrong.
    """
    tree_tool.check_arguments(args)
    if args.parallel < 1:
        raise ConfigError(f"--parallel {args.parallel} is not at least 1")
    items, table = tree_tool.read_items(args, [args.embedding_field])
    vectors = vectors_of(table[args.embedding_field], args.embedding_field)
    codes = cluster_codes(vectors, args.n_cluster, seed=args.seed, threads=args.parallel)
    tree_tool.write(args, items, codes)


def vectors_of(column: pa.ChunkedArray, name: str) -> NDArray[np.float32]:
    """Returns the vectors (N, D) of a column of lists, or of text such as ``[0.1, 0.2]``.

    Raises:
        DataError: a vector is missing, has another length than the first one, or is no list of
            numbers.
    """
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        column = pc.split_pattern(pc.utf8_trim(column, " []()"), ",")
    elif not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        raise DataError(f"column {name!r} has type {kind}, not a list of numbers or text")
    lengths = pc.list_value_length(column).fill_null(0).to_numpy()
    wrong = np.flatnonzero(lengths != lengths[0])
    if len(wrong) or not lengths[0]:
        row = int(wrong[0]) if len(wrong) else 0
        raise DataError(
            f"row {row} (counted from 0) of column {name!r} has {lengths[row]} numbers, "
            f"row 0 has {lengths[0]}"
        )
    flat = pc.list_flatten(column)
    if pa.types.is_string(flat.type) or pa.types.is_large_string(flat.type):
        flat = pc.utf8_trim_whitespace(flat)
    try:
        values = flat.cast(pa.float32(), safe=False).fill_null(np.nan).to_numpy()
    except pa.ArrowException as error:
        raise DataError(f"column {name!r} holds what is no number: {error}") from error
    vectors: NDArray[np.float32] = np.ascontiguousarray(values.reshape(len(column), -1))
    return vectors


def main(argv: list[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; None takes those of the process.

    Returns:
        The exit code.
    """
    # The layer of commands stands above the tools.
    from tzrec.cli.job import tool_command

    return tool_command("tzrec.tools.tdm.cluster_tree", __doc__, add_arguments, run, argv)


if __name__ == "__main__":
    sys.exit(main())
