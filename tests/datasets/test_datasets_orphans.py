"""What remains of a loader whose process is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import multiprocessing, sys, time
sys.path.insert(0, {here!r})
from pathlib import Path
from datasets_table import loader_of
from datasets_fakes import IdFake

if __name__ == "__main__":
    text = "loader: PROCESS num_workers: {workers}"
    with loader_of(Path({folder!r}), text, features=[IdFake("id")]) as loader:
        batches = iter(loader)
        next(batches)
        print(*[child.pid for child in multiprocessing.active_children()], flush=True)
        time.sleep(600)
"""


def descendants(pid: int) -> set[int]:
    """Processes below ``pid``, from /proc."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            child = int(entry.parent.name)
            found |= {child} | descendants(child)
    return found


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_workers_and_shared_memory_go_when_the_parent_is_killed(folder, tmp_path):
    script = tmp_path / "run.py"
    here = str(Path(__file__).parent)
    script.write_text(SCRIPT.format(here=here, folder=str(folder), workers=1))
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    try:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert workers
        children = descendants(parent.pid)
        assert set(workers) <= children
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(map(is_running, children)):
        time.sleep(0.05)
    left = [pid for pid in children if is_running(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []
    # torch puts the process in the name; other tests may run beside this one.
    own = tuple(f"torch_{pid}_" for pid in (parent.pid, *children))
    assert [name for name in os.listdir("/dev/shm") if name.startswith(own)] == []
