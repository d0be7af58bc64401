"""Shared negatives, and hard ones for each user."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tzrec.datasets.samplers.edges import Adjacency
from tzrec.datasets.samplers.memory import SharedArrays
from tzrec.datasets.samplers.negative import NegativeSampler, NegativeSamplerV2

# Hard negatives that a row is thought to have, where more are allowed.
USUAL_HARD = 8


class _HardNegatives(NegativeSampler):
    """Adds the user's items of the hard-negative edges to each row.

    Where there are more than ``num_hard_sample``, as many are chosen at random without
    replacement. Users without such edges have none.
    """

    has_users = True

    def _build_edges(self, arrays: SharedArrays) -> None:
        super()._build_edges(arrays)
        self._edges(arrays, "hard", "hard_neg_edge_input_path", ranked=False)

    def _open(self, arrays: SharedArrays) -> None:
        super()._open(arrays)
        self._hard_edges = Adjacency(arrays, "hard")

    def estimated_sample_num(self, batch_size: int) -> int:
        """Returns N, and up to 8 hard negatives a row."""
        hard = min(int(self.config.num_hard_sample), USUAL_HARD)
        return self.num_sample + hard * batch_size

    def _hard(
        self, columns: Mapping[str, pa.Array], seed: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        from tzrec.datasets.samplers.kernels import draw_neighbours

        assert self.user_id_field is not None
        edges, most = self._hard_edges, int(self.config.num_hard_sample)
        users = edges.find(self._ids(columns, self.user_id_field))
        known = users[users >= 0]
        count = int(np.minimum(edges.stops[known] - edges.starts[known], most).sum())
        out, indices = np.empty(count, dtype=np.int32), np.empty(2 * count, dtype=np.int32)
        draw_neighbours(edges.starts, edges.stops, edges.places, users, most, seed, out, indices)
        return out, indices.reshape(count, 2)


class HardNegativeSampler(_HardNegatives, NegativeSampler):
    """`NegativeSampler`, and the hard negatives of each user."""

    config_name = "hard_negative_sampler"
    item_path = "item_input_path"


class HardNegativeSamplerV2(_HardNegatives, NegativeSamplerV2):
    """`NegativeSamplerV2`, and the hard negatives of each user."""

    config_name = "hard_negative_sampler_v2"
