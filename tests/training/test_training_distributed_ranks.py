"""Two and three gloo ranks against one process: losses, checkpoints that change the ranks.

pytest starts this file under torchrun as the worker.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import test_training_distributed as single
import torch
import torch.distributed as dist
from rank_runs import torchrun
from torchrec.modules.embedding_configs import PoolingType
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from tzrec.errors import Unsupported
from tzrec.optim.optimizer import build_optimizer
from tzrec.options import Options, from_environment
from tzrec.protos.feature_pb2 import ParameterConstraints
from tzrec.training.distributed.process_group import process_group
from tzrec.training.distributed.wrap import distribute

SGD, ADAGRAD, ROWWISE = single.BOTH
# Of the 16 rows of a batch, as many as 2 and 3 ranks share evenly.
ROWS = 12
# Optimizer, and what the tables of the features a, b and c must be; None = what the planner likes.
CASES = {
    "adagrad": (ADAGRAD, None),
    "adagrad row_wise": (ADAGRAD, ["row_wise"] * 3),
    "rowwise_adagrad table_wise": (ROWWISE, ["table_wise"] * 3),
    "clipped row_wise": (single.CLIPPED[1], ["row_wise"] * 3),
    "sgd data_parallel": (SGD, ["data_parallel"] * 3),
    "adagrad data_parallel": (ADAGRAD, ["data_parallel"] * 3),
    "rowwise_adagrad data_parallel": (ROWWISE, ["data_parallel"] * 3),
    "adagrad column_wise": (ADAGRAD, ["column_wise"] * 3),
    "adagrad mixed": (ADAGRAD, ["data_parallel", "column_wise", "row_wise"]),
    "rowwise_adagrad mixed": (ROWWISE, ["row_wise", "data_parallel", "table_wise"]),
}
SPLIT, END = 3, 6


def build(case, seed=0):
    """Clipping needs sums: shards differ in where they divide a mean."""
    sparse, kinds = CASES[case]
    torch.manual_seed(seed)
    features = [
        SimpleNamespace(
            name=name, embedding_constraints=ParameterConstraints(sharding_types=[kind])
        )
        for name, kind in zip("abc", kinds or [], strict=bool(kinds))
    ]
    pooling = PoolingType.SUM if "clipped" in case else PoolingType.MEAN
    config = single.config_of(sparse, "dense_l2: 0.01 grad_clipping { clipping_type: 'norm' }")
    model = distribute(
        single.Wrapper(second=pooling), train_config=config, device=single.CPU, features=features
    )
    return model, build_optimizer(model, config)


def my_rows(kjt, label, rows=single.BATCH):
    """Returns the rows of this rank, of the first ``rows``."""
    size = rows // dist.get_world_size()
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
        loss = model(*my_rows(*single.batch(seed), ROWS))
        optimizer.backward(loss)
        optimizer.step()
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        losses.append(float(mean) / dist.get_world_size())
    return losses


def resumed(case, directory):
    model, optimizer = build(case, seed=1)
    single.load(directory, model, optimizer)
    return run(model, optimizer, range(SPLIT, END))


def work(directory, loads):
    """Trains every case on this rank; the first rank writes down what happened."""
    results, size = {}, dist.get_world_size()
    for case in CASES:
        model, optimizer = build(case)
        losses = run(model, optimizer, range(SPLIT))
        if "1" in loads:
            single.save(directory / f"{size} {case}", model, optimizer)
        losses += run(model, optimizer, range(SPLIT, END))
        results[case] = {
            "losses": losses,
            "resumed": {by: resumed(case, directory / f"{by} {case}") for by in loads},
            "sharding": {
                name: where.sharding_type
                for plan in model.plan.plan.values()
                for name, where in plan.items()
            },
        }
    for sparse in (single.ADAM,):
        try:
            single.build(sparse)
        except Unsupported as error:
            results["adam"] = str(error)
    if dist.get_rank() == 0:
        (directory / f"results-{size}.json").write_text(json.dumps(results))


def launch(directory, size, *loads):
    torchrun(__file__, directory, *loads, ranks=size)
    return json.loads((directory / f"results-{size}.json").read_text())


def test_two_and_three_ranks_train_as_one(tmp_path):
    """And each of them goes on with what any of them saved, optimizer states included."""
    one = {}
    with process_group(Options()):
        for case in CASES:
            model, optimizer = build(case)
            losses = run(model, optimizer, range(SPLIT))
            single.save(tmp_path / f"1 {case}", model, optimizer)
            one[case] = losses + run(model, optimizer, range(SPLIT, END))

        found = {3: launch(tmp_path, 3, 1), 2: launch(tmp_path, 2, 1, 3)}
        again = launch(tmp_path, 3, 2, 3)

        for case, (_, kinds) in CASES.items():
            for size, results in found.items():
                assert results[case]["losses"] == pytest.approx(one[case], rel=1e-5), case
                if kinds:
                    placed = results[case]["sharding"]
                    assert placed == dict(zip(("sum", "mean", "rows"), kinds, strict=True))
                after = resumed(case, tmp_path / f"{size} {case}")
                assert after == pytest.approx(one[case][SPLIT:], rel=1e-5), case
            for results in (*found.values(), again):
                for losses in results[case]["resumed"].values():
                    assert losses == pytest.approx(one[case][SPLIT:], rel=1e-5), case
    assert "sparse optimizer adam on a CPU with several processes" in found[2]["adam"]


if __name__ == "__main__":
    with process_group(from_environment()):
        work(Path(sys.argv[1]), sys.argv[2:])
