"""``TDMSampler``: the ancestors of a row's leaf, and other nodes of their levels."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tzrec.datasets.samplers.attributes import Attributes
from tzrec.datasets.samplers.base import BaseSampler
from tzrec.datasets.samplers.ids import ids_of
from tzrec.datasets.samplers.memory import SharedArrays
from tzrec.datasets.samplers.tables import TableOptions, open_edges, open_nodes
from tzrec.datasets.samplers.tdm_join import TreeRows
from tzrec.datasets.samplers.tdm_tree import (
    TREE_LEVEL,
    TreeNodes,
    ancestors_of_leaves,
    build_nodes,
    read_edges,
    tree_attributes,
)
from tzrec.errors import ConfigError, DataError, at

logger = logging.getLogger("tzrec")

_PATH = "data_config.tdm_sampler"


class TDMSampler(BaseSampler):
    """Draws the nodes of an item tree that a batch is trained on.

    Positives of a row are the ancestors of its item's leaf on the levels 1 … L - 2, from the top
    down; negatives are ``layer_num_sample[l]`` nodes of each level from 1 on, drawn by weight one
    after the other without replacement, none of them the row's own. ``remain_ratio`` keeps some of
    the middle levels of each batch, the same for all rows, and always that of the leaves.
    """

    def _build(self, arrays: SharedArrays) -> None:
        started = time.monotonic()
        attributes = self._attributes()
        for name in attributes.unknown:
            if name != self.item_id_field:
                logger.warning("attr_fields: %r is no input column; it is not used", name)
        config, options = self.config, self._table_options()
        with at(f"{_PATH}.item_input_path"):
            table = open_nodes(
                config.item_input_path, self.item_id_field, options, attributes=attributes.types
            )
            build_nodes(arrays, table, attributes, string_ids=self.string_ids)
        nodes = TreeNodes(arrays, attributes)
        with at(f"{_PATH}.layer_num_sample"):
            self._check_counts(nodes)
        with at(f"{_PATH}.edge_input_path"):
            self._build_ancestors(arrays, nodes, options)
        self._build_alias(arrays, nodes)
        logger.info(
            "%s: %s items, %d levels, %.0f MB, built in %.1f s",
            type(self).__name__,
            f"{nodes.sizes()[-1]:,}",
            nodes.num_levels,
            arrays.nbytes / 1e6,
            time.monotonic() - started,
        )

    def _check_counts(self, nodes: TreeNodes) -> None:
        """Checks that every level has as many nodes as are drawn of it."""
        counts, sizes = list(self.config.layer_num_sample), nodes.sizes()
        if len(counts) != len(sizes):
            raise ConfigError(
                f"has {len(counts)} numbers, the tree has {len(sizes)} levels with "
                f"{', '.join(map(str, sizes))} nodes",
                hint="one number for each level, the first one 0",
            )
        weighty = nodes.items.probabilities()[nodes.order] > 0
        able = np.add.reduceat(weighty, nodes.starts[:-1], dtype=np.int64).tolist()
        for level, (count, most) in enumerate(zip(counts, able, strict=True)):
            if level and count > most - 1:
                raise ConfigError(
                    f"asks for {count} nodes of level {level}, which has {most} that can be drawn "
                    "with the row's own",
                    hint=f"at most {[0, *(max(number - 1, 0) for number in able[1:])]}",
                )

    def _build_ancestors(
        self, arrays: SharedArrays, nodes: TreeNodes, options: TableOptions
    ) -> None:
        leaves = above = np.empty(0, np.int32)
        if nodes.num_levels > 2:
            table = open_edges(self.config.edge_input_path, "src_id", "dst_id", options)
            leaves, above = read_edges(arrays, table, "ancestor", string_ids=self.string_ids)
        ancestors = ancestors_of_leaves(nodes, leaves, above)
        arrays.put("tree.ancestors", ancestors.ravel())

    def _build_alias(self, arrays: SharedArrays, nodes: TreeNodes) -> None:
        """Shares the weights and an alias table of each level, unless all weigh the same."""
        from tzrec.datasets.samplers.kernels import build_alias

        if not len(nodes.items.cells):
            return
        weights = nodes.items.probabilities()[nodes.order]
        cells = arrays.allocate("tree.cells", len(weights), np.uint64)
        for start, stop in zip(nodes.starts[:-1], nodes.starts[1:], strict=True):
            total = float(weights[start:stop].sum())
            if total > 0:
                build_alias(weights[start:stop], total, cells[start:stop])
        arrays.put("tree.weights", weights)

    def _open(self, arrays: SharedArrays) -> None:
        super()._open(arrays)
        self._nodes = TreeNodes(arrays, self._attributes())
        self._weighted = "tree.cells" in arrays
        height = max(self._nodes.num_levels - 2, 0)
        self._ancestors = arrays["tree.ancestors"].reshape(self._nodes.sizes()[-1], height)

    def estimated_sample_num(self, batch_size: int) -> int:
        """Returns how many rows are added to a batch."""
        counts = self.config.layer_num_sample
        return (sum(counts) + max(len(counts) - 2, 0)) * batch_size

    def get(self, columns: Mapping[str, pa.Array], rng: np.random.Generator) -> TreeRows:
        """Returns the ancestors of each row's leaf, and its negatives; see `BaseSampler.get`.

        Raises:
            DataError: a row's item is missing, or no leaf of the tree.
        """
        leaves = self._leaves(columns)
        levels = self._levels(rng)
        seed = int(rng.integers(0, 2**64, dtype=np.uint64))
        kept = levels[:-1] - 1
        rows = self._nodes.numbers[leaves]
        # A tree of two levels has no ancestors but the root.
        above = self._ancestors[rows[:, None], kept]
        own = np.concatenate([above, leaves[:, None]], axis=1)
        drawn = self._draw(own, levels, seed)
        places = np.concatenate([above.ravel(), drawn.ravel()])
        attributes = self._nodes.items.take(places)
        if TREE_LEVEL not in self.fields:
            del attributes[TREE_LEVEL]
        return TreeRows(attributes, len(leaves), len(kept), drawn.shape[1])

    def _leaves(self, columns: Mapping[str, pa.Array]) -> NDArray[np.int32]:
        """Returns the place of each row's leaf."""
        name = self.item_id_field
        if name not in columns:
            raise DataError(f"the sampler's column {name!r} is not in the batch")
        column = columns[name]
        if column.null_count:
            row = pc.index(column.is_null(), True).as_py()
            raise DataError(f"row {row} of the batch: {name!r} is empty, so it is no leaf")
        leaves = self._nodes.items.ids.find(ids_of(column, name, string_ids=self.string_ids))
        last = self._nodes.num_levels - 1
        wrong = (leaves < 0) | (self._nodes.levels[leaves] != last)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise DataError(
                f"row {row} of the batch: item {column[row].as_py()!r} is no leaf of the tree",
                hint="build the tree of all items that the data has, or leave these rows out",
            )
        return leaves

    def _levels(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Returns the levels of a batch: the middle ones that are kept, and the leaves'."""
        middle = max(self._nodes.num_levels - 2, 0)
        kept = np.arange(1, middle + 1)
        number = round(self.config.remain_ratio * middle)
        if number < middle:
            odds = _ODDS[self.config.probability_type](kept)
            kept = np.sort(rng.choice(kept, number, replace=False, p=odds / odds.sum()))
        return np.append(kept, self._nodes.num_levels - 1).astype(np.int64)

    def _draw(
        self, own: NDArray[np.int32], levels: NDArray[np.int64], seed: int
    ) -> NDArray[np.int32]:
        """Returns the places (B, N) of each row's negatives, level by level.

        Args:
            own: (B, K) places of the row's own nodes.
            levels: (K,) their levels.
            seed: of the draws.
        """
        from tzrec.datasets.samplers.tdm_kernels import draw_nodes

        counts = np.array([self.config.layer_num_sample[level] for level in levels], np.int64)
        out = np.empty((len(own), int(counts.sum())), np.int32)
        cells = self.arrays["tree.cells"] if self._weighted else np.empty(0, np.uint64)
        weights = self.arrays["tree.weights"] if self._weighted else np.empty(0, np.float64)
        nodes = self._nodes
        numbers = np.ascontiguousarray(self._nodes.numbers[own]).ravel()
        draw_nodes(cells, weights, nodes.starts, levels, counts, numbers, seed, out.ravel())
        places: NDArray[np.int32] = nodes.order[out + nodes.starts[levels].repeat(counts)]
        return places

    def _attributes(self) -> Attributes:
        return tree_attributes(
            self.attr_fields, self.item_id_field, self.fields, self.config.attr_delimiter
        )

    def _table_options(self) -> TableOptions:
        return TableOptions(
            self.config.field_delimiter or None, self.string_ids, self.config.weight_field or None
        )


# Odds of the middle levels 1 … n to be kept.
_ODDS = {
    "UNIFORM": lambda levels: np.ones(len(levels)),
    "ARITHMETIC": lambda levels: levels.astype(np.float64),
    "RECIPROCAL": lambda levels: 1.0 / levels[::-1],
}
