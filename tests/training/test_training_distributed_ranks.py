"""Two gloo ranks against one process: losses, checkpoints that change the number of ranks.

pytest starts this file under torchrun as the worker.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import test_training_distributed as single
import torch
import torch.distributed as dist
from torchrec.modules.embedding_configs import PoolingType
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from tzrec.errors import Unsupported
from tzrec.options import Options, from_environment
from tzrec.training.distributed.process_group import process_group

ADAGRAD, ROWWISE = single.BOTH[1:]
# What the planner may choose from, and what it is asked for.
ROW_WISE = 'global_embedding_constraints { sharding_types: "row_wise" }'
TABLE_WISE = 'global_embedding_constraints { sharding_types: "table_wise" }'
CASES = {
    "adagrad": (ADAGRAD, ""),
    "adagrad row_wise": (ADAGRAD, ROW_WISE),
    "rowwise_adagrad table_wise": (ROWWISE, TABLE_WISE),
    "clipped row_wise": (single.CLIPPED[1], ROW_WISE),
}
SPLIT, END = 3, 6


def build(case, **kwargs):
    """Clipping needs sums: shards differ in where they divide a mean."""
    if "clipped" in case:
        kwargs["second"] = PoolingType.SUM
    return single.build(CASES[case][0], **kwargs)


def my_rows(kjt, label):
    """Returns the rows of this rank."""
    size = single.BATCH // dist.get_world_size()
    first, last = dist.get_rank() * size, (dist.get_rank() + 1) * size
    values, lengths = [], []
    for jt in kjt.to_dict().values():
        offsets = jt.offsets()
        values.append(jt.values()[offsets[first] : offsets[last]])
        lengths.append(jt.lengths()[first:last])
    mine = KeyedJaggedTensor(kjt.keys(), torch.cat(values), lengths=torch.cat(lengths))
    return mine, label[first:last]


def run(model, optimizer, seeds):
    """Returns the losses of the whole batch."""
    losses = []
    for seed in seeds:
        optimizer.zero_grad()
        loss = model(*my_rows(*single.batch(seed)))
        optimizer.backward(loss)
        optimizer.step()
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        losses.append(float(mean) / dist.get_world_size())
    return losses


def work(directory):
    """Trains every case on this rank; the first rank writes down what happened."""
    results = {}
    for case, (_, more) in CASES.items():
        model, optimizer = build(case, more=more)
        losses = run(model, optimizer, range(SPLIT))
        single.save(directory / f"two {case}", model, optimizer)
        losses += run(model, optimizer, range(SPLIT, END))
        second, restored = build(case, more=more, seed=1)
        single.load(directory / f"one {case}", second, restored)
        results[case] = {
            "losses": losses,
            "resumed": run(second, restored, range(SPLIT, END)),
            "sharding": sorted(
                {p.sharding_type for plan in model.plan.plan.values() for p in plan.values()}
            ),
        }
    try:
        single.build(single.ADAM)
    except Unsupported as error:
        results["adam"] = str(error)
    if dist.get_rank() == 0:
        (directory / "results.json").write_text(json.dumps(results))


@pytest.mark.slow
def test_two_ranks_train_as_one(tmp_path):
    one = {}
    with process_group(Options()):
        for case in CASES:
            model, optimizer = build(case)
            losses = run(model, optimizer, range(SPLIT))
            single.save(tmp_path / f"one {case}", model, optimizer)
            one[case] = losses + run(model, optimizer, range(SPLIT, END))

        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        done = subprocess.run(
            [*launcher, "--nproc_per_node=2", __file__, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},  # noqa: TID251
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        two = json.loads((tmp_path / "results.json").read_text())

        for case, (_, more) in CASES.items():
            assert two[case]["losses"] == pytest.approx(one[case], rel=1e-5)
            assert two[case]["resumed"] == pytest.approx(one[case][SPLIT:], rel=1e-5)
            if more:
                assert two[case]["sharding"] == [case.split()[1]]
            second, restored = build(case, seed=1)
            single.load(tmp_path / f"two {case}", second, restored)
            resumed = run(second, restored, range(SPLIT, END))
            assert resumed == pytest.approx(one[case][SPLIT:], rel=1e-5)
    assert "sparse optimizer adam on a CPU with several processes" in two["adam"]


if __name__ == "__main__":
    with process_group(from_environment()):
        work(Path(sys.argv[1]))
