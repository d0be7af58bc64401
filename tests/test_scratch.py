"""`Scratch`: directories that go with their process, also where it is killed."""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tzrec.utils.scratch import Scratch

HOLD = """
import sys
from tzrec.utils.scratch import Scratch
held = Scratch(sys.argv[1], "kind-", suffix=".tmp")
(held.path / "file").write_text("x")
print(held.path.name, flush=True)
{then}
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def started(folder: Path, then: str = "sys.stdin.read()") -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(then=then), str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_it_goes_with_its_owner(tmp_path: Path) -> None:
    with Scratch(tmp_path / "new", "kind-") as path:
        (path / "deep").mkdir()
        assert names(tmp_path / "new") == [path.name, f"{path.name}.lock"]
        assert path.stat().st_mode & 0o777 == 0o700
    assert names(tmp_path / "new") == []
    held = Scratch(tmp_path / "new", "kind-", name="mine.", suffix=".tmp", mode=0o755)
    assert held.path.name.startswith("kind-mine.")
    assert held.path.stat().st_mode & 0o755 == 0o755
    held.close()
    held.close()
    Scratch(tmp_path / "new", "kind-")
    gc.collect()
    assert names(tmp_path / "new") == []


def test_it_may_be_moved_away(tmp_path: Path) -> None:
    with Scratch(tmp_path, "kind-") as path:
        path.rename(tmp_path / "final")
    assert names(tmp_path) == ["final"]


def test_it_goes_at_the_end_of_the_process(tmp_path: Path) -> None:
    process, _ = started(tmp_path, "")
    assert process.wait(20) == 0
    assert names(tmp_path) == []


def test_a_fork_removes_nothing(tmp_path: Path) -> None:
    process, name = started(tmp_path, "import os\nif os.fork() == 0: held.close(); os._exit(0)\n"
        "os.wait(); print(held.path.is_dir(), flush=True); sys.stdin.read()")  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    assert names(tmp_path) == [name, f"{name}.lock"]
    process.communicate("")


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    dead, gone = started(tmp_path)
    alive, kept = started(tmp_path)
    dead.send_signal(signal.SIGKILL)
    dead.wait(20)
    assert gone in names(tmp_path)
    old = f"kind-{'0' * 32}.tmp"  # has no lock: nobody knows whose it is
    (tmp_path / old).mkdir()
    foreign = tmp_path / f"other-{'0' * 32}.tmp.lock"
    foreign.touch()
    victim = tmp_path / "victim"
    victim.mkdir()
    link = tmp_path / f"kind-{'1' * 32}.tmp"
    link.symlink_to(victim)
    (tmp_path / f"{link.name}.lock").write_text(socket.gethostname())
    distant = tmp_path / f"kind-{'2' * 32}.tmp"  # of another machine, whose lock none can see here
    distant.mkdir()
    (tmp_path / f"{distant.name}.lock").write_text("elsewhere")
    with Scratch(tmp_path, "kind-", suffix=".tmp") as path:
        found = names(tmp_path)
        assert found == sorted(
            [path.name, f"{path.name}.lock", kept, f"{kept}.lock", old, foreign.name,
             victim.name, link.name, distant.name, f"{distant.name}.lock"]
        )  # fmt: skip
        assert (tmp_path / kept / "file").read_text() == "x"
    alive.communicate("")
    assert kept not in names(tmp_path)


def test_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, kind: int) -> None:
        raise OSError("no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with Scratch(tmp_path, "kind-") as path:
        assert names(tmp_path) == [path.name]
        with Scratch(tmp_path, "kind-") as other:
            assert names(tmp_path) == sorted([path.name, other.name])
    assert names(tmp_path) == []


def test_descriptors_are_closed(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with Scratch(tmp_path, "kind-"):
            pass
    assert len(os.listdir("/proc/self/fd")) == before
