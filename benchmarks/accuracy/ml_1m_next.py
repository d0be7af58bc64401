"""The next movie on MovieLens-1M, leave one out: HR@10 and NDCG@10 beside what is published.

    python benchmarks/accuracy/ml_1m_next.py --seeds 2
    python benchmarks/accuracy/ml_1m_next.py --try train_config.num_epochs=10,20

A user's last movie is the test, the last but one the valid part, the others are learnt. All 3,416
movies compete but those that the user has seen. The valid movie chooses the settings (``--try``)
and the number of passes of a run; the checkpoint that is best there sees the test once, with the
valid movie in its history. A run that is finished is not run again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
from ranking import ROOT, Pairs, RankingSet, main, write_part
from runs import Model

SOURCE = ROOT.parent / "shared" / "data" / "ml-1m"
MAX_LENGTH = 200


def histories(users: Pairs, ends: np.ndarray) -> pa.Array:
    """Returns what each user has seen before an event: the latest of it, oldest first.

    Args:
        users: events, those of a user in a row, in time order.
        ends: (U,) number of the event, one a user.
    """
    starts = np.searchsorted(users.users, users.users[ends])
    starts = np.maximum(starts, ends - MAX_LENGTH)
    parts = [users.items[start:end] for start, end in zip(starts, ends, strict=True)]
    return pa.array(parts, pa.list_(pa.int64()))


def convert(source: Path, data: Path) -> None:
    """Writes the parts ``choose`` (the valid movie) and ``final`` (the test movie)."""
    events = np.loadtxt(source / "ml-1m.txt", dtype=np.int64)
    write(Pairs(events[:, 0], events[:, 1]), data)


def write(events: Pairs, data: Path) -> None:
    """As `convert`, of events of which those of a user stand in a row, in time order."""
    order = np.argsort(events.users, kind="stable")
    events = events.take(order)
    users, counts = np.unique(events.users, return_counts=True)
    last = np.cumsum(counts) - 1
    items = np.unique(events.items)
    learnt = last - 2
    train = {
        "user_id": users,
        "item_id": events.items[learnt],
        "history__item_id": histories(events, learnt),
    }
    from_end = np.repeat(last, counts) - np.arange(len(order))
    for name, held_out in {"choose": 1, "final": 0}.items():
        target = last - held_out
        write_part(
            data / name,
            train,
            {"user_id": users, "history__item_id": histories(events, target)},
            items,
            seen=events.take(from_end > held_out),
            relevant=events.take(target),
        )


PUBLISHED = {
    "SASRec (BCE, 1 negative)": (".2500", ".1341"),
    "BERT4Rec": (".2843", ".1537"),
    "gSASRec": (".3003", ".1726"),
    "SASRec+ (cross-entropy)": (".3152", ".1821"),
}

DATASET = RankingSet(
    folder="ml_1m_next",
    metrics={"hitrate@10": "HR@10", "ndcg@10": "NDCG@10"},
    models={"sasrec": Model("SequenceTwoTower")},
    published=PUBLISHED,
    convert=convert,
    retrain=False,
)

if __name__ == "__main__":
    sys.exit(main(DATASET, SOURCE, __doc__))
