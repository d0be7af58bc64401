"""Multi-task models on two gloo ranks learn and measure what one process does.

pytest starts this file under torchrun as the worker.
"""

import json
import sys
from pathlib import Path

import pytest
import test_models_esmm as esmm
import test_models_mmoe as mmoe
import test_models_ple as ple
import torch
import torch.distributed as dist
from google.protobuf import text_format
from models_contract import make_batch, make_model
from rank_runs import torchrun

from tzrec.errors import Unsupported
from tzrec.models.model import TrainWrapper
from tzrec.optim.optimizer import build_optimizer
from tzrec.options import Options, from_environment
from tzrec.protos.train_pb2 import TrainConfig
from tzrec.training.distributed.process_group import process_group
from tzrec.training.distributed.wrap import distribute

TRAIN = """sparse_optimizer { sgd_optimizer { lr: 0.1 } constant_learning_rate {} }
dense_optimizer { sgd_optimizer { lr: 0.1 } constant_learning_rate {} }"""
CASES = {
    "mmoe": mmoe.CASES["mmoe"],
    "ple": ple.CASES["two_layers"],
    "simple_multi_task": mmoe.CASES["simple_multi_task"],
    "esmm": esmm._case(ctr=esmm.BCE + esmm.METRICS, cvr=esmm.BCE + esmm.METRICS),
}
STEPS, ROWS = 3, 64


def run(case):
    """Returns losses, metrics and weights after a few steps on this rank's rows."""
    config = text_format.Parse(TRAIN, TrainConfig())
    wrapper = TrainWrapper(make_model(case.config, labels=case.labels))
    model = distribute(wrapper, train_config=config, device=torch.device("cpu"))
    optimizer = build_optimizer(model, config)
    rank, ranks = dist.get_rank(), dist.get_world_size()

    def batch(seed):
        rows = case.rows(ROWS, seed)
        own = {name: values[rank::ranks] for name, values in rows.items()}
        return make_batch(wrapper.model.features, own, labels=case.labels)

    for seed in range(STEPS):
        optimizer.zero_grad()
        total, _ = model(batch(seed))
        optimizer.backward(total)
        optimizer.step()
    base = model.module.model
    model.eval()
    with torch.no_grad():
        for seed in range(STEPS):
            _, (losses, predictions, rows) = model(batch(seed))
            base.update_metric(predictions, rows, losses)
    dense = {n: p.detach().flatten().tolist() for n, p in model.named_parameters() if "tower" in n}
    metrics = {name: float(value) for name, value in base.compute_metric().items()}
    return {"metrics": metrics, "weights": dense}


def refused():
    """Tells whether Pareto weights are refused on this rank."""
    config = text_format.Parse(TRAIN, TrainConfig())
    case = CASES["mmoe"]
    wrapper = TrainWrapper(
        make_model(case.config + "use_pareto_loss_weight: true", labels=case.labels)
    )
    model = distribute(wrapper, train_config=config, device=torch.device("cpu"))
    try:
        model(make_batch(wrapper.model.features, case.rows(8), labels=case.labels))
    except Unsupported:
        return True
    return False


@pytest.mark.slow
def test_two_ranks_are_as_one(tmp_path):
    with process_group(Options()):
        one = {name: run(case) for name, case in CASES.items()}
        assert not refused()
    torchrun(__file__, tmp_path)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first.pop("pareto is refused")
    for name, expected in one.items():
        found = first[name]
        assert found["metrics"] == pytest.approx(expected["metrics"], abs=1e-5), name
        assert found["weights"].keys() == expected["weights"].keys()
        for parameter, values in expected["weights"].items():
            assert found["weights"][parameter] == pytest.approx(values, rel=1e-3, abs=1e-6), name


if __name__ == "__main__":
    with process_group(from_environment()):
        seen = {name: run(case) for name, case in CASES.items()}
        seen["pareto is refused"] = refused()
        target = Path(sys.argv[1]) / f"{dist.get_rank()}.json"
        target.write_text(json.dumps(seen))
