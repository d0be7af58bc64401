"""A small graph: 10 items, 5 users, positive and hard-negative edges."""

from __future__ import annotations

import pytest
from sampler_tables import HARD, POSITIVE, WEIGHTS, write_edges, write_items, write_lines


@pytest.fixture
def graph(tmp_path):
    write_items(tmp_path / "items.txt", WEIGHTS)
    write_lines(tmp_path / "users.txt", "id:int64\tweight:float", [(u, 1) for u in range(5)])
    write_edges(tmp_path / "pos.txt", POSITIVE)
    write_edges(tmp_path / "hard.txt", HARD)
    return tmp_path
