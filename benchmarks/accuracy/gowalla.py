"""Retrieval on Gowalla, LightGCN's split: Recall@20 and NDCG@20 beside what is published.

    python benchmarks/accuracy/gowalla.py --seeds 2
    python benchmarks/accuracy/gowalla.py --try train_config.num_epochs=10,20
    python benchmarks/accuracy/gowalla.py --check

Every item competes but those that the user has in train. With ``--try`` a tenth of every user's
train items is held out and judges; a run of the table learns from all of train and sees the test
part once, after its last pass. ``--check`` computes GF-CF in closed form, whose numbers are known:
it measures the metrics, not tzrec's models. A run that is finished is not run again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from ranking import ROOT, Pairs, RankingSet, main, number, read_part, write_part
from runs import Model
from scipy.sparse import csr_matrix, diags
from scipy.sparse.linalg import svds

from tzrec.retrieval.evaluation import RankingMetrics, RankingResult
from tzrec.retrieval.row_lists import RowLists

SOURCE = ROOT.parent / "shared" / "data" / "gowalla"
# Of the split's train items, to choose settings.
HELD_OUT = 0.1

# Users → scores of all items.
Scores = Callable[[np.ndarray], np.ndarray]


def read_pairs(path: Path) -> Pairs:
    """Reads lines of ``user item item …``."""
    users, items = [], []
    for line in path.read_text().splitlines():
        user, *rest = (int(word) for word in line.split())
        users.append(np.full(len(rest), user))
        items.append(np.asarray(rest, dtype=np.int64))
    return Pairs(np.concatenate(users), np.concatenate(items))


def hold_out(pairs: Pairs, seed: int = 2020) -> tuple[Pairs, Pairs]:
    """Returns the pairs without a tenth of every user's items (rounded), and that tenth."""
    order = np.random.default_rng(seed).permutation(len(pairs.users))
    order = order[np.argsort(pairs.users[order], kind="stable")]
    users = pairs.users[order]
    _, first, counts = np.unique(users, return_index=True, return_counts=True)
    place = np.arange(len(users)) - np.repeat(first, counts)
    out = place < np.repeat(np.round(counts * HELD_OUT), counts)
    return pairs.take(order[~out]), pairs.take(order[out])


def convert(source: Path, data: Path) -> None:
    """Writes the parts ``choose`` and ``final``."""
    train, test = read_pairs(source / "train.txt"), read_pairs(source / "test.txt")
    items = np.arange(max(train.items.max(), test.items.max()) + 1)
    users = np.unique(train.users)
    for name, (learn, judge) in {"choose": hold_out(train), "final": (train, test)}.items():
        write_part(
            data / name,
            {"user_id": learn.users, "item_id": learn.items},
            {"user_id": users},
            items,
            seen=learn,
            relevant=judge,
        )


def gf_cf(pairs: Pairs, shape: tuple[int, int], rank: int = 256, alpha: float = 0.3) -> Scores:
    """Returns what scores users in closed form.

    ::

        N = D_u^-1/2 R D_i^-1/2,   scores = R (N' N + alpha D_i^-1/2 V V' D_i^1/2)

    with the singular vectors V (items, rank) of N. "How powerful is graph convolution for
    recommendation?" (Shen et al., CIKM 2021).

    Args:
        pairs: R.
        shape: number of users and of items.
        rank: singular vectors.
        alpha: weight of the ideal low-pass filter.
    """
    R = csr_matrix((np.ones(len(pairs.users), np.float32), (pairs.users, pairs.items)), shape)
    of_users, of_items = (np.asarray(R.sum(axis)).reshape(-1) for axis in (1, 0))
    root_users, root_items = (np.sqrt(np.maximum(d, 1)) for d in (of_users, of_items))
    N = (diags(1 / root_users) @ R @ diags(1 / root_items)).tocsr()
    start = np.random.default_rng(1).standard_normal(min(shape)).astype(np.float32)
    V = svds(N, k=rank, v0=start, return_singular_vectors="vh")[2].T.astype(np.float32)
    low = (R @ (V / root_items[:, None].astype(np.float32))) * np.float32(alpha)
    up = (V * root_items[:, None].astype(np.float32)).T
    neighbours = N.T.tocsr()

    def scores(users: np.ndarray) -> np.ndarray:
        near = (R[users] @ neighbours).toarray()
        return np.asarray((neighbours @ near.T).T + low[users] @ up)

    return scores


def ranked(scores: Scores, seen: RowLists, relevant: RowLists, num_items: int) -> RankingResult:
    """Ranks all items for each user but those seen, and measures the lists."""
    total = RankingMetrics(num_items, [20])
    for start in range(0, len(seen), 512):
        users = np.arange(start, min(start + 512, len(seen)))
        part = seen.slice(start, users[-1] + 1)
        values = scores(users)
        values[part.rows, part.values] = -np.inf
        best = np.argpartition(-values, 20, axis=1)[:, :20]
        order = np.argsort(-np.take_along_axis(values, best, axis=1), axis=1, kind="stable")
        found = np.take_along_axis(best, order, axis=1)
        total.update(found, relevant.slice(start, users[-1] + 1))
    return total.result()


def check(data: Path) -> str:
    """Returns the metrics of GF-CF on the test part."""
    pairs = {name: read_part(data / "final" / f"{name}.parquet") for name in ("seen", "relevant")}
    shape = (
        int(pairs["seen"].users.max()) + 1,
        pq.read_metadata(data / "final" / "items.parquet").num_rows,
    )
    lists = {
        name: RowLists.from_pairs(found.users, found.items, shape[0])
        for name, found in pairs.items()
    }
    result = ranked(gf_cf(pairs["seen"], shape), lists["seen"], lists["relevant"], shape[1])
    values = [number(result.metrics[metric]) for metric in DATASET.metrics]
    return f"GF-CF: {' / '.join(values)}, known: {' / '.join(PUBLISHED['GF-CF'])}"


PUBLISHED = {
    "ItemCF": (".1570", ".1214"),
    "MF-BPR": (".1627", ".1378"),
    "YoutubeDNN": (".1754", ".1473"),
    "EASE^R": (".1765", ".1467"),
    "LightGCN": (".1820", ".1547"),
    "MF-CCL": (".1837", ".1493"),
    "GF-CF": (".1850", ".1518"),
    "UltraGCN": (".1862", ".1580"),
    "SimpleX": (".1872", ".1557"),
}

DATASET = RankingSet(
    folder="gowalla",
    metrics={"recall@20": "Recall@20", "ndcg@20": "NDCG@20"},
    models={"mf": Model("matrix factorisation (DSSM without layers)")},
    published=PUBLISHED,
    convert=convert,
    retrain=True,
)

if __name__ == "__main__":
    sys.exit(main(DATASET, SOURCE, __doc__, check=check))
