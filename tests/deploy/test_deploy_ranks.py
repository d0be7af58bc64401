"""Several ranks publish together or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

RANK = """
import sys
sys.path.insert(0, sys.argv[1])
import torch.distributed as dist
from test_deploy_batch_predict import double, make_batches
from tzrec.datasets.parquet_dataset import ParquetWriter
from tzrec.deploy.batch_predict import predict_table
from tzrec.errors import DataError

rank, root = int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{root}/store", rank=rank, world_size=2)

def predict(case, num_rows, forward=double):
    writer = ParquetWriter(f"{root}/{case}", rank=rank)
    return predict_table(forward, make_batches(num_rows, 2), writer)

def broken(batch):
    if rank == 1:
        raise ValueError("rank 1 is broken")
    return double(batch)

assert predict("whole", 5).num_rows == 5
assert predict("short", [5, 0][rank]).num_rows == [5, 0][rank]
try:
    predict("empty", 0)
    raise AssertionError
except DataError:
    pass
predict("broken", 5, broken)
"""


def test_ranks(tmp_path):
    here = str(Path(__file__).parent)
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, here, str(rank), str(tmp_path)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [rank.communicate(timeout=300)[1] for rank in ranks]
    assert "rank 1 is broken" in errors[1]
    assert [rank.returncode for rank in ranks] == [1, 1], errors
    files = {
        case: sorted(p.name for p in (tmp_path / case).iterdir())
        for case in ("whole", "short", "empty", "broken")
    }
    assert files == {
        "whole": ["part-0.parquet", "part-1.parquet"],
        "short": ["part-0.parquet"],
        "empty": [],
        "broken": [],
    }
