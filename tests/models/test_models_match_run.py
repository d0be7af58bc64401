"""Two-tower models through the whole program: train, evaluate, go on after a stop."""

import json

import pytest
import torch
from match_jobs import run, write_job

from tzrec.training.checkpoint.files import StateFiles
from tzrec.training.checkpoint.find import list_checkpoints

LOGQ = 'negatives { logq_correction: true mask_accidental_hits: true item_id_feature: "item_id" }'
METRICS = (
    "metrics { mrr {} } metrics { ndcg_at_k { top_k: 3 } } metrics { recall_at_k { top_k: 1 } }"
)


def job(root, *, with_sampler, negatives=LOGQ, more=""):
    root.mkdir()
    path = write_job(root, with_sampler=with_sampler, more="eval_config {}")
    text = path.read_text().replace(
        'eval_input_path: ""', f'eval_input_path: "{root}/test.parquet"'
    )
    text = text.replace("temperature: 0.1", f"temperature: 0.1 {negatives}")
    text = text.replace("losses {", f"{METRICS} losses {{", 1).replace("dropout_ratio: [0.1]", more)
    path.write_text(text)
    return path


def state(root):
    files = StateFiles(list_checkpoints(root / "run")[-1] / "model")
    return {name: files.whole(name) for name in files.shapes}


def results(root):
    lines = (root / "run" / "train_eval_result_v2.txt").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("with_sampler", [False, True])
def test_a_resumed_run_equals_an_unbroken_one(tmp_path, with_sampler):
    text = LOGQ.replace("true", "true in_batch_and_sampled: true", 1) if with_sampler else LOGQ
    whole, parts = (
        job(tmp_path / name, with_sampler=with_sampler, negatives=text)
        for name in ("whole", "parts")
    )
    assert run("train", whole, "--set", "train_config.num_epochs=2") == 0
    assert run("train", parts, "--set", "train_config.num_epochs=1") == 0
    assert run("train", parts, "--continue", "--set", "train_config.num_epochs=2") == 0
    first, second = state(whole.parent), state(parts.parent)
    assert first.keys() == second.keys()
    assert {name for name in first if ".item_frequency." in name}
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_training_finds_the_taste_of_users(tmp_path):
    path = job(tmp_path / "job", with_sampler=True, negatives="")
    assert run("train", path) == 0
    *_, last = results(path.parent)
    assert {"recall@5", "mrr", "ndcg@3", "recall@1", "softmax_cross_entropy"} <= set(last)
    # A quarter of the 16 negatives have the user's taste, so that four stand before the positive
    # of who knows no more than that; by chance recall@5 would be 0.3.
    assert last["recall@5"] > 0.6
