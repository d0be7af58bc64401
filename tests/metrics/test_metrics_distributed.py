"""Two ranks compute what one rank computes over all rows; updates do not communicate."""

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tzrec.metrics.accuracy import Accuracy
from tzrec.metrics.auc import AUC, MulticlassAUC
from tzrec.metrics.grouped_auc import GroupedAUC
from tzrec.metrics.grouped_xauc import GroupedXAUC
from tzrec.metrics.hitrate_at_k import HitRateAtK
from tzrec.metrics.mean import RunningMean
from tzrec.metrics.mrr import MRR
from tzrec.metrics.ndcg_at_k import NDCGAtK
from tzrec.metrics.normalized_entropy import NormalizedEntropy
from tzrec.metrics.recall_at_k import RecallAtK
from tzrec.metrics.regression import MeanAbsoluteError
from tzrec.metrics.xauc import XAUC

METRICS = {
    "auc": (AUC, ("score", "label")),
    "multiclass_auc": (lambda: MulticlassAUC(2), ("scores", "label")),
    "accuracy": (Accuracy, ("score", "label")),
    "mae": (MeanAbsoluteError, ("score", "label")),
    "entropy": (NormalizedEntropy, ("score", "label")),
    "grouped_auc": (GroupedAUC, ("score", "label", "key")),
    "grouped_xauc": (lambda: GroupedXAUC(max_pairs_per_group=5000), ("score", "score2", "key")),
    "recall": (lambda: RecallAtK(1), ("scores", "label")),
    "hitrate": (lambda: HitRateAtK(1), ("scores", "label")),
    "ndcg": (lambda: NDCGAtK(2), ("scores", "label")),
    "mrr": (MRR, ("scores", "label")),
    "xauc": (lambda: XAUC(sample_ratio=1.0), ("score", "score2")),
}


def _rows():
    rng = np.random.default_rng(0)
    rows = {
        "score": rng.random(500, np.float32),
        "score2": rng.random(500, np.float32),
        "label": rng.integers(0, 2, 500),
        "key": rng.integers(-20, 20, 500),
    }
    rows["scores"] = np.stack([1 - rows["score"], rows["score"]], 1)
    return {name: torch.from_numpy(column) for name, column in rows.items()}


def _values(rank_rows):
    rows = _rows()
    values = {}
    for name, (make, columns) in METRICS.items():
        metric = make()
        for part in rank_rows:
            metric.update(*(rows[column][part] for column in columns))
        values[name] = float(metric.compute())
    mean = RunningMean()
    for part in rank_rows:
        mean.update(rows["score"][part].mean(), part.stop - part.start)
    values["loss"] = float(mean.compute())
    return values


def _run(rank, port, results):
    # Rank 1 has fewer rows than rank 0.
    parts = [[slice(0, 200), slice(200, 330)], [slice(330, 500)]][rank]
    store = dist.TCPStore("127.0.0.1", port, 2, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    local = AUC(local=True)
    if rank == 0:  # would hang if it communicated
        local.update(torch.tensor([0.1, 0.9]), torch.tensor([0, 1]))
        assert float(local.compute()) == 1.0
    results.put((rank, _values(parts)))
    dist.destroy_process_group()


def test_two_ranks_equal_one():
    expected = _values([slice(0, 500)])
    context = mp.get_context("spawn")
    results = context.SimpleQueue()
    store = dist.TCPStore("127.0.0.1", 0, 2, is_master=True, wait_for_workers=False)
    mp.spawn(_run, (store.port, results), nprocs=2)
    for _ in range(2):
        _, found = results.get()
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)
