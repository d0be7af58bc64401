"""Negatives that all rows of a batch share: by item weight, or uniform over the positive edges."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tzrec.datasets.samplers.attributes import Attributes
from tzrec.datasets.samplers.base import BaseSampler, SampledRows
from tzrec.datasets.samplers.edges import Adjacency, build_edges
from tzrec.datasets.samplers.ids import ids_of
from tzrec.datasets.samplers.items import ItemTable, build_items
from tzrec.datasets.samplers.memory import SharedArrays
from tzrec.datasets.samplers.tables import TableOptions, TypedTable, open_edges, open_nodes
from tzrec.errors import DataError, at

logger = logging.getLogger("tzrec")

# An excluded item is drawn anew; when most draws would be, the other items are listed instead.
_MOST_EXCLUDED = 0.95


class NegativeSampler(BaseSampler):
    """Draws N items with probability proportional to their weight, with replacement.

    Items that are a positive of the batch are not drawn; with ``with_log_q`` they are, since
    popular items would otherwise be drawn less often than the probabilities that are told.
    """

    config_name: ClassVar[str] = "negative_sampler"
    item_path: ClassVar[str] = "input_path"

    def _build(self, arrays: SharedArrays) -> None:
        started = time.monotonic()
        attributes = self._attributes()
        for name in attributes.unknown:
            logger.warning("attr_fields: %r is no input column; it is not used", name)
        with self._reading(self.item_path) as path:
            table = open_nodes(
                path, self.item_id_field, self._table_options(), attributes=attributes.types
            )
            if self.config.weight_field and isinstance(table, TypedTable):
                logger.warning("weight_field has no effect: text with types has its own weights")
            build_items(arrays, table, attributes, string_ids=self.string_ids)
        self._build_edges(arrays)
        num_items = len(arrays["items.keys"])
        logger.info(
            "%s: %s items, %.0f MB, built in %.1f s",
            type(self).__name__,
            f"{num_items:,}",
            arrays.nbytes / 1e6,
            time.monotonic() - started,
        )
        if num_items < self.num_sample:
            logger.warning(
                "%s: %s negatives are drawn from %s items: draws repeat",
                type(self).__name__,
                f"{self.num_sample:,}",
                f"{num_items:,}",
            )

    def _build_edges(self, arrays: SharedArrays) -> None:
        """Reads the tables of edges; the items are there."""

    def _open(self, arrays: SharedArrays) -> None:
        super()._open(arrays)
        self._items = ItemTable(arrays, self._attributes().types)
        self._warned: set[str] = set()

    def estimated_sample_num(self, batch_size: int) -> int:
        """Returns N."""
        return self.num_sample

    def get(self, columns: Mapping[str, pa.Array], rng: np.random.Generator) -> SampledRows:
        """Returns N items that the whole batch shares; see `BaseSampler.get`."""
        seeds = rng.integers(0, 2**64, size=2, dtype=np.uint64)
        positives = self._items.ids.find(self._ids(columns, self.item_id_field))
        drawn = self._draw(positives, columns, int(seeds[0]))
        hard, indices = self._hard(columns, int(seeds[1]))
        return SampledRows(
            self._items.take(np.concatenate([drawn, hard])),
            len(drawn),
            indices if len(indices) else None,
            self._log_q(drawn) if self.with_log_q else None,
            self._log_q(positives) if self.with_log_q else None,
        )

    def _draw(
        self, positives: NDArray[np.int32], columns: Mapping[str, pa.Array], seed: int
    ) -> NDArray[np.int32]:
        """Returns the places of N items."""
        from tzrec.datasets.samplers.kernels import draw_weighted

        out = np.empty(self.num_sample, dtype=np.int32)
        excluded = positives[:0] if self.with_log_q else positives[positives >= 0]
        # Items that occur twice count twice at first: sorting them out takes longer than drawing.
        if self._items.share_of(excluded) > _MOST_EXCLUDED:
            excluded = np.unique(excluded)
        if self._items.share_of(excluded) > _MOST_EXCLUDED:
            drawn = self._draw_others(excluded, np.random.default_rng(seed))
            if drawn is not None:
                return drawn
            self._warn("all items with a weight are positives of a batch: they are drawn too")
            excluded = excluded[:0]
        taken = np.zeros(1 << max(4, (2 * len(excluded)).bit_length()), dtype=np.int32)
        draw_weighted(self._items.cells, len(self._items), excluded, seed, taken, out)
        return out

    def _draw_others(
        self, excluded: NDArray[np.int32], rng: np.random.Generator
    ) -> NDArray[np.int32] | None:
        """Draws from a list of all items that are not excluded, None if none has a weight."""
        left = self._items.probabilities()
        left[excluded] = 0.0
        total = np.cumsum(left)
        if total[-1] <= 0:
            return None
        drawn = np.searchsorted(total, rng.random(self.num_sample) * total[-1], side="right")
        # A draw may be rounded up to the sum: the last item that can be drawn gets it.
        return np.minimum(drawn, np.searchsorted(total, total[-1])).astype(np.int32)

    def _hard(
        self, columns: Mapping[str, pa.Array], seed: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Returns the places of H hard negatives and their ``hard_neg_indices``."""
        return np.empty(0, dtype=np.int32), np.empty((0, 2), dtype=np.int32)

    def _log_q(self, places: NDArray[np.int32]) -> NDArray[np.float32]:
        return self._items.log_q(places)

    def _ids(self, columns: Mapping[str, pa.Array], name: str) -> NDArray[np.int64]:
        if name not in columns:
            raise DataError(f"the sampler's column {name!r} is not in the batch")
        return ids_of(columns[name], name, string_ids=self.string_ids)

    def _attributes(self) -> Attributes:
        return Attributes(self.attr_fields, self.fields, self.config.attr_delimiter)

    def _table_options(self) -> TableOptions:
        return TableOptions(
            self.config.field_delimiter or None, self.string_ids, self.config.weight_field or None
        )

    @contextlib.contextmanager
    def _reading(self, path_field: str) -> Iterator[str]:
        """Gives the path of a table; errors get its place in the config."""
        with at(f"data_config.{self.config_name}.{path_field}"):
            yield getattr(self.config, path_field)

    def _edges(self, arrays: SharedArrays, name: str, path_field: str, *, ranked: bool) -> None:
        """Reads the edges of users to items, as ``name``."""
        assert self.user_id_field is not None
        options = self._table_options()
        with self._reading("user_input_path") as path:
            open_nodes(path, self.user_id_field, options)
        with self._reading(path_field) as path:
            table = open_edges(path, self.user_id_field, self.item_id_field, options)
            build_edges(arrays, name, table, string_ids=self.string_ids, ranked=ranked)

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            logger.warning("%s: %s", type(self).__name__, text)


