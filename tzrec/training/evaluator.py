"""Evaluation: metrics of a model over a data set."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from tzrec.training.trainer import Loader

logger = logging.getLogger("tzrec")

_QUIET_SECONDS = 10.0


def run_evaluation(
    model: nn.Module,
    loader: Loader,
    *,
    device: torch.device,
    num_steps: int = 0,
) -> dict[str, float]:
    """Returns the metrics of ``model`` over one pass of ``loader``.

    The model's mode and the random state are as before afterwards.

    Args:
        model: a `TrainWrapper`, distributed or not.
        loader: evaluation batches.
        device: where batches are moved to.
        num_steps: batches to read, 0 = all.
    """
    wrapped: Any = model
    base_model = getattr(wrapped, "module", wrapped).model
    was_training = model.training
    model.eval()
    reported = time.monotonic()
    try:
        with torch.no_grad(), torch.random.fork_rng():
            for step, batch in enumerate(loader):
                if num_steps and step >= num_steps:
                    break
                batch = batch.to(device, non_blocking=True)
                _, (losses, predictions, batch) = model(batch)
                base_model.update_metric(predictions, batch, losses)
                if time.monotonic() - reported > _QUIET_SECONDS:
                    reported = time.monotonic()
                    of_all = f"/{loader.num_batches}" if loader.num_batches else ""
                    logger.info("evaluated %d%s batches", step + 1, of_all)
            metrics = base_model.compute_metric()
    finally:
        model.train(was_training)
    return {key: float(value) for key, value in sorted(metrics.items())}


def record_result(path: Path, global_step: int | None, metrics: dict[str, float]) -> None:
    """Appends one JSON line with the step and the metrics sorted by name; rank 0 only."""
    if dist.is_initialized() and dist.get_rank() != 0:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps({"global_step": global_step, **dict(sorted(metrics.items()))}) + "\n")


def format_metrics(metrics: dict[str, float]) -> str:
    """Returns ``name:value …`` with six decimals."""
    return " ".join(f"{key}:{value:.6f}" for key, value in sorted(metrics.items()))
