"""Clipping, averages and gradient summaries of two gloo ranks against one process.

pytest starts this file under torchrun as the worker.
"""

import json
import sys
from pathlib import Path

import pytest
import test_training_distributed as single
import torch
import torch.distributed as dist
from rank_runs import torchrun
from test_training_distributed_ranks import my_rows
from torchrec.modules.embedding_configs import PoolingType

from tzrec.optim.optimizer import build_optimizer
from tzrec.options import Options, from_environment
from tzrec.training.distributed.process_group import process_group
from tzrec.training.distributed.wrap import distribute

CLIP = "grad_clipping { clipping_type: 'norm' max_gradient: 0.3 %s }"
CASES = {
    "clip": CLIP % "",
    "global clip": CLIP % "enable_global_grad_clip: true",
    "value": "grad_clipping { clipping_type: 'value' max_gradient: 0.1 }",
    "plain": "",
}
STEPS = 4


def train(more):
    """Returns what this rank sees: gradient norms, average, weights."""
    torch.manual_seed(0)
    sgd = "sgd_optimizer { lr: 0.1 }"
    config = single.config_of(sgd, more, dense=f"{sgd} ema {{ decay: 0.5 }}")
    wrapper = single.Wrapper(second=PoolingType.SUM)
    model = distribute(wrapper, train_config=config, device=single.CPU)
    optimizer = build_optimizer(model, config)
    norms = []

    def observe(named):
        norms.append(float(torch.cat([g.flatten() for g in named.values()]).norm()))

    for seed in range(STEPS):
        optimizer.on_gradients = observe
        optimizer.zero_grad()
        optimizer.backward(model(*my_rows(*single.batch(seed))))
        optimizer.step()
    dense = {name: p for name, p in model.named_parameters() if "linear" in name}
    average = optimizer.ema.state_dict()
    return {
        "norms": norms,
        "weights": {name: p.detach().flatten().tolist() for name, p in dense.items()},
        "average": {name: average[name].flatten().tolist() for name in dense},
        "averaged": optimizer.ema.num_averaged,
    }


def work(directory):
    """Trains every case on this rank and writes down what it saw."""
    results = {case: train(more) for case, more in CASES.items()}
    (directory / f"{dist.get_rank()}.json").write_text(json.dumps(results))


@pytest.mark.slow
def test_two_ranks_clip_and_average_as_one(tmp_path):
    with process_group(Options()):
        one = {case: train(more) for case, more in CASES.items()}
    torchrun(__file__, tmp_path)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first["clip"] == first["global clip"]
    assert min(first["clip"]["norms"]) > 0.3  # clipping had something to do
    for case, expected in one.items():
        found = first[case]
        assert found["averaged"] == expected["averaged"] == STEPS
        assert found["norms"] == pytest.approx(expected["norms"], rel=1e-5)
        for part in ("weights", "average"):
            for name, values in expected[part].items():
                assert found[part][name] == pytest.approx(values, rel=1e-4, abs=1e-6), case
    assert one["clip"]["weights"] != one["plain"]["weights"]


if __name__ == "__main__":
    with process_group(from_environment()):
        work(Path(sys.argv[1]))
