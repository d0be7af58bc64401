"""Evaluation: metrics of a model over a data set."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from tzrec import storage
from tzrec.errors import CheckpointError
from tzrec.optim.ema import DenseEma
from tzrec.protos.eval_pb2 import EvalConfig
from tzrec.training.location import Location
from tzrec.training.report.scores import ScoreCollector
from tzrec.training.trainer import Loader

logger = logging.getLogger("tzrec")

_QUIET_SECONDS = 1.0


def run_evaluation(
    model: nn.Module,
    loader: Loader,
    *,
    device: torch.device,
    eval_config: EvalConfig | None = None,
    ema: DenseEma | None = None,
    scores: ScoreCollector | None = None,
) -> dict[str, float]:
    """Returns the metrics of ``model`` over one pass of ``loader``.

    The model's mode, its weights and the random state are as before afterwards. A line tells
    the progress at every ``log_step_count_steps``-th batch, at most one a second.

    Args:
        model: a `TrainWrapper`, distributed or not.
        loader: evaluation batches.
        device: where batches are moved to.
        eval_config: ``num_steps`` (batches to read, 0 = all) and ``log_step_count_steps``.
        ema: evaluate with these averages in the place of the dense weights.
        scores: counts the predictions, for a report.
    """
    eval_config = eval_config or EvalConfig()
    num_steps, every = eval_config.num_steps or None, max(eval_config.log_step_count_steps, 1)
    limits = [limit for limit in (num_steps, loader.num_batches) if limit]
    of_all = f"/{min(limits)}" if limits else ""
    wrapped: Any = model
    base_model = getattr(wrapped, "module", wrapped).model
    was_training = model.training
    model.eval()
    reported = time.monotonic()
    if scores is not None:
        scores.start()
    try:
        with torch.no_grad(), torch.random.fork_rng(), _swapped(ema):
            for step, batch in enumerate(itertools.islice(loader, num_steps), start=1):
                batch = batch.to(device, non_blocking=True)
                _, (losses, predictions, batch) = model(batch)
                base_model.update_metric(predictions, batch, losses)
                if scores is not None:
                    scores.add(predictions, batch)
                now = time.monotonic()
                if step % every == 0 and now - reported > _QUIET_SECONDS:
                    reported = now
                    logger.info("evaluated %d%s batches", step, of_all)
            metrics = base_model.compute_metric()
            if scores is not None:
                scores.finish()
    finally:
        model.train(was_training)
    _log_intervals(base_model.metric_half_widths())
    return {key: float(value) for key, value in sorted(metrics.items())}


def _swapped(ema: DenseEma | None) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext() if ema is None else ema.swapped()


def _log_intervals(half_widths: dict[str, float]) -> None:
    if half_widths and not (dist.is_initialized() and dist.get_rank()):
        parts = [f"{key} ±{width:.6f}" for key, width in sorted(half_widths.items())]
        logger.info("95%% confidence, rows or groups taken as independent: %s", " ".join(parts))


def record_result(path: Location, global_step: int | None, metrics: dict[str, float]) -> None:
    """Appends one JSON line with the step and the metrics sorted by name; rank 0 only.

    Raises:
        CheckpointError: the file cannot be written.
    """
    if dist.is_initialized() and dist.get_rank() != 0:
        return
    line = json.dumps({"global_step": global_step, **dict(sorted(metrics.items()))}) + "\n"
    try:
        _append(path, line.encode())
    except Exception as error:  # a remote file system may raise anything
        raise CheckpointError(
            f"{path} cannot be written: {error}",
            hint="checkpoints are untouched; free space or mend the directory",
        ) from error


def _append(path: Location, line: bytes) -> None:
    """Appends a line, below a last one that a killed run left unfinished."""
    before = b""
    if storage.exists(path):
        with storage.open_file(path) as stream:
            before = stream.read()
    if before and not before.endswith(b"\n"):
        line = b"\n" + line
    if isinstance(path, Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(line)
        return
    # Object stores cannot append.
    with storage.open_file(path, "wb") as stream:
        stream.write(before + line)


def format_metrics(metrics: dict[str, float]) -> str:
    """Returns ``name:value …`` with six decimals."""
    return " ".join(f"{key}:{value:.6f}" for key, value in sorted(metrics.items()))
