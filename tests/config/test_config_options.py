"""The environment, read once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tzrec.errors import ConfigError
from tzrec.options import ExportVariables, KafkaLookup, Options, from_environment, kafka_lookup


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
        "LOCAL_CACHE_DIR": "/data/cache",
        "INPUT_TILE": "3",
        "QUANT_EMB": "1",
        "ENABLE_TRT": "1",
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
        cache_dir="/data/cache",
        export=ExportVariables(
            quantisation="INT8",
            input_tile=3,
            verbatim={"quantisation": ("QUANT_EMB", "1"), "input_tile": ("INPUT_TILE", "3")},
        ),
        no_effect=("ENABLE_TRT=1",),
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
        ({"QUANT_EMB": "INT9"}, "QUANT_EMB is 'INT9', must be one of 0, 1, FP32"),
        ({"QUANT_EC_EMB": "FP61"}, "did you mean 'FP16'?"),
        ({"INPUT_TILE": "4"}, "INPUT_TILE is '4', must be 0, 1, 2 or 3"),
        ({"ENABLE_AOT": "3"}, "ENABLE_AOT is '3', must be 0, 1 or 2"),
        ({"ENABLE_AOT": "0", "UNIFIED_AOT": "1"}, "disagree: UNIFIED_AOT=1 and ENABLE_AOT=0"),
        ({"MAX_EXPORT_BATCH_SIZE": "0"}, "MAX_EXPORT_BATCH_SIZE is 0, must be at least 1"),
        ({"AOTI_AUTOTUNE_WITH_SAMPLE_INPUTS": "yes"}, "must be 0 or 1"),
    ],
)
def test_wrong_values(environment, words):
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        from_environment(environment)


@pytest.mark.parametrize(
    ("environment", "attribute", "value"),
    [
        ({}, "quantisation", None),
        ({"QUANT_EMB": "0"}, "quantisation", "FP32"),
        ({"QUANT_EMB": "fp16"}, "quantisation", "FP16"),
        ({"QUANT_EMB": "INT4"}, "sequence_quantisation", None),
        ({"QUANT_EC_EMB": "INT4", "QUANT_EMB": "0"}, "sequence_quantisation", "INT4"),
        ({"QUANT_EC_EMB": "1"}, "sequence_quantisation", "INT8"),
        ({"INPUT_TILE": "1"}, "input_tile", 0),
        ({"INPUT_TILE": "2"}, "input_tile", 2),
        ({"ENABLE_AOT": "0"}, "target", "torchscript"),
        ({"ENABLE_AOT": "1"}, "target", "aoti"),
        ({"ENABLE_AOT": "2"}, "target", "aoti_unified"),
        ({"UNIFIED_AOT": "1"}, "target", "aoti_unified"),
        ({"UNIFIED_AOT": "1", "ENABLE_AOT": "1"}, "target", "aoti_unified"),
        ({"UNIFIED_AOT": "0"}, "target", None),
        ({"UNIFIED_AOT": "0", "ENABLE_AOT": "1"}, "target", "aoti"),
        ({"MAX_EXPORT_BATCH_SIZE": "64"}, "max_batch_size", 64),
        ({"AOTI_AUTOTUNE_WITH_SAMPLE_INPUTS": "1"}, "autotune", True),
        ({"AOTI_AUTOTUNE_WITH_SAMPLE_INPUTS": "0"}, "autotune", False),
    ],
)
def test_export_variables(environment, attribute, value):
    options = from_environment(environment)
    assert getattr(options.export, attribute) == value
    assert options.no_effect == ()


@pytest.mark.parametrize(
    "variable",
    [
        "INPUT_TILE_3_ONLINE=1",
        "USE_RTP=1",
        "DIST_QUANT=INT8",
        "USE_DISTRIBUTED_EMBEDDING=1",
        "ENABLE_TRT=1",
        "ONLINE_DENSE_EXPORT=1",
    ],
)
def test_what_there_is_not(variable):
    name, _, value = variable.partition("=")
    assert from_environment({name: value}).no_effect == (variable,)
    assert from_environment({name: ""}).no_effect == ()


CODE = """
import os
before = dict(os.environ)
import tzrec, tzrec.options, tzrec.config, tzrec.cli
assert dict(os.environ) == before, "importing changed the environment"
tzrec.options.prepare_process()
names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "GLOG_minloglevel")
print(*(os.environ.get(name, "-") for name in names))
"""


@pytest.mark.parametrize(
    ("extra", "out"),
    [
        ({}, "PASSIVE 10000 2"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE - 2"),
        ({"GOMP_SPINCOUNT": "5"}, "- 5 2"),
        ({"GLOG_minloglevel": "0"}, "PASSIVE 10000 0"),
    ],
)
def test_the_environment_is_only_written_when_asked_and_never_over_the_user(extra, out):
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=extra, capture_output=True, text=True, cwd=root
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == out.split()


def test_lookups_of_kafka_offsets():
    assert kafka_lookup({}) == KafkaLookup(32, 30.0, 2)
    prefix = "TZREC_KAFKA_OFFSETS_FOR_TIMES_"
    environment = {f"{prefix}BATCH_SIZE": "4", f"{prefix}TIMEOUT": "1.5", f"{prefix}RETRIES": "0"}
    assert kafka_lookup(environment) == KafkaLookup(4, 1.5, 0)
    for name, value in [("BATCH_SIZE", "0"), ("TIMEOUT", "0"), ("TIMEOUT", "x"), ("RETRIES", "-1")]:
        with pytest.raises(ConfigError, match=f"{prefix}{name} is"):
            kafka_lookup({f"{prefix}{name}": value})
