"""`keep_freed_memory`: the setting of the allocator."""

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
from tzrec.options import allocator_is_chosen
from tzrec.tools import shards
from tzrec.utils.memory import keep_freed_memory

CODE = """
import resource, sys
import numpy as np
from tzrec.utils.memory import keep_freed_memory
how, size = sys.argv[1], int(sys.argv[2])
if how != "leave":
    assert keep_freed_memory(without_bound=how == "all") is (how != "refused")

def batch():
    return [np.ones(size) for _ in range(8)]

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


def faults(how, size=400_000, **environment):
    settings = [f"{name}={value}" for name, value in environment.items()]
    command = ["env", *settings, sys.executable, "-c", CODE, how, str(size)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not keep_freed_memory(), reason="needs the malloc of glibc")
def test_pages_stay():
    assert faults("keep") * 10 < faults("leave")


@pytest.mark.skipif(not keep_freed_memory(), reason="needs the malloc of glibc")
def test_pages_of_large_arrays_stay_where_there_is_no_bound():
    size = 5 << 20  # 40 MiB
    assert faults("all", size) * 10 < faults("keep", size)


@pytest.mark.skipif(not keep_freed_memory(), reason="needs the malloc of glibc")
def test_the_users_own_tuning_stays():
    assert faults("refused", MALLOC_TRIM_THRESHOLD_="1000000") > 10 * faults("keep")
    assert allocator_is_chosen({"GLIBC_TUNABLES": "glibc.malloc.mmap_max=1"})
    assert not allocator_is_chosen({"OMP_NUM_THREADS": "1"})


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