class NegativeSamplerV2(NegativeSampler):
    """Draws N items uniformly from those that have a positive edge, with replacement.

    Row i of the P rows gives draws ``i * e … i * e + e - 1`` with ``e = max(1, ceil(N / P))``, of
    which the first N of all rows are kept. A row's draws are none of its user's positive items
    and not the row's own item; they may be positives of other users.
    """

    has_users = True
    config_name = "negative_sampler_v2"
    item_path = "item_input_path"

    def _build_edges(self, arrays: SharedArrays) -> None:
        super()._build_edges(arrays)
        self._edges(arrays, "positive", "pos_edge_input_path", ranked=True)

    def _open(self, arrays: SharedArrays) -> None:
        super()._open(arrays)
        self._positive = Adjacency(arrays, "positive")

    def _draw(
        self, positives: NDArray[np.int32], columns: Mapping[str, pa.Array], seed: int
    ) -> NDArray[np.int32]:
        from tzrec.datasets.samplers.kernels import draw_missing

        assert self.user_id_field is not None
        edges, out = self._positive, np.empty(self.num_sample, dtype=np.int32)
        assert edges.items is not None
        assert edges.ranks is not None
        users = edges.find(self._ids(columns, self.user_id_field))
        own = np.where(positives >= 0, edges.ranks[positives], np.int32(-1))
        repeat = max(1, -(-len(out) // max(len(users), 1)))
        failed = draw_missing(
            *(edges.starts, edges.stops, edges.places, users, own),
            *(len(edges.items), repeat, seed, out),
        )
        if failed:
            self._warn("a user has a positive edge to every item: such users draw any item")
        drawn: NDArray[np.int32] = edges.items[out]
        return drawn

    def _log_q(self, places: NDArray[np.int32]) -> NDArray[np.float32]:
        assert self._positive.items is not None
        return np.full(len(places), -np.log(len(self._positive.items)), dtype=np.float32)
