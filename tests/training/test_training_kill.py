"""A killed run, continued, ends with the same bits as one that was left alone."""

import collections
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from kill_runs import Runs
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys

from tzrec.training.checkpoint.find import list_checkpoints, read_results

ROWS, EPOCHS = 400, 3
COMMON = {
    "data_config.batch_size": 32,
    "train_config.num_epochs": EPOCHS,
    "train_config.save_checkpoints_steps": 6,
    "train_config.log_step_count_steps": 100,
}
ADAGRAD, ADAM = "adagrad_optimizer", "adam_optimizer"
# Sparse optimizer, and what else is different.
CASES = {
    "plain": (ADAGRAD, {}),
    "accumulation": (ADAM, {"train_config.gradient_accumulation_steps": 4}),
    "each pass": (
        "rowwise_adagrad_optimizer",
        {
            "train_config.save_checkpoints_epochs": 1,
            "train_config.dense_optimizer.exponential_decay_learning_rate.by_epoch": "true",
        },
    ),
    "average": (
        ADAGRAD,
        {
            "train_config.dense_optimizer.ema.decay": 0.9,
            "train_config.keep_checkpoint_max": 2,
            "eval_config.use_dense_ema": "true",
        },
    ),
    "scaler": (
        ADAM,
        {
            "train_config.mixed_precision": "BF16",
            "train_config.grad_scaler.init_scale": 1024,
            "train_config.grad_scaler.growth_interval": 3,
            "train_config.early_stop.metric": "auc",
            "train_config.early_stop.patience": 50,
        },
    ),
    "bad rows": (
        "lamb_optimizer",
        {
            "data_config.max_bad_rows": 100,
            "data_config.batch_cost_size": 100,
            "data_config.sample_cost_field": "cost",
            "data_config.shuffle": "false",
            "data_config.sample_mask_prob": 0.1,
        },
    ),
}
BAD_ROWS = [50, 177, 333]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, click_files):
    root = tmp_path_factory.mktemp("warm")
    config = click_files(root, ADAGRAD, num_rows=ROWS)
    warm = Runs(["train", str(config), "--set", "train_config.num_epochs=1"])
    yield warm
    warm.close()


def arguments(config, run, edits):
    settings = [f"{name}={value}" for name, value in (COMMON | edits).items()]
    flags = [part for setting in settings for part in ("--set", setting)]
    return ["train", str(config), "--model_dir", str(run), "--continue_train", *flags]


def spoil(root):
    """Gives some rows an id that no table has, and all rows a cost."""
    for name, bad in (("train", BAD_ROWS), ("eval", [])):
        path = root / f"{name}.parquet"
        table = pq.read_table(path)
        users = table["user_id"].to_numpy().copy()
        users[bad] = 4000
        table = table.set_column(1, "user_id", pa.array(users))
        costs = pa.array(np.random.default_rng(0).integers(1, 6, len(users)))
        pq.write_table(table.append_column("cost", costs), path, row_group_size=150)


