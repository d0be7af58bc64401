"""`tzrec serve` at saturation for minutes, while versions change and some requests are wrong.

    python benchmarks/serving_soak.py                    ten minutes
    python benchmarks/serving_soak.py --minutes 2 --workers 2

Two versions of a model (`serving_model`) take turns; now and then a broken one is made current,
which no answer may show. Every answer is looked at: scores must be those of the version that it
names, by the library, and a wrong request must be refused as it should. The server's memory is
that of all its processes, without the pages they share counted twice.

Exit code 1 when a request was dropped or answered wrongly, the memory grows, a version was not
taken up, or the server does not end with exit code 0.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import serving_model

from tzrec.deploy import Predictor
from tzrec.serving.loading import load
from tzrec.serving.publish import publish, roll_back

BODIES = 24
VERSIONS = ("first", "second")
BROKEN = "broken"
# Requests merged with others differ in the last digits.
TOLERANCE = 2e-6
# Memory may grow by so much from the second quarter of the time to the last one.
MOST_GROWTH_SHARE, MOST_GROWTH_MIB = 0.03, 24
# A version is taken up within so many seconds.
MOST_TURN_SECONDS = 90


@dataclass(frozen=True)
class Request:
    """A body, and what its answer must be.

    Attributes:
        path: of the route.
        body: bytes.
        status: of the answer.
        scores: version → probabilities, where it is scored.
        field: that a refusal names.
    """

    path: str
    body: bytes
    status: int = 200
    scores: Mapping[str, np.ndarray] = field(default_factory=dict)
    field: str | None = None


class Clients:
    """Connections that ask one request after the other, until they are told to stop.

    Args:
        address: host and port.
        good: requests that are scored.
        bad: requests that are refused.
        share: of the bad ones.
    """

    def __init__(
        self, address: str, good: Sequence[Request], bad: Sequence[Request], share: float
    ) -> None:
        self._address = address
        self._good, self._bad, self._share = good, bad, share
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._seconds: list[float] = []
        self.answers: Counter[str] = Counter()
        self.last_version = ""
        self.errors: list[str] = []

    def start(self, connections: int) -> None:
        """Opens the connections."""
        for number in range(connections):
            self._threads.append(threading.Thread(target=self._run, args=(number,)))
            self._threads[-1].start()

    def stop(self) -> None:
        """Ends them after their answers."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def take_seconds(self) -> list[float]:
        """Returns the latencies since the last call."""
        with self._lock:
            taken, self._seconds = self._seconds, []
        return taken

    def reloads(self) -> dict[str, int]:
        """Returns how many versions the server says that it has loaded, and refused."""
        connection = http.client.HTTPConnection(self._address, timeout=60)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        found = [line for line in lines if line.startswith("tzrec_reloads_total{")]
        return {line.split('"')[1]: int(float(line.split()[-1])) for line in found}

    def _run(self, number: int) -> None:
        rng = random.Random(number)
        connection = http.client.HTTPConnection(self._address, timeout=60)
        while not self._stopping.is_set():
            one = rng.choice(self._bad if rng.random() < self._share else self._good)
            began = time.perf_counter()
            try:
                connection.request("POST", one.path, one.body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                text = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self._note("dropped", began, f"{type(error).__name__}: {error}")
                connection.close()
                continue
            self._note(*self._judged(one, answer.status, text, began))
        connection.close()

    def _judged(
        self, one: Request, status: int, text: bytes, began: float
    ) -> tuple[str, float, str]:
        """Returns a name for the answer, when it was asked for, and what is wrong with it."""
        if status != one.status:
            return str(status), began, f"{status}, not {one.status}: {text[:200]!r}"
        found = json.loads(text)
        if status != 200:
            named = found["error"]["field"]
            wrong = "" if named == one.field else f"names {named}, not {one.field}"
            return "refused", began, wrong
        version = self.last_version = found["version"]
        if version not in one.scores:
            return version, began, f"answered by {version}"
        gap = np.abs(np.float32(found["outputs"]["probs"]) - one.scores[version]).max()
        return version, began, "" if gap <= TOLERANCE else f"{version} differs by {gap:.2g}"

    def _note(self, name: str, began: float, wrong: str) -> None:
        with self._lock:
            self._seconds.append(time.perf_counter() - began)
            self.answers[name] += 1
            if wrong:
                self.errors.append(wrong)


def main() -> int:
    """Runs, prints a line every some seconds and the verdict; JSON on the last line."""
    args = parse_arguments()
    exports = {
        name: serving_model.build(args.dir, args.fg, seed=seed)
        for seed, name in enumerate(VERSIONS)
    }
    root = make_root(args.dir / "soak", exports)
    good, bad = make_requests(args, exports)
    command = [sys.executable, "-m", "tzrec.cli", "serve", str(root), "--port", "0"]
    command += ["--workers", str(args.workers), "--reload-seconds", "0.5"]
    log = args.dir / "soak.log"
    with log.open("w") as file:
        server = subprocess.Popen(
            [*command, *args.serve.split()], stdout=file, stderr=file, start_new_session=True
        )
    try:
        clients = Clients(wait_for(log, server, args.workers), good, bad, args.bad)
        samples, late = soak(args, clients, server, root)
        reloads = clients.reloads()
    finally:
        server.terminate()
        code = server.wait(60)
    problems = late + problems_of(clients, samples)
    problems += [f"the server ended with exit code {code}"] if code else []
    problems += ["the log has a traceback"] if "Traceback" in log.read_text() else []
    return report(clients, samples, reloads, problems)


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", type=Path, default=Path("experiments/serving"))
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--fg", default="FG_DAG", choices=serving_model.FG_MODES)
    parser.add_argument("--candidates", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1, help="processes of the server")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--turn-seconds", type=float, default=4.0, help="between versions")
    parser.add_argument("--bad", type=float, default=0.03, help="share of wrong requests")
    parser.add_argument("--serve", default="", help="more flags of tzrec serve, in one word")
    args = parser.parse_args()
    args.dir.mkdir(parents=True, exist_ok=True)
    return args


def make_root(root: Path, exports: Mapping[str, Path]) -> Path:
    """Publishes the versions, and puts a broken one beside them."""
    shutil.rmtree(root, ignore_errors=True)
    for name, export in exports.items():
        publish(str(export), str(root), name=name, load=load)
    broken = root / "versions" / BROKEN
    shutil.copytree(root / "versions" / VERSIONS[0], broken)
    model = broken / "scripted_model.pt"
    model.write_bytes(model.read_bytes()[:-1000])
    return root


def make_requests(
    args: argparse.Namespace, exports: Mapping[str, Path]
) -> tuple[list[Request], list[Request]]:
    """Returns requests that are scored, and wrong ones."""
    drawn = serving_model.Requests(args.dir, args.fg)
    pairs = [drawn.draw(args.candidates) for _ in range(BODIES)]
    scores: list[dict[str, np.ndarray]] = [{} for _ in pairs]
    for name, export in exports.items():
        predictor = Predictor.load(export)
        for found, pair in zip(scores, pairs, strict=True):
            found[name] = predictor.predict(drawn.repeated(*pair))["probs"]
    documents = []
    for context, items in pairs:
        listed = [dict(zip(items, row, strict=True)) for row in zip(*items.values(), strict=True)]
        documents.append({"context": {k: v[0] for k, v in context.items()}, "items": listed})
    path = "/v1/predict"
    good = [
        Request(path, json.dumps(document).encode(), scores=found)
        for document, found in zip(documents, scores, strict=True)
    ]
    some = documents[0]
    column = next(iter(some["items"][0]))
    odd = [{**some["items"][0], column: {}}, *some["items"][1:]]
    unknown = {"nothing": 1} | some["context"]
    bad = [
        Request(path, good[0].body[:-5], 400),
        Request(path, b"\xff" * 1000, 400),
        Request(path, b'{"rows": [NaN]}', 400),
        Request(path, b"[" * 100_000, 400),
        Request(path, json.dumps({**some, "items": odd}).encode(), 422, field=f"items[0].{column}"),
        Request(
            path, json.dumps({**some, "context": unknown}).encode(), 422, field="context.nothing"
        ),
        Request(path, b'{"rows": [' + b"{}," * 200_000 + b"{}]}", 413, field="rows"),
        Request("/v1/nothing", good[0].body, 404),
        Request("/v1/retrieve", good[0].body, 404),
    ]
    return good, bad


def wait_for(log: Path, server: subprocess.Popen[bytes], workers: int) -> str:
    """Returns host and port of a server, once it can be asked."""
    until = time.monotonic() + 180
    while time.monotonic() < until and server.poll() is None:
        text = log.read_text()
        ready = text.count("is ready") >= workers if workers > 1 else "try:" in text
        if ready:
            return text.partition(" for http://")[2].split()[0]
        time.sleep(0.2)
    raise SystemExit(f"the server does not start:\n{log.read_text()}")


def soak(
    args: argparse.Namespace, clients: Clients, server: subprocess.Popen[bytes], root: Path
) -> tuple[list[tuple[float, ...]], list[str]]:
    """Returns samples (minutes, requests/s, p50, p99, largest ms, MiB), and what came too late."""
    print(f"{'min':>5}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}{'MiB':>8}")
    samples: list[tuple[float, ...]] = []
    turns = Turns(clients, root, args.turn_seconds)
    began = last = time.monotonic()
    clients.start(args.connections)
    every = min(15.0, 60 * args.minutes / 16)
    while time.monotonic() - began < 60 * args.minutes and server.poll() is None:
        time.sleep(0.2)
        turns.look()
        now = time.monotonic()
        if now - last >= every:
            taken = 1e3 * np.sort(clients.take_seconds() or [np.nan])
            p50, p99 = np.percentile(taken, [50, 99])
            sample = ((now - began) / 60, len(taken) / (now - last), p50, p99, taken[-1])
            samples.append((*sample, memory_of(server.pid)))
            print("{:>5.1f}{:>12.1f}{:>9.1f}{:>9.1f}{:>9.1f}{:>8.0f}".format(*samples[-1]),
                  flush=True)  # fmt: skip
            last = now
    clients.stop()
    return samples, turns.late


class Turns:
    """Makes another version current, once the one before has been taken up for some time."""

    def __init__(self, clients: Clients, root: Path, seconds: float) -> None:
        self._clients, self._root, self._pause = clients, root, seconds
        self._number = self._refused = 0
        self._name = VERSIONS[-1]
        self._since = time.monotonic()
        self.late: list[str] = []

    def look(self) -> None:
        """Does so if it is time."""
        now = time.monotonic()
        if now - self._since < self._pause:
            return
        if not self._is_taken_up():
            if now - self._since < MOST_TURN_SECONDS:
                return
            self.late.append(f"{self._name} was not taken up in {now - self._since:.0f} s")
        self._number += 1
        is_broken = self._number % 7 == 6
        self._refused += is_broken
        self._name = BROKEN if is_broken else VERSIONS[self._number % 2 - 1]
        roll_back(str(self._root), self._name)
        self._since = now

    def _is_taken_up(self) -> bool:
        if self._name == BROKEN:
            return self._clients.reloads().get("failed", 0) >= self._refused
        return self._clients.last_version == self._name


def memory_of(pid: int) -> float:
    """Returns the memory of a process and its children in MiB, shared pages by their share."""
    parent = psutil.Process(pid)
    family = [parent, *parent.children(recursive=True)]
    return sum(process.memory_full_info().pss for process in family) / 2**20


def problems_of(clients: Clients, samples: Sequence[tuple[float, ...]]) -> list[str]:
    """Returns what is wrong."""
    problems = [f"{len(clients.errors)} wrong answers, such as {one}" for one in clients.errors[:1]]
    quarter = max(len(samples) // 4, 1)
    before = statistics.median(sample[-1] for sample in samples[quarter : 2 * quarter] or samples)
    after = statistics.median(sample[-1] for sample in samples[-quarter:])
    if after - before > max(MOST_GROWTH_SHARE * before, MOST_GROWTH_MIB):
        problems.append(f"the memory grows: {before:.0f} MiB, then {after:.0f} MiB")
    return problems + [f"no answer by {name}" for name in VERSIONS if not clients.answers[name]]


def report(
    clients: Clients,
    samples: Sequence[tuple[float, ...]],
    reloads: Mapping[str, int],
    problems: Sequence[str],
) -> int:
    """Prints what came out; returns the exit code."""
    columns = list(zip(*samples, strict=True))
    facts = {
        "minutes": round(samples[-1][0], 2),
        "requests": clients.answers.total(),
        "answers": dict(clients.answers),
        "errors": len(clients.errors),
        "reloads": dict(reloads),
        "p50_ms": round(float(np.median(columns[2])), 2),
        "p99_ms": round(float(np.median(columns[3])), 2),
        "max_ms": round(max(columns[4]), 1),
        "mib": [round(value) for value in columns[5]],
        "problems": list(problems),
    }
    for problem in problems:
        print(f"wrong: {problem}")
    print(json.dumps(facts))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
