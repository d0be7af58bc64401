"""Grouped metrics at scale: against pandas, over the bound of memory, on disk, on two ranks."""

import resource
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tzrec.errors import DataError
from tzrec.metrics import row_store
from tzrec.metrics.grouped_auc import GroupedAUC
from tzrec.metrics.grouped_xauc import GroupedXAUC


def make_rows(num_rows, num_groups, seed=0):
    """Scores of which many tie, labels, and keys all over the range of int64."""
    rng = np.random.default_rng(seed)
    limits = np.iinfo(np.int64)
    ids = rng.integers(limits.min, limits.max, num_groups, endpoint=True)
    # Zipf: some large groups, many of one row.
    keys = ids[np.minimum(rng.zipf(1.3, num_rows) - 1, num_groups - 1)]
    labels = rng.integers(0, 2, num_rows)
    scores = np.round(rng.normal(size=num_rows) + 0.5 * labels, 1).astype(np.float32)
    return scores, labels, keys


def pandas_gauc(scores, labels, keys):
    """Mean of (R - P(P + 1)/2) / PN over groups with both classes, and each group's."""
    frame = pd.DataFrame({"s": scores, "y": labels, "k": keys})
    frame["r"] = frame.groupby("k").s.rank()
    frame["ry"] = frame.r * frame.y
    by = frame.groupby("k").agg(ry=("ry", "sum"), p=("y", "sum"), n=("y", "size"))
    both = by[(by.p > 0) & (by.p < by.n)]
    return (both.ry - both.p * (both.p + 1) / 2) / (both.p * (both.n - both.p))


def feed(metric, columns, parts=7):
    for part in zip(*(np.array_split(column, parts) for column in columns), strict=True):
        metric.update(*map(torch.from_numpy, part))
    return metric


@pytest.fixture
def small_memory(monkeypatch):
    """Rows go to disk early."""
    monkeypatch.setattr(row_store, "_BLOCK", 500)
    monkeypatch.setattr(row_store, "MAX_ROWS", 2000)
    monkeypatch.setattr("tzrec.metrics.grouped.MAX_ROWS", 2000)
    monkeypatch.setattr("tzrec.metrics.grouped._CACHED_ROWS", 64)


def test_many_groups_equal_pandas():
    rows = make_rows(300_000, 50_000)
    metric = feed(GroupedAUC(), rows)
    aucs = pandas_gauc(*rows)
    assert float(metric.compute()) == pytest.approx(aucs.mean(), abs=1e-12)
    assert metric.half_width == pytest.approx(1.959964 * aucs.std() / len(aucs) ** 0.5, rel=1e-6)


@pytest.mark.parametrize("num_rows", [1999, 2000, 4000, 31_000])
def test_rows_on_disk_equal_pandas(small_memory, num_rows):
    rows = make_rows(num_rows, 700)
    metric = feed(GroupedAUC(), rows, parts=23)
    assert bool(metric._rows._runs) == (num_rows > 2500)
    assert metric._rows.num_rows == num_rows
    expected = pandas_gauc(*rows).mean()
    assert float(metric.compute()) == pytest.approx(expected, abs=1e-12)


def test_a_metric_starts_afresh_after_rows_on_disk(small_memory):
    metric = feed(GroupedAUC(), make_rows(9000, 100))
    metric.compute()
    metric.reset()
    assert metric._rows.num_rows == 0
    rows = make_rows(5000, 90, seed=1)
    feed(metric, rows)
    assert float(metric.compute()) == pytest.approx(pandas_gauc(*rows).mean(), abs=1e-12)


def test_xauc_of_rows_on_disk(small_memory):
    rng = np.random.default_rng(1)
    rows = rng.random(9000, np.float32), rng.random(9000, np.float32), rng.integers(0, 999, 9000)
    frame = pd.DataFrame(dict(zip("psk", rows, strict=True)))
    shares = frame.groupby("k").apply(
        lambda g: (np.sign(g.p.values[:, None] - g.p.values) ==
                   np.sign(g.s.values[:, None] - g.s.values)).sum() - len(g)
    )  # fmt: skip
    sizes = frame.groupby("k").size()
    wide = sizes > 1
    expected = np.average(
        (shares / (sizes * (sizes - 1)))[wide].to_numpy(), weights=sizes[wide].to_numpy()
    )
    metric = feed(GroupedXAUC(max_pairs_per_group=2**63), rows)
    assert float(metric.compute()) == pytest.approx(expected, abs=1e-12)


