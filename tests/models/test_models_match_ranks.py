"""Two-tower models on two gloo ranks learn what one process does.

pytest starts this file under torchrun as the worker. Sampled negatives are the same on both ranks
here, as a loss over other ones would be another loss.
"""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import test_models_dssm as dssm
import test_models_mind as mind
import test_models_sequence_two_tower as sequence
import torch
import torch.distributed as dist
from google.protobuf import text_format
from match_contract import SOFTMAX, in_batch, make_match_model, sampled_batch, sampled_rows
from models_contract import make_batch, make_rows
from rank_runs import torchrun

from tzrec.models.model import TrainWrapper
from tzrec.optim.optimizer import build_optimizer
from tzrec.options import Options, from_environment
from tzrec.protos.train_pb2 import TrainConfig
from tzrec.training.distributed.process_group import process_group
from tzrec.training.distributed.wrap import distribute

TRAIN = """sparse_optimizer { adagrad_optimizer { lr: 0.1 } constant_learning_rate {} }
dense_optimizer { sgd_optimizer { lr: 0.1 } constant_learning_rate {} }"""
METRICS = SOFTMAX + "metrics { recall_at_k {} } metrics { mrr {} }"
# Training draws routing logits, each rank others.
ZEROS = 'routing_init_method: "zeros" high_dim:'
MIND = dataclasses.replace(
    mind.CASES["mind"], config=mind.CASES["mind"].config.replace("high_dim:", ZEROS)
)
CASES = {
    "dssm": dssm.CASES["dssm"],
    "dssm_v2": dssm.CASES["dssm_v2"],
    "mind": MIND,
    "sequence": sequence.CASES["full"],
}
LOGQ = "negatives { logq_correction: true item_id_feature: 'item' }"
STEPS, ROWS, NEGATIVES = 3, 16, 7


def own_rows(column):
    """Rows of this rank; what is behind them is for all."""
    return column[dist.get_rank() : ROWS : dist.get_world_size()] + column[ROWS:]


def learn(model, batches):
    """Trains; returns the base model and the dense weights."""
    config = text_format.Parse(TRAIN, TrainConfig())
    wrapped = distribute(TrainWrapper(model), train_config=config, device=torch.device("cpu"))
    optimizer = build_optimizer(wrapped, config)
    base = wrapped.module.model
    for batch in batches:
        optimizer.zero_grad()
        total, (losses, predictions, batch) = wrapped(batch)
        base.update_metric(predictions, batch, losses)
        optimizer.backward(total)
        optimizer.step()
    named = wrapped.named_parameters()
    return base, {n: p.detach().flatten().tolist() for n, p in named if "embedding_group" not in n}


def run(case):
    """Returns metrics and dense weights after a few steps on this rank's rows."""
    shared = case.shared_tables
    model = make_match_model(
        case.text(objectives=METRICS), sampler="NegativeSampler", shared=shared
    )
    batches = []
    for seed in range(STEPS):
        rows = sampled_rows(ROWS, NEGATIVES, hard=False, seed=seed)
        rows = {name: own_rows(column) for name, column in rows.items()}
        batches.append(sampled_batch(model, rows, hard=False, shared=shared))
    base, weights = learn(model, batches)
    metrics = {name: float(value) for name, value in base.compute_metric().items()}
    return {"metrics": metrics, "weights": weights}


def count():
    """Returns the frequencies of items after a few steps on this rank's rows."""
    model = make_match_model(in_batch(dssm.CASES["dssm"], LOGQ))
    rows = [make_rows(ROWS, seed) for seed in range(STEPS)]
    parts = [{name: own_rows(column) for name, column in part.items()} for part in rows]
    base, _ = learn(model, [make_batch(model.features, part) for part in parts])
    return {name: buffer.tolist() for name, buffer in base.item_frequency.named_buffers()}


def run_all():
    return {name: run(case) for name, case in CASES.items()}, count()


@pytest.mark.slow
def test_two_ranks_train_as_one(tmp_path):
    with process_group(Options()):
        one, frequencies = run_all()
    torchrun(__file__, tmp_path / "two.json", seconds=500)
    two, counted = json.loads((tmp_path / "two.json").read_text())
    assert counted == frequencies
    for name, expected in one.items():
        assert two[name]["metrics"] == pytest.approx(expected["metrics"], rel=1e-4), name
        assert two[name]["weights"].keys() == expected["weights"].keys() != set()
        for weight, values in expected["weights"].items():
            found = two[name]["weights"][weight]
            assert found == pytest.approx(values, rel=1e-3, abs=1e-5), (name, weight)


if __name__ == "__main__":
    with process_group(from_environment()):
        found = run_all()
        if dist.get_rank() == 0:
            Path(sys.argv[1]).write_text(json.dumps(found))
