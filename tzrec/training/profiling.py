"""`StepProfiler`: torch's profiler over a few steps, with a summary that can be read."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist

from tzrec import storage

logger = logging.getLogger("tzrec")

WAIT, WARM_UP, ACTIVE = 1, 1, 10

_TOP = 12
# Marks, which are in the averages like operators.
_MARKS = ("ProfilerStep", "part: ")


class StepProfiler:
    """Leaves out the first two steps, records ten, writes their trace, and logs a summary.

    Shapes and memory are recorded, which slows these steps down. Every rank writes its trace;
    rank 0 logs its summary.

    Args:
        directory: where traces go, local or remote.
        parts: returns part of a step → seconds since the start, for the summary.
        all_threads: record the operators of all threads, not only of those that belong to the
            thread that calls `step`.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        parts: Callable[[], Mapping[str, float]] = dict,
        all_threads: bool = False,
    ) -> None:
        self._directory = os.fspath(directory)
        self._parts = parts
        self._before: dict[str, float] = {}
        self._began = self._ended = 0.0
        self._steps = 0
        self._done = False
        self._profiler = torch.profiler.profile(
            schedule=torch.profiler.schedule(wait=WAIT, warmup=WARM_UP, active=ACTIVE, repeat=1),
            on_trace_ready=self._finish,
            record_shapes=True,
            profile_memory=True,
            # No stacks: torch reads the names of code objects after they are gone.
            experimental_config=torch._C._profiler._ExperimentalConfig(
                profile_all_threads=all_threads
            ),
        )

    def start(self) -> None:
        """Begins; the next step is the first one."""
        self._profiler.start()

    def step(self) -> bool:
        """Marks the end of a step; returns whether it was the last one to record."""
        if self._done:
            return False
        self._steps += 1
        self._ended = time.perf_counter()
        self._profiler.step()
        if self._steps == WAIT + WARM_UP:
            self._before = dict(self._parts())
            self._began = time.perf_counter()
        return self._done

    def close(self) -> None:
        """Ends; a run of fewer steps is summed up as far as it went."""
        if self._done:
            return
        if self._steps <= WAIT + WARM_UP:
            self._done = True
            logger.warning(
                "nothing was profiled: there were %d steps, the first %d are never recorded",
                self._steps,
                WAIT + WARM_UP,
            )
        self._profiler.stop()

    def _finish(self, profiler: Any) -> None:
        if self._done:
            return
        self._done = True
        try:
            self._write_trace(profiler)
        except Exception as error:  # a remote file system may raise anything
            logger.warning("the trace cannot be written: %s", error)
        if _rank():
            return
        steps = self._steps - WAIT - WARM_UP
        parts = {
            part: 1000 * (value - self._before.get(part, 0.0)) / steps
            for part, value in self._parts().items()
        }
        operators = [row for row in profiler.key_averages() if not row.key.startswith(_MARKS)]
        total = 1000 * (self._ended - self._began) / steps
        logger.info(
            "profile of %d steps, slowed down by the recording; trace in %s "
            "(open it in https://ui.perfetto.dev or TensorBoard)\n%s",
            steps,
            self._directory,
            profile_table(parts, operators, steps=steps, total=total),
        )

    def _write_trace(self, profiler: Any) -> None:
        remote = storage.is_remote(self._directory)
        with tempfile.TemporaryDirectory(prefix="tzrec-trace-") as temporary:
            local = temporary if remote else self._directory
            torch.profiler.tensorboard_trace_handler(local, f"rank{_rank()}")(profiler)
            if remote:
                storage.upload_tree(local, self._directory)


def profile_table(
    parts: Mapping[str, float], operators: list[Any], *, steps: int, total: float
) -> str:
    """Returns two tables: milliseconds a step by part, and by the operators that take longest.

    Args:
        parts: part → milliseconds a step; parts without time are left out.
        operators: `torch.profiler` averages.
        steps: how many steps they were summed over.
        total: milliseconds of a step.
    """
    lines = [f"  {'part':<44}{'ms/step':>10}{'share':>8}"]
    lines += [_row(part, value, total) for part, value in parts.items() if value > 0]
    lines.append(_row("total", total, total))
    device = any(row.self_device_time_total > 0 for row in operators)
    kind = "device" if device else "CPU"
    lines.append("")
    head = f"operator (own {kind} time)"
    lines.append(f"  {head:<44}{'ms/step':>10}{'share':>8}{'calls/step':>12}")
    key = "self_device_time_total" if device else "self_cpu_time_total"
    for row in sorted(operators, key=lambda row: -getattr(row, key))[:_TOP]:
        value = getattr(row, key) / 1000 / steps
        lines.append(f"{_row(row.key, value, total)}{row.count / steps:>12.1f}")
    return "\n".join(lines)


def _row(name: str, value: float, total: float) -> str:
    shown = name if len(name) <= 42 else f"{name[:41]}…"
    return f"  {shown:<44}{value:>10.3f}{100 * value / max(total, 1e-9):>7.1f}%"


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0
