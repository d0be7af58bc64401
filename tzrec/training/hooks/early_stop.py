"""Ends training when a metric has stopped improving."""

from __future__ import annotations

import logging
import math
from typing import Any

from tzrec.errors import ConfigError, did_you_mean
from tzrec.protos.train_pb2 import EarlyStop
from tzrec.training.hooks.base import Hook
from tzrec.training.trainer import Trainer

logger = logging.getLogger("tzrec")


class EarlyStopHook(Hook):
    """Stops after ``patience`` evaluations in a row without an improvement above ``min_delta``.

    Args:
        config: ``train_config.early_stop``.
    """

    name = "early_stop"

    def __init__(self, config: EarlyStop) -> None:
        self._config = config
        self._sign = 1.0 if config.larger_is_better else -1.0
        self._best = -math.inf
        self._waited = 0

    def after_evaluation(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Compares with the best value so far.

        Raises:
            ConfigError: the metric is not evaluated.
        """
        metric = self._config.metric
        if metric not in metrics:
            raise ConfigError(
                f"train_config.early_stop.metric: {metric!r} is not evaluated; "
                f"there is {', '.join(sorted(metrics))}{did_you_mean(metric, metrics)}"
            )
        value = self._sign * metrics[metric]
        if value > self._best + self._config.min_delta:
            self._best, self._waited = value, 0
            return
        self._waited += 1
        if self._waited >= self._config.patience:
            best = self._sign * self._best
            trainer.stop(f"{metric} has not improved on {best:.6f} for {self._waited} evaluations")

    def state_dict(self) -> dict[str, Any]:
        """Returns the best value and how long ago it was."""
        return {"best": self._best, "waited": self._waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self._best, self._waited = state["best"], state["waited"]
