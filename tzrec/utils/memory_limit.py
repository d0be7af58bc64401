"""What a container or a service may have of a machine's main memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def usable_memory() -> int:
    """Returns the bytes of main memory that this process may use: the machine's, or its limit."""
    import psutil  # here: `tzrec doctor` reads the limits also where a package is missing

    total = int(psutil.virtual_memory().total)
    return min([total, *cgroup_limits()])


def cgroup_limits(root: Path = Path("/")) -> Iterator[int]:
    """Yields the memory limits of the control groups of this process, in bytes.

    Both versions are read, from the group of the process up: any of them may be the tightest.
    Within a container the path of the group may be that of the machine, which is not there; the
    root of the hierarchy is the container's own then.

    Args:
        root: where the file system begins.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    places: tuple[str, ...]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            places, name = ("sys/fs/cgroup", "sys/fs/cgroup/unified"), "memory.max"
        elif "memory" in controllers.split(","):
            places, name = ("sys/fs/cgroup/memory",), "memory.limit_in_bytes"
        else:
            continue
        for place in places:
            group = Path(path.lstrip("/"))
            for each in dict.fromkeys((group, *group.parents)):
                yield from _limit(root / place / each / name)


def _limit(file: Path) -> Iterator[int]:
    try:
        text = file.read_text().strip()
    except OSError:
        return
    if text.isdecimal():  # not "max"
        yield int(text)
