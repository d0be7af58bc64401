"""Ranking models on two gloo ranks learn what one process does.

pytest starts this file under torchrun as the worker.
"""

import json
import sys
from pathlib import Path

import pytest
import test_models_dcn as dcn
import test_models_dlrm as dlrm
import test_models_rank_models as rank_models
import test_models_wukong as wukong
import test_models_xdeepfm as xdeepfm
import torch
import torch.distributed as dist
from google.protobuf import text_format
from models_contract import BCE, make_batch, make_model, make_rows
from rank_runs import torchrun

from tzrec.models.model import TrainWrapper
from tzrec.optim.optimizer import build_optimizer
from tzrec.options import Options, from_environment
from tzrec.protos.train_pb2 import TrainConfig
from tzrec.training.distributed.process_group import process_group
from tzrec.training.distributed.wrap import distribute

TRAIN = """sparse_optimizer { adagrad_optimizer { lr: 0.1 } constant_learning_rate {} }
dense_optimizer { sgd_optimizer { lr: 0.1 } constant_learning_rate {} }"""
CASES = {
    **{f"rank {name}": case for name, case in rank_models.CASES.items()},
    **{f"dcn {name}": case for name, case in dcn.CASES.items()},
    **{f"dlrm {name}": case for name, case in dlrm.CASES.items()},
    **{f"wukong {name}": case for name, case in wukong.CASES.items()},
    **{f"xdeepfm {name}": case for name, case in xdeepfm.CASES.items()},
}
STEPS, ROWS = 3, 64


def run(case):
    """Returns losses, metrics and dense weights after a few steps on this rank's rows."""
    config = text_format.Parse(TRAIN, TrainConfig())
    wrapper = TrainWrapper(make_model(case.config + BCE + "metrics { auc {} }"))
    model = distribute(wrapper, train_config=config, device=torch.device("cpu"))
    optimizer = build_optimizer(model, config)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    base = model.module.model
    for seed in range(STEPS):
        rows = {name: column[rank::ranks] for name, column in make_rows(ROWS, seed).items()}
        optimizer.zero_grad()
        total, (losses, predictions, batch) = model(make_batch(wrapper.model.features, rows))
        base.update_metric(predictions, batch, losses)
        optimizer.backward(total)
        optimizer.step()
    weights = {name: p.detach().flatten().tolist() for name, p in model.named_parameters()}
    return {
        "metrics": {name: float(value) for name, value in base.compute_metric().items()},
        "weights": {name: w for name, w in weights.items() if "embedding_group" not in name},
    }


@pytest.mark.slow
def test_two_ranks_train_as_one(tmp_path):
    with process_group(Options()):
        one = {name: run(case) for name, case in CASES.items()}
    torchrun(__file__, tmp_path / "two.json", seconds=500)
    two = json.loads((tmp_path / "two.json").read_text())
    for name, expected in one.items():
        assert two[name]["metrics"] == pytest.approx(expected["metrics"], rel=1e-4), name
        assert two[name]["weights"].keys() == expected["weights"].keys() != set()
        for weight, values in expected["weights"].items():
            assert two[name]["weights"][weight] == pytest.approx(values, rel=1e-3, abs=1e-5), (
                name,
                weight,
            )


if __name__ == "__main__":
    with process_group(from_environment()):
        found = {name: run(case) for name, case in CASES.items()}
        if dist.get_rank() == 0:
            Path(sys.argv[1]).write_text(json.dumps(found))
