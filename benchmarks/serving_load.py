"""Load on an HTTP server by wrk, closed loop or at a rate; and what the server spends on it.

wrk is a package of Debian: ``apt-get install wrk``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = """\
local requests, at = {}, math.random(1, 1000)
function init(args)
  for i = 1, tonumber(args[3]) do
    local file = io.open(args[1] .. "/" .. i, "rb")
    requests[i] = wrk.format("POST", nil, {["Content-Type"] = args[2]}, file:read("*a"))
    file:close()
  end
  math.randomseed(os.time())
end
function request()
  at = at + 1
  return requests[at % #requests + 1]
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\nRESULT {"requests": %d, "seconds": %f, "p50": %f, "p90": %f, '
    .. '"p99": %f, "max": %f, "errors": %d}\\n', summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(90) / 1e3, latency:percentile(99) / 1e3,
    latency.max / 1e3, e.connect + e.read + e.write + e.status + e.timeout))
end
"""
# Each connection waits so long between its requests that all of them arrive at random.
_PAUSE = """
function delay()
  return -math.log(1 - math.random()) * %f
end
"""


@dataclass(frozen=True)
class Load:
    """What a load came to.

    Attributes:
        rate: requests a second that were answered.
        p50: milliseconds; as p90, p99 and max.
        errors: requests without an answer 200.
        cpu_ms: CPU time of the server for a request, in milliseconds.
    """

    rate: float
    p50: float
    p90: float
    p99: float
    max: float
    errors: int
    cpu_ms: float


@dataclass(frozen=True)
class Bodies:
    """Bodies of requests, one a file.

    Attributes:
        path: directory of the files 1, 2, …
        content_type: of all of them.
        num: how many there are.
        kib: mean size.
    """

    path: Path
    content_type: str
    num: int
    kib: float


def write_bodies(path: Path, bodies: Sequence[bytes], content_type: str) -> Bodies:
    """Writes the bodies of requests."""
    path.mkdir(parents=True, exist_ok=True)
    for i, body in enumerate(bodies, 1):
        (path / str(i)).write_bytes(body)
    return Bodies(path, content_type, len(bodies), sum(map(len, bodies)) / len(bodies) / 1024)


def run_load(
    url: str,
    bodies: Bodies,
    *,
    server: int,
    seconds: float,
    connections: int,
    rate: float = 0.0,
    latency_ms: float = 5.0,
) -> Load:
    """Sends requests for some time.

    Args:
        url: where to.
        bodies: of `write_bodies`, sent in turn.
        server: process of the server; what it started counts too.
        seconds: for how long.
        connections: at a time.
        rate: requests a second, 0 = as many as are answered.
        latency_ms: that the requests will have at this rate, roughly.
    """
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing: apt-get install wrk")
    script = bodies.path / "load.lua"
    pause = max(1e3 * connections / rate - latency_ms, 1.0) if rate else 0.0
    script.write_text(_SCRIPT + (_PAUSE % pause if rate else ""))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "30s"]
    before = cpu_seconds(server)
    done = subprocess.run(
        [
            *command,
            "-s",
            str(script),
            url,
            "--",
            str(bodies.path),
            bodies.content_type,
            str(bodies.num),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    spent = cpu_seconds(server) - before
    found = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    result = json.loads(found.removeprefix("RESULT "))
    requests = result.pop("requests")
    return Load(
        rate=requests / result.pop("seconds"), cpu_ms=1e3 * spent / max(requests, 1), **result
    )


def cpu_seconds(process: int) -> float:
    """Returns the CPU time of a process and its descendants so far."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            fields = (directory / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        number = int(directory.name)
        parents[number] = int(fields[1])
        ticks[number] = int(fields[11]) + int(fields[12])

    def belongs(number: int) -> bool:
        while number not in (0, process):
            number = parents.get(number, 0)
        return number == process

    total = sum(spent for number, spent in ticks.items() if belongs(number))
    return total / os.sysconf("SC_CLK_TCK")
