"""``TDMPredictSampler``: the children of nodes, for walking down a tree."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tzrec.datasets.samplers.attributes import Attributes
from tzrec.datasets.samplers.base import BaseSampler, SampledRows
from tzrec.datasets.samplers.ids import ids_of
from tzrec.datasets.samplers.memory import SharedArrays
from tzrec.datasets.samplers.tables import TableOptions, open_edges, open_nodes
from tzrec.datasets.samplers.tdm_tree import (
    TREE_LEVEL,
    TreeNodes,
    build_nodes,
    children_of_nodes,
    read_edges,
    tree_attributes,
)
from tzrec.errors import DataError, at

logger = logging.getLogger("tzrec")

_PATH = "data_config.tdm_sampler"


class TDMPredictSampler(BaseSampler):
    """The nodes of an item tree and their children.

    ::

        tree = TDMPredictSampler(config.data_config.tdm_sampler, fields)
        tree.build()
        nodes = tree.nodes.on_level(3)
        rows, children = tree.expand(nodes)

    Args:
        config: the ``TDMSampler`` message.
        fields: input column → type.
        expand_factor: children that `get` gives of a node, at most; None = all.

    Attributes:
        nodes: the nodes, once the tree is built.
    """

    nodes: TreeNodes

    def __init__(
        self,
        config: Any,
        fields: Mapping[str, pa.DataType],
        *,
        expand_factor: int | None = None,
    ) -> None:
        super().__init__(config, fields, is_training=False)
        self.expand_factor = expand_factor

    def _build(self, arrays: SharedArrays) -> None:
        attributes, config = self._attributes(), self.config
        options = TableOptions(
            config.field_delimiter or None, self.string_ids, config.weight_field or None
        )
        with at(f"{_PATH}.item_input_path"):
            table = open_nodes(
                config.item_input_path, self.item_id_field, options, attributes=attributes.types
            )
            build_nodes(arrays, table, attributes, string_ids=self.string_ids)
        nodes = TreeNodes(arrays, attributes)
        with at(f"{_PATH}.predict_edge_input_path"):
            edges = open_edges(config.predict_edge_input_path, "src_id", "dst_id", options)
            parents, children = read_edges(arrays, edges, "child", string_ids=self.string_ids)
            starts, children = children_of_nodes(nodes, parents, children)
        arrays.put("tree.child_starts", starts)
        arrays.put("tree.children", children)

    def _open(self, arrays: SharedArrays) -> None:
        super()._open(arrays)
        self.nodes = TreeNodes(arrays, self._attributes())
        self._starts: NDArray[np.int64] = arrays["tree.child_starts"]
        self._children: NDArray[np.int32] = arrays["tree.children"]

    @property
    def branching(self) -> int:
        """Children of a node, at most."""
        return max(int(np.diff(self._starts).max()), 1)

    def expand(self, nodes: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Returns the children of nodes: which of the nodes each belongs to, and its place."""
        first = self._starts[nodes]
        lengths = self._starts[nodes + 1] - first
        owners = np.repeat(np.arange(len(nodes)), lengths)
        within = np.arange(len(owners)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return owners, self._children[first[owners] + within]

    def estimated_sample_num(self, batch_size: int) -> int:
        """Returns how many children as many nodes have, at most."""
        return batch_size * min(self.branching, self.expand_factor or self.branching)

    def get(
        self, columns: Mapping[str, pa.Array], rng: np.random.Generator | None = None
    ) -> SampledRows:
        """Returns the attributes of the children of nodes, node by node.

        Args:
            columns: ``item_id_field`` has the nodes; -1 is the node above the root.
            rng: nothing is drawn.

        Raises:
            DataError: a node is not in the tree.
        """
        column = columns[self.item_id_field]
        places = self.nodes.items.ids.find(
            ids_of(column, self.item_id_field, string_ids=self.string_ids)
        )
        if (places < 0).any():
            node = column[int(np.argmax(places < 0))].as_py()
            raise DataError(f"node {node!r} is not in the tree")
        owners, children = self.expand(places)
        if self.expand_factor is not None:
            number = np.arange(len(owners)) - np.searchsorted(owners, owners)
            children = children[number < self.expand_factor]
        found = self.nodes.items.take(children)
        if TREE_LEVEL not in self.fields:
            del found[TREE_LEVEL]
        return SampledRows(found, len(children))

    def _attributes(self) -> Attributes:
        return tree_attributes(
            self.attr_fields, self.item_id_field, self.fields, self.config.attr_delimiter
        )

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"expand_factor": self.expand_factor}

    def __setstate__(self, state: dict[str, Any]) -> None:
        expand_factor = state.pop("expand_factor")
        super().__setstate__(state)
        self.expand_factor = expand_factor
