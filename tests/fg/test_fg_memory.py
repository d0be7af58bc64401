"""The setting of the allocator."""

import ctypes
import subprocess
import sys

import pytest

from tzrec.fg.memory import keep_freed_memory

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
