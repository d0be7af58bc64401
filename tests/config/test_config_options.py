"""The environment, read once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tzrec.errors import ConfigError
from tzrec.options import Options, from_environment


def test_an_empty_environment_is_one_process():
    assert from_environment({}) == Options()


def test_every_variable_changes_something():
    environment = {
        "LOG_LEVEL": "warn",
        "PYTHON_RANDOM_SEED": "7",
        "USE_DETERMINISTIC_ALGORITHMS": "1",
        "USE_HASH_NODE_ID": "1",
        "PREDICT_QUEUE_TIMEOUT": "5",
        "PROCESS_GROUP_TIMEOUT_SECONDS": "60",
        "RANK": "3",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost",
        "INPUT_TILE": "3",
        "QUANT_EMB": "INT8",
    }
    assert from_environment(environment) == Options(
        log_level="WARNING",
        seed=7,
        deterministic=True,
        string_ids=True,
        predict_queue_timeout=5,
        process_group_timeout=60,
        rank=3,
        local_rank=1,
        world_size=4,
        local_world_size=2,
        launched=True,
        no_effect=("INPUT_TILE=3", "QUANT_EMB=INT8"),
    )


@pytest.mark.parametrize("name", ["PYTHON_RANDOM_SEED", "TORCH_MANUAL_SEED", "NUMPY_MANUAL_SEED"])
def test_seed_aliases(name):
    assert from_environment({name: "3"}).seed == 3


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"RANK": "x"}, "environment variable RANK is 'x', not an integer"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is 0, must be at least 1"),
        ({"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "a"}, "RANK is 2, but WORLD_SIZE is 2"),
        ({"WORLD_SIZE": "2"}, "MASTER_ADDR is not set"),
        ({"LOG_LEVEL": "DEBUGG"}, "did you mean 'DEBUG'?"),
        ({"USE_DETERMINISTIC_ALGORITHMS": "yes"}, "must be 0 or 1"),
        ({"TORCH_MANUAL_SEED": "1", "PYTHON_RANDOM_SEED": "2"}, "disagree on the seed"),
    ],
)
def test_wrong_values(environment, words):
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        from_environment(environment)


def test_quantisation_switched_off_is_not_mentioned():
    assert from_environment({"QUANT_EMB": "0", "INPUT_TILE": ""}).no_effect == ()


CODE = """
import os
before = dict(os.environ)
import tzrec, tzrec.options, tzrec.config, tzrec.cli
assert dict(os.environ) == before, "importing changed the environment"
tzrec.options.prepare_process()
print(os.environ["OMP_WAIT_POLICY"], os.environ["GLOG_minloglevel"])
"""


@pytest.mark.parametrize(
    ("extra", "out"), [({}, "PASSIVE 2"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE 2")]
)
def test_the_environment_is_only_written_when_asked_and_never_over_the_user(extra, out):
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=extra, capture_output=True, text=True, cwd=root
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == out.split()
