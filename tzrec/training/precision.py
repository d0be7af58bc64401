"""How wide the numbers of a training step are when the config does not say it."""

from __future__ import annotations

import torch

from tzrec.models.precision import FP32, has_fast_bfloat16
from tzrec.protos.train_pb2 import TrainConfig
from tzrec.training.peers import any_rank

BF16 = "BF16"


def step_precision(train_config: TrainConfig, device: torch.device) -> str:
    """Returns the precision of training steps; every rank calls it.

    Without ``mixed_precision`` steps are BF16 on CPUs that have instructions for it: they take
    half the time, for the same AUC (benchmarks/RESULTS.md). All else stays FP32: weights and their
    updates, evaluation, export. A config with a ``grad_scaler`` is taken at its word.

    Args:
        train_config: of the run.
        device: of this rank. Ranks of one job step alike, in FP32 if one of them must.
    """
    if train_config.mixed_precision:
        return train_config.mixed_precision
    asked = train_config.HasField("grad_scaler")
    slow = any_rank(asked or not has_fast_bfloat16(device))
    return FP32 if slow else BF16


def describe(train_config: TrainConfig, precision: str) -> str:
    """Returns the precision as the start summary shows it."""
    if train_config.mixed_precision or precision == FP32:
        return precision
    return f'{precision} in steps (mixed_precision: "{FP32}" for {FP32})'