def test_sampled_pairs_are_uniform():
    # One group of 40 rows: each pair of rows is right or wrong, drawn alike often.
    p, t = np.arange(40, dtype=np.float32), np.arange(40, dtype=np.float32)
    t[:10] = t[:10][::-1]
    wrong = 45 / 780
    metric = feed(GroupedXAUC(max_pairs_per_group=700), (p, t, np.full(40, 3)), parts=1)
    assert float(metric.compute()) == pytest.approx(1 - wrong, abs=4 * (wrong / 700) ** 0.5)
    values = []
    for key in range(400):
        metric = feed(GroupedXAUC(max_pairs_per_group=100), (p, t, np.full(40, key)), parts=1)
        values.append(float(metric.compute()))
    assert np.mean(values) == pytest.approx(1 - wrong, abs=4 * (wrong / 40_000) ** 0.5)
    assert len(set(values)) > 5


def test_a_full_disk_is_said(small_memory, monkeypatch):
    class Full:
        def __init__(self, *_, **__):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", Full)
    with pytest.raises(DataError, match=r"rows of a grouped metric cannot be kept in .*No space"):
        feed(GroupedAUC(), make_rows(3000, 10))


MEMORY = """
import resource, numpy as np, torch
from tzrec.metrics import row_store
from tzrec.metrics.grouped_auc import GroupedAUC
row_store.MAX_ROWS = __import__("tzrec.metrics.grouped", fromlist=["x"]).MAX_ROWS = 1 << 18
rng, G = np.random.default_rng(0), 10**6
def batch(n):
    y = torch.from_numpy(rng.integers(0, 2, n))
    return torch.from_numpy(rng.random(n, np.float32)), y, torch.from_numpy(rng.integers(0, G, n))
def run(n):
    metric = GroupedAUC()
    for _ in range(n // 65536):
        metric.update(*batch(65536))
    return float(metric.compute())
run(2**19)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
value = run(2**23)
print(value, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_does_not_grow_with_the_rows():
    result = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, check=True)
    value, grown = map(float, result.stdout.split())
    assert value == pytest.approx(0.5, abs=0.01)
    # 8M rows are 128 MiB.
    assert grown * 1024 < 32 * 2**20


def _rank_rows(rank):
    rows = make_rows(9000, 300, seed=5)
    parts = {0: slice(0, 7500), 1: slice(7500, 9000), 2: slice(0, 0)}
    return [column[parts[rank]] for column in rows]


def _run_rank(rank, port, results):
    row_store._BLOCK, row_store.MAX_ROWS = 500, 2000
    import tzrec.metrics.grouped as grouped

    grouped.MAX_ROWS = 2000
    store = dist.TCPStore("127.0.0.1", port, 3, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=3)
    warnings.simplefilter("error")  # nothing is said about a rank without rows
    metric = feed(GroupedAUC(), _rank_rows(rank), parts=5 if rank < 2 else 1)
    for _ in range(2):  # the second time nothing is left on any rank
        results.put((rank, float(metric.compute()), metric.half_width))
        metric.reset()
    dist.destroy_process_group()


def test_ranks_with_uneven_rows_some_of_them_on_disk():
    whole = pandas_gauc(*make_rows(9000, 300, seed=5))
    context = mp.get_context("spawn")
    results = context.SimpleQueue()
    store = dist.TCPStore("127.0.0.1", 0, 3, is_master=True, wait_for_workers=False)
    mp.spawn(_run_rank, (store.port, results), nprocs=3)
    found = [results.get() for _ in range(6)]
    values = {rank: [value for r, value, _ in found if r == rank] for rank in range(3)}
    for rank in range(3):
        assert values[rank] == [pytest.approx(whole.mean(), abs=1e-12), 0.0]
    expected = pytest.approx(1.959964 * whole.std() / len(whole) ** 0.5, rel=1e-6)
    assert [width for _, value, width in found if value] == [expected] * 3
    assert [width for _, value, width in found if not value] == [None] * 3


@pytest.mark.slow
def test_ten_million_rows_in_a_million_groups():
    rng = np.random.default_rng(0)
    keys = rng.integers(-(2**62), 2**62, 10**6)[rng.integers(0, 10**6, 10**7)]
    labels = (rng.random(10**7) < 0.3).astype(np.int64)
    rows = rng.random(10**7, np.float32), labels, keys
    feed(GroupedAUC(), [column[:100] for column in rows]).compute()  # loads the kernels
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    metric = feed(GroupedAUC(), rows, parts=2441)
    value = float(metric.compute())
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 300 * 2**20
    assert value == pytest.approx(pandas_gauc(*rows).mean(), abs=1e-12)
