"""What both tools that make a tree have in common: their flags, the items, the files."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from tzrec.datasets.formats import create_reader
from tzrec.errors import ConfigError, DataError, Unsupported
from tzrec.options import from_environment
from tzrec.retrieval.tree_build import Items, Tree, build_tree, check_branching
from tzrec.retrieval.tree_codes import Ints
from tzrec.retrieval.tree_files import (
    EDGE_TABLE,
    NODE_TABLE,
    PREDICT_EDGE_TABLE,
    write_serving_tree,
    write_tree,
)

logger = logging.getLogger("tzrec")

_RESERVED = "tree_level"
# Negatives that the printed sampler draws on a level, at most.
_MOST_NEGATIVES = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that both tools have."""
    parser.add_argument(
        "--item_input_path", required=True, metavar="PATH", help="table with a row per item"
    )
    parser.add_argument("--item_id_field", required=True, metavar="NAME", help="its id column")
    parser.add_argument(
        "--attr_fields", metavar="NAMES", help="attributes (comma list), without the item id"
    )
    parser.add_argument(
        "--raw_attr_fields", metavar="NAMES", help="numeric attributes, whose mean counts"
    )
    parser.add_argument(
        "--attr_delimiter",
        default=",",
        metavar="TEXT",
        help="between the attributes in the node table (default ,); write the same as "
        "attr_delimiter of tdm_sampler, whose default is :",
    )
    parser.add_argument(
        "--node_edge_output_file", metavar="DIR", help="gets node and edge tables and node_feature"
    )
    parser.add_argument("--tree_output_dir", metavar="DIR", help="gets serving_tree")
    parser.add_argument(
        "--n_cluster", type=int, default=2, metavar="N", help="children of a node (default 2)"
    )
    parser.add_argument(
        "--string_ids",
        action="store_true",
        help="ids are text of any form, also where they look like numbers (as tdm_sampler's "
        "string_ids)",
    )
    parser.add_argument("--reader_type", metavar="TYPE", help="CsvReader or ParquetReader")
    parser.add_argument("--odps_data_quota_name", help=argparse.SUPPRESS)


def check_arguments(args: argparse.Namespace) -> None:
    """Checks the flags before anything is read.

    Raises:
        ConfigError: a flag has a value that it cannot have, or nothing would be written.
        Unsupported: tables of MaxCompute.
    """
    check_branching(args.n_cluster)
    if not args.node_edge_output_file and not args.tree_output_dir:
        raise ConfigError(
            "nothing would be written",
            hint="give --node_edge_output_file, a directory for the tables of tdm_sampler",
        )
    for name in ("node_edge_output_file", "tree_output_dir"):
        if (getattr(args, name) or "").startswith("odps://"):
            raise Unsupported(f"--{name}: tables of MaxCompute are not supported yet")
    names = [*names_of(args.attr_fields), *names_of(args.raw_attr_fields)]
    for name in names:
        if name in (args.item_id_field, _RESERVED):
            raise ConfigError(
                f"{name!r} is no attribute: the tables have it anyway", hint="leave it out"
            )
        if names.count(name) > 1:
            raise ConfigError(f"attribute {name!r} is named twice")


def names_of(text: str | None) -> list[str]:
    """Returns the names of a comma list."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def read_items(args: argparse.Namespace, more: Sequence[str] = ()) -> tuple[Items, pa.Table]:
    """Reads the items.

    Args:
        args: the flags.
        more: further columns.

    Returns:
        The items, and all columns that were read.

    Raises:
        DataError: a column is missing, or an id is.
    """
    attrs, raw = names_of(args.attr_fields), names_of(args.raw_attr_fields)
    wanted = list(dict.fromkeys([args.item_id_field, *attrs, *raw, *more]))
    reader = create_reader(args.item_input_path, wanted, reader_type=args.reader_type)
    table = pa.Table.from_batches(reader.to_batches(), reader.schema).combine_chunks()
    columns = {name: _whole(table[name]) for name in wanted}
    ids = columns[args.item_id_field]
    if args.string_ids or from_environment().string_ids:
        ids = ids.cast(pa.string())
    elif not pa.types.is_integer(ids.type) and not pa.types.is_string(ids.type):
        raise DataError(f"item id {args.item_id_field!r} has type {ids.type}, not int64 or string")
    if pa.types.is_integer(ids.type):
        ids = ids.cast(pa.int64())
    items = Items(ids, {n: columns[n] for n in attrs}, {n: columns[n] for n in raw})
    items.check()
    return items, table


def _whole(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return combined.chunk(0) if isinstance(combined, pa.ChunkedArray) else combined


def write(args: argparse.Namespace, items: Items, codes: Ints) -> Tree:
    """Builds the tree above the leaves, writes the files, and says how to train on them.

    Returns:
        The tree.
    """
    tree = build_tree(items, codes, args.n_cluster)
    sizes = [int(size) for size in np.diff(tree.level_starts)]
    logger.info(
        "tree of %d items: %d levels with %s nodes",
        tree.num_leaves,
        tree.num_levels,
        ", ".join(map(str, sizes)),
    )
    if args.node_edge_output_file:
        directory = args.node_edge_output_file.rstrip("/") or "/"
        write_tree(
            tree, directory, item_id_field=args.item_id_field, attr_delimiter=args.attr_delimiter
        )
        logger.info("wrote %s; for training:\n%s", directory, _sampler_text(args, tree, sizes))
    if args.tree_output_dir:
        write_serving_tree(tree, args.tree_output_dir.rstrip("/") or "/")
        logger.info("wrote %s/serving_tree", args.tree_output_dir.rstrip("/"))
    return tree


def _sampler_text(args: argparse.Namespace, tree: Tree, sizes: list[int]) -> str:
    """Returns a ``tdm_sampler`` that reads the tables."""
    directory = args.node_edge_output_file.rstrip("/")
    names = [*names_of(args.attr_fields), *names_of(args.raw_attr_fields)]
    # About twice as many on each level, as long as there are so many.
    counts = [0]
    for level, size in enumerate(sizes[1:], 1):
        counts.append(min(size - 1, 2 * level, _MOST_NEGATIVES))
    lines = [
        "tdm_sampler {",
        f'  item_input_path: "{directory}/{NODE_TABLE}"',
        f'  edge_input_path: "{directory}/{EDGE_TABLE}"',
        f'  predict_edge_input_path: "{directory}/{PREDICT_EDGE_TABLE}"',
        f'  item_id_field: "{args.item_id_field}"',
        f"  attr_fields: [{', '.join(repr(name) for name in [args.item_id_field, *names])}]",
        f"  attr_delimiter: {args.attr_delimiter!r}",
        f"  layer_num_sample: {counts}",
    ]
    if not pa.types.is_integer(tree.nodes.ids.type):
        lines.append("  string_ids: true")
    return "\n".join([*lines, "}"])
