"""A killed run, continued, ends with the same bits as one that was left alone."""

import collections
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

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
}


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
        return Whole(runs, click_files(tmp_path, sparse, num_rows=ROWS), tmp_path, edits)

    return make


@pytest.mark.parametrize("case", CASES)
def test_kills_at_random_points(whole, case):
    """Twenty kills over the cases."""
    rng = random.Random(case)
    run = whole(case)
    while run.num_kills < 4:
        run.killed_run(rng, kills=4 - run.num_kills)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_many_kills(whole, case):
    """Two hundred kills over the cases."""
    rng = random.Random(f"many {case}")
    run = whole(case)
    while run.num_kills < 40:
        run.killed_run(rng, kills=min(rng.randint(1, 8), 40 - run.num_kills))


@pytest.mark.slow
def test_a_kill_at_every_call_of_a_save(whole):
    """Whatever a save has done when it dies, the run goes on."""
    run = whole("plain")
    for call in range(run.num_calls):
        run.draw = lambda rng, call=call: {"save": 2, "call": call}
        run.killed_run(random.Random(call), kills=1)
    assert run.num_kills == run.num_calls


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