def read_log(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def rows_of(info):
    """The row numbers in a batch's intervals, of all files."""
    return [row for part in info.values() for start, end in part for row in range(start, end)]


class Whole:
    """A run that nobody killed, and what it left."""

    def __init__(self, runs, config, root, edits):
        self.runs, self.config, self.root, self.edits = runs, config, root, edits
        log = root / "whole.log"
        assert runs.run(arguments(config, root / "whole", edits), log=log) == 0
        entries = read_log(log)
        self.steps = [entry for entry in entries if "rows" in entry]
        self.num_calls = max(entry["calls"] for entry in entries if "calls" in entry)
        self.num_kills = 0

    def killed_run(self, rng, kills):
        """Kills a new run at ``kills`` random points; compares it when it has ended."""
        run = self.root / f"killed-{rng.random()}"
        log = run.with_suffix(".log")
        command = arguments(self.config, run, self.edits)
        for _ in range(kills):
            code = self.runs.run(command, point=self.draw(rng), log=log)
            if code == 0:
                break
            assert code == -signal.SIGKILL
            self.num_kills += 1
        # It may have ended already.
        assert self.runs.run(command, log=log) == 0
        self.compare(run, log)

    def draw(self, rng):
        kind = rng.choice(["step", "step", "save", "save", "evaluation"])
        if kind == "step":
            return {"step": rng.randint(1, 12), "when": rng.choice(["start", "backward", "end"])}
        if kind == "save":
            return {"save": rng.randint(1, 2), "call": rng.randrange(self.num_calls)}
        return {"evaluation": rng.randint(1, 2), "batch": rng.randrange(17)}

    def compare(self, run, log):
        # What came of the last time that each step was done.
        done = {entry["step"]: entry for entry in read_log(log) if "rows" in entry}
        assert [done[step] for step in sorted(done)] == self.steps
        consumed = collections.defaultdict(list)
        for entry in done.values():
            consumed[entry["epoch"]] += rows_of(entry["rows"])
        assert {epoch: sorted(rows) for epoch, rows in consumed.items()} == {
            epoch: list(range(ROWS)) for epoch in range(EPOCHS)
        }
        assert read_results(self.root / "whole") == read_results(run)
        expected = list_checkpoints(self.root / "whole")[-1]
        found = list_checkpoints(run)[-1]
        assert found.name == expected.name
        same(everything(expected), everything(found))


def everything(checkpoint):
    """All that a checkpoint holds, by file or tensor name."""
    values = {
        path.parent.name: _load_state_dict_from_keys(checkpoint_id=str(path.parent))
        for path in checkpoint.rglob(".metadata")
    }
    assert {"model", "optimizer"} <= set(values)
    values["trainer"] = torch.load(checkpoint / "trainer_state.pt", weights_only=True)
    values["position"] = json.loads((checkpoint / "dataloader_state.json").read_text())
    return values


def same(expected, found, where=""):
    """Asserts that nested values are equal to the last bit."""
    if isinstance(expected, dict):
        assert expected.keys() == found.keys(), where
        for key in expected:
            same(expected[key], found[key], f"{where}/{key}")
    elif isinstance(expected, list | tuple):
        assert len(expected) == len(found), where
        for i, (one, other) in enumerate(zip(expected, found, strict=True)):
            same(one, other, f"{where}/{i}")
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(expected, found), where
    else:
        assert expected == found, where


@pytest.fixture
def whole(runs, click_files, tmp_path):
    def make(case):
        sparse, edits = CASES[case]
        config = click_files(tmp_path, sparse, num_rows=ROWS)
        if case == "bad rows":
            spoil(tmp_path)
        return Whole(runs, config, tmp_path, edits)

    return make


@pytest.mark.parametrize("case", CASES)
def test_kills_at_random_points(whole, case):
    """Twenty and more kills over the cases."""
    rng = random.Random(case)
    run = whole(case)
    while run.num_kills < 4:
        run.killed_run(rng, kills=4 - run.num_kills)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_many_kills(whole, case):
    """Two hundred and forty kills over the cases."""
    rng = random.Random(f"many {case}")
    run = whole(case)
    while run.num_kills < 40:
        run.killed_run(rng, kills=min(rng.randint(1, 8), 40 - run.num_kills))


@pytest.mark.slow
def test_a_kill_throughout_a_save(whole):
    """Whatever a save has done when it dies, the run goes on; sixty points of one save."""
    run = whole("plain")
    points = np.linspace(0, run.num_calls - 1, 60).astype(int).tolist()
    for call in points:
        run.draw = lambda rng, call=call: {"save": 2, "call": call}
        run.killed_run(random.Random(call), kills=1)
    assert run.num_kills == len(points)


@pytest.mark.slow
def test_a_kill_from_outside(click_config, tmp_path):
    """Whatever the process does at that moment; in a process of its own, with workers."""
    config = click_config(ADAM, num_rows=4000)
    edits = {
        "data_config.num_workers": 2,
        "data_config.loader": "PROCESS",
        "train_config.save_checkpoints_steps": 40,
    }

    def start(run):
        command = [sys.executable, "-m", "tzrec.cli", *arguments(config, run, edits)]
        root = Path(__file__).parents[2]
        return subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL)

    assert start(tmp_path / "whole").wait(timeout=300) == 0
    rng = random.Random(1)
    for _ in range(3):
        process = start(tmp_path / "killed")
        known = len(list_checkpoints(tmp_path / "killed"))
        while process.poll() is None and len(list_checkpoints(tmp_path / "killed")) == known:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        process.wait(timeout=60)
    assert start(tmp_path / "killed").wait(timeout=300) == 0
    expected, found = (list_checkpoints(tmp_path / name)[-1] for name in ("whole", "killed"))
    assert found.name == expected.name
    same(everything(expected), everything(found))
    assert read_results(tmp_path / "whole") == read_results(tmp_path / "killed")
