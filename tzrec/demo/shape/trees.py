"""The tree of items that ``tdm_sampler`` draws from, over generated items."""

from __future__ import annotations

import dataclasses
import posixpath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tzrec.config.feature_facts import flatten
from tzrec.config.sampler_facts import columns_of, sampler_of
from tzrec.demo.shape.roles import TREE_LEVEL
from tzrec.demo.shape.shape import Shape
from tzrec.demo.shape.world import Size
from tzrec.errors import ConfigError
from tzrec.protos.data_pb2 import FG_BUCKETIZE, FG_NONE
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.retrieval.tree_build import Items, build_tree
from tzrec.retrieval.tree_codes import depth_of, first_code, leaf_codes
from tzrec.retrieval.tree_files import EDGE_TABLE, NODE_TABLE, PREDICT_EDGE_TABLE, write_tree

# Field of the sampler → its file.
TREE_FILES = {
    "item_input_path": NODE_TABLE,
    "edge_input_path": EDGE_TABLE,
    "predict_edge_input_path": PREDICT_EDGE_TABLE,
}
# A directory beside them, with the attributes of all nodes.
NODE_FEATURES = "node_feature"
_MOST_CHILDREN = 16
_PLENTY = 2**40


def has_tree(config: EasyRecConfig) -> bool:
    """Returns whether a config's sampler draws from a tree."""
    sampler = sampler_of(config.data_config)
    return sampler is not None and sampler.is_tree


def fit(config: EasyRecConfig, size: Size) -> Size:
    """Returns as many items as a tree with a level for each ``layer_num_sample`` holds.

    Args:
        config: a checked config with a tree.
        size: items at most.

    Raises:
        ConfigError: there are too few items, or ids, for so many levels.
    """
    return dataclasses.replace(size, items=_fit(config, size.items)[0])


def _fit(config: EasyRecConfig, items: int) -> tuple[int, int]:
    """Returns how many items there are, and how many children a node has."""
    depth = max(len(config.data_config.tdm_sampler.layer_num_sample) - 1, 1)
    num_ids, found = _num_ids(config), []
    for branching in range(2, _MOST_CHILDREN + 1):
        count = min(items, branching**depth, num_ids - first_code(depth, branching))
        if count > 0 and depth_of(count, branching) == depth:
            found.append((count, branching))
    if not found:
        raise ConfigError(
            f"layer_num_sample has {depth + 1} levels: their tree needs more than "
            f"{2 ** (depth - 1)} items and {2**depth + 2 ** (depth - 1)} ids, there are {items} "
            f"items and {num_ids} ids",
            hint="give --items, or a shorter layer_num_sample",
        )
    # The most items, of as many the fewest children.
    return max(found, key=lambda pair: (pair[0], -pair[1]))


def _num_ids(config: EasyRecConfig) -> int:
    """Returns how many ids there are for items and the nodes above them."""
    by_name = config.data_config.fg_mode in (FG_NONE, FG_BUCKETIZE)
    name = config.data_config.tdm_sampler.item_id_field
    readers = [f for f in flatten(config) if name in columns_of(f, by_name=by_name)]
    sizes = [int(getattr(f.config, "num_buckets", 0)) for f in readers]
    return min((size for size in sizes if size), default=_PLENTY)


def write_tables(config: EasyRecConfig, shape: Shape, folder: str) -> dict[str, tuple[str, int]]:
    """Writes the tables of a tree in which items of a kind are neighbours.

    Args:
        config: a checked config with a tree.
        shape: its rows.
        folder: gets the files.

    Returns:
        Field of the sampler → path, and rows but the header.
    """
    assert shape.world is not None
    sampler, columns = config.data_config.tdm_sampler, shape.item_columns()
    ids = columns[shape.world.roles.item_id]
    names = [n for n in sampler.attr_fields if n not in (sampler.item_id_field, TREE_LEVEL)]
    # A name that is no column has its place all the same.
    columns |= {n: pa.nulls(len(ids), pa.string()) for n in names if n not in columns}
    keys = {"id": ids} | ({"kind": columns[names[0]]} if names else {})
    sort_keys = [(name, "ascending") for name in reversed(keys)]
    order = pc.sort_indices(pa.table(keys), sort_keys=sort_keys).to_numpy()
    branching = _fit(config, len(ids))[1]
    codes = np.empty(len(ids), np.int64)
    codes[order] = leaf_codes(len(ids), branching)
    tree = build_tree(Items(ids, {name: columns[name] for name in names}, {}), codes, branching)
    write_tree(
        tree, folder, item_id_field=sampler.item_id_field, attr_delimiter=sampler.attr_delimiter
    )
    leaves, nodes = tree.num_leaves, len(tree.codes)
    rows = {
        NODE_TABLE: nodes + 1,
        EDGE_TABLE: leaves * max(tree.num_levels - 2, 0),
        PREDICT_EDGE_TABLE: nodes,
    }
    return {field: (posixpath.join(folder, name), rows[name]) for field, name in TREE_FILES.items()}
