"""The setting of the allocator."""

import ctypes
import subprocess
import sys
from unittest.mock import Mock

import pyarrow as pa
import pytest

from tzrec.cli import job
from tzrec.datasets import workers
from tzrec.fg import FgHandler
from tzrec.fg.kernels import use_backend
from tzrec.fg.memory import keep_freed_memory
from tzrec.tools import shards

CODE = """
import resource, sys
import numpy as np
from tzrec.fg.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()

def batch():
    return [np.ones(400_000) for _ in range(8)]

batch(), batch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    batch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.fixture(autouse=True)
def _asked_anew():
    keep_freed_memory.cache_clear()
    yield
    keep_freed_memory.cache_clear()


def faults(how):
    command = [sys.executable, "-c", CODE, how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not keep_freed_memory(), reason="needs the malloc of glibc")
def test_pages_stay():
    assert faults("keep") * 10 < faults("leave")


def test_other_systems_are_left_alone(monkeypatch):
    def fails(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", fails)
    assert not keep_freed_memory()


def test_a_libc_without_mallopt(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not keep_freed_memory()


def test_a_handler_leaves_the_process_alone(monkeypatch):
    asked = []
    monkeypatch.setattr(ctypes, "CDLL", asked.append)
    use_backend("numpy")
    entry = {"feature_type": "id_feature", "feature_name": "f", "expression": "user:c"}
    handler = FgHandler({"features": [{**entry, "hash_bucket_size": 9}]}, threads=2)
    handler.process_arrow({"c": pa.array(["a"])})
    assert not asked


def test_commands_and_their_workers_make_the_setting(monkeypatch):
    asked = []
    for module in (job, workers, shards):
        monkeypatch.setattr(module, "keep_freed_memory", lambda of=module: asked.append(of))
    others = {
        job: ("prepare_process", "setup_logging", "quiet_libraries"),
        workers: ("_leave_group", "_end_with_parent", "torch", "pa"),
        shards: ("signal",),
    }
    for module, names in others.items():
        for name in names:
            monkeypatch.setattr(module, name, Mock())
    job.start()
    workers._start_worker(None)
    shards._start(None)
    assert asked == [job, workers, shards]
