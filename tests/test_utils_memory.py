"""`keep_freed_memory`: blocks that are freed stay with the process."""

import subprocess
import sys

import pytest

from tzrec.options import allocator_is_chosen

_SCRIPT = """
import ctypes, resource
from tzrec.utils.memory import keep_freed_memory
print(keep_freed_memory() if {keep} else None)
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
size = 64 << 20

def touch():
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    libc.free(block)

touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _run(keep, **environment):
    command = ["env", *(f"{k}={v}" for k, v in environment.items()), sys.executable, "-c"]
    output = subprocess.run(
        [*command, _SCRIPT.format(keep=keep)], check=True, capture_output=True, text=True
    ).stdout.split()
    return output[0], int(output[1])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_a_block_that_was_freed_is_used_again_without_page_faults():
    pages = 5 * (64 << 20) // 4096
    assert _run(False) == ("None", pytest.approx(pages, rel=0.1))
    done, faults = _run(True)
    assert done == "True"
    assert faults < pages / 100


def test_the_users_own_tuning_stays():
    assert _run(True, MALLOC_TRIM_THRESHOLD_="1000000")[0] == "False"
    assert allocator_is_chosen({"GLIBC_TUNABLES": "glibc.malloc.mmap_max=1"})
    assert not allocator_is_chosen({"OMP_NUM_THREADS": "1"})
