"""Does history help? CTR models on MovieLens-1M: will the user rate this movie 4 or better?

    python benchmarks/accuracy/ml_1m.py --models all --seeds 3

Of each user's ratings in time order the last 10 are for the test, the 10 before for validation. No
published table has this protocol; a model without the history stands beside those with it. A run
that is finished is not run again. With ``--try`` only the valid part is looked at.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from command import ROOT, main
from runs import DataSet, Model

HELD_OUT = 10
PARTS = ("train", "valid", "test")


def split_again(data: Path) -> None:
    """Gives the valid and the test part `HELD_OUT` rows of each user instead of one."""
    # The parts hold a user's rows in time order, one after the other.
    table = pa.concat_tables([pq.read_table(data / f"{part}.parquet") for part in PARTS])
    user = table["user_id"].to_numpy()
    order = np.argsort(user, kind="stable")
    _, counts = np.unique(user, return_counts=True)
    from_end = np.repeat(np.cumsum(counts), counts) - 1 - np.arange(len(user))
    table = table.take(order)
    part_of_row = np.maximum(2 - from_end // HELD_OUT, 0)
    for number, part in enumerate(PARTS):
        pq.write_table(table.filter(part_of_row == number), data / f"{part}.parquet")


DATASET = DataSet(
    name="ml-1m",
    folder="ml_1m",
    metrics={"auc": "AUC", "grouped_auc": "AUC within users"},
    models={
        "multi_tower": Model("MultiTower (no history)"),
        "multi_tower_din": Model("MultiTowerDIN"),
        "transact": Model("TransAct"),
    },
    prepare=split_again,
)

if __name__ == "__main__":
    sys.exit(main(DATASET, ROOT.parent / "shared" / "data" / "ml-1m", __doc__))
