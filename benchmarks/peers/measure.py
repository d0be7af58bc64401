"""What every runner shares: its settings, the clock, AUC and the line of results."""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# The same networks for all: what a peer's documentation calls these things differs.
DIM, DEEP, TOWER, ATTENTION = 16, (512, 256, 128), (256, 128, 64), (256, 64)
CROSSES, EXPERTS, RATE = 3, 3, 0.001
# Of DLRM: the numbers' MLP, and the one after the dots. The last layer of DCN-v2 and DIN, for some.
BOTTOM, TOP, LAST = (64, DIM), (64, 32), (64,)


@dataclass(frozen=True)
class Job:
    """What a runner has to do.

    Attributes:
        data: folder of the set.
        model: ``deepfm``, ``dcn_v2``, ``dlrm``, ``mmoe`` or ``din``.
        setting: the system's setting, for systems that have more than one.
        batch_size: rows of a step.
        scratch: folder for what the system writes.
    """

    data: Path
    model: str
    setting: str
    batch_size: int
    scratch: Path


class Meter:
    """Seconds of wall and CPU time by phase, of this process and its ended children."""

    def __init__(self) -> None:
        self.phases: dict[str, dict[str, float]] = {}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds what happens inside to the phase ``name``."""
        wall, cpu = time.perf_counter(), cpu_seconds()
        yield
        self.add(name, time.perf_counter() - wall, cpu_seconds() - cpu)

    def add(self, name: str, wall: float, cpu: float) -> None:
        """Adds seconds to a phase."""
        found = self.phases.setdefault(name, {"wall": 0.0, "cpu": 0.0})
        found["wall"] += wall
        found["cpu"] += cpu


def cpu_seconds() -> float:
    """Returns the CPU seconds of this process and its ended children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def peak_mib() -> float:
    """Returns the largest resident size so far, of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def job() -> Job:
    """Returns what the command line asks of a runner."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--setting", default="")
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--scratch", type=Path, required=True)
    return Job(**vars(parser.parse_args()))


def finish(
    meter: Meter, rows: int, scores: dict[str, float], peak: float, *, version: str = ""
) -> None:
    """Prints the results as JSON, the last line of a runner.

    Args:
        meter: with the phase ``train``.
        rows: rows of the phase ``train``.
        scores: AUC by label.
        peak: MiB, before testing.
        version: of the system.
    """
    facts = {
        "rows": rows, "phases": meter.phases, "peak_mib": peak, "auc": scores, "version": version
    }  # fmt: skip
    print("\n" + json.dumps(facts), flush=True)


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Returns the area under the ROC curve; equal scores count half.

    Args:
        labels: (n,) 0 or 1.
        scores: (n,).

    Raises:
        ValueError: only one class is there, or a score is no number.
    """
    labels, scores = np.asarray(labels).ravel() > 0.5, np.asarray(scores).ravel()
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        raise ValueError("AUC needs rows of both classes")
    if not np.isfinite(scores).all():
        raise ValueError("a score is not finite")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2)[inverse]
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))
