"""How wide the numbers of a training step are when the config does not say it."""

from __future__ import annotations

import logging

import torch

from tzrec.models.precision import FP32, has_fast_bfloat16
from tzrec.protos.train_pb2 import TrainConfig
from tzrec.training.checkpoint.together import is_first_rank
from tzrec.training.peers import any_rank

logger = logging.getLogger("tzrec")

BF16 = "BF16"


def step_precision(train_config: TrainConfig, device: torch.device, *, stored: str = "") -> str:
    """Returns the precision of training steps; every rank calls it.

    Without ``mixed_precision`` steps are BF16 on CPUs that have instructions for it: they take
    half the time, for the same AUC (benchmarks/RESULTS.md). All else stays FP32: weights and their
    updates, evaluation, export. A config with a ``grad_scaler`` is taken at its word. A run that
    goes on keeps the precision that was chosen at its start, whatever machine it is on now.

    Args:
        train_config: of the run.
        device: of this rank. Ranks of one job step alike, in FP32 if one of them must.
        stored: what the run's checkpoint says was chosen, or ``""``.
    """
    if train_config.mixed_precision:
        return train_config.mixed_precision
    if train_config.HasField("grad_scaler"):
        return FP32
    chosen = FP32 if any_rank(not has_fast_bfloat16(device)) else BF16
    if stored not in ("", chosen) and is_first_rank():
        slow = ", which is slow on this CPU" if stored == BF16 and device.type == "cpu" else ""
        logger.log(
            logging.WARNING if slow else logging.INFO,
            'steps stay %s as the run began%s; mixed_precision: "%s" or "%s" changes that',
            *(stored, slow, FP32, BF16),
        )
    return stored or chosen


def chosen_precision(train_config: TrainConfig, precision: str) -> str:
    """Returns the precision of steps for a checkpoint, ``""`` where the config says it."""
    return "" if train_config.mixed_precision else precision


def describe(train_config: TrainConfig, precision: str) -> str:
    """Returns the precision as the start summary shows it."""
    if train_config.mixed_precision or precision == FP32:
        return precision
    return f'{precision} in steps (mixed_precision: "{FP32}" for {FP32})'
