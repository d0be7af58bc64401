"""The demo's raw click log, small, for examples/feed_fg_dag.config."""

from __future__ import annotations

import functools
from pathlib import Path

import pyarrow as pa

from tzrec.demo.clicklog import Shop, Simulator
from tzrec.demo.feed import TOKENIZER, Feed

FEED = Path(__file__).resolve().parents[1] / "examples" / "feed_fg_dag.config"
USERS = 125


@functools.lru_cache(maxsize=1)
def _log(num_rounds: int) -> tuple[pa.Table, Feed]:
    simulator = Simulator(Shop(num_users=USERS, num_items=60))
    feed = Feed(simulator)
    rows = simulator.play(num_rounds)
    table = feed.add_columns(rows.to_table(simulator.category), rows)
    table = table.append_column("row", pa.array(range(table.num_rows)))
    return table.append_column("probability", pa.array(rows.probability)), feed


def feed_table(start: int, stop: int) -> pa.Table:
    """Rows of the log, with ``row`` and the true ``probability``; there are 4,000."""
    return _log(4000 // USERS)[0].slice(start, stop - start)


def write_tokenizer(root: Path) -> None:
    """Writes the tokenizer where the config looks for it, seen from ``root``."""
    folder = root / "experiments" / "demo" / "data"
    folder.mkdir(parents=True)
    _log(4000 // USERS)[1].write_tokenizer(folder / TOKENIZER)
