"""Several ranks publish together or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# Rank 1 is a fork of rank 0, made before there is any thread: torch is loaded once.
RANKS = """
import os, sys, traceback
sys.path.insert(0, sys.argv[1])
import torch.distributed as dist
from test_deploy_batch_predict import double, make_batches
from tzrec.datasets.parquet_dataset import ParquetWriter
from tzrec.deploy.batch_predict import predict_table
from tzrec.errors import DataError

root, child = sys.argv[2], os.fork()
rank = 0 if child else 1

def predict(case, num_rows, forward=double):
    writer = ParquetWriter(f"{root}/{case}", rank=rank)
    return predict_table(forward, make_batches(num_rows, 2), writer)

def broken(batch):
    if rank == 1:
        raise ValueError("rank 1 is broken")
    return double(batch)

def run():
    dist.init_process_group("gloo", init_method=f"file://{root}/store", rank=rank, world_size=2)
    assert predict("whole", 5).num_rows == 5
    assert predict("short", [5, 0][rank]).num_rows == [5, 0][rank]
    try:
        predict("empty", 0)
        raise AssertionError("no rows on any rank were accepted")
    except DataError:
        pass
    predict("broken", 5, broken)

try:
    run()
    error = "none"
except BaseException:
    error = traceback.format_exc()
with open(f"{root}/error-{rank}", "w") as file:
    file.write(error)
sys.stdout.flush()
if rank == 0:
    os.waitpid(child, 0)
os._exit(0)
"""


def test_ranks(tmp_path):
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", RANKS, here, str(tmp_path)]
    subprocess.run(command, check=True, timeout=300)
    errors = [(tmp_path / f"error-{rank}").read_text() for rank in range(2)]
    assert "rank 1 is broken" in errors[1]
    # Rank 0 learns of it when the other one is gone, and does not publish either.
    assert "RuntimeError" in errors[0], errors[0]
    assert "all_reduce" in errors[0], errors[0]
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
