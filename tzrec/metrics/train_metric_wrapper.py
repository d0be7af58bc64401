"""Metrics of the last steps of training, smoothed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from tzrec.errors import ConfigError
from tzrec.metrics.base import load_metric_state, metric_state


class TrainMetricWrapper(nn.Module):
    """A metric of windows of ``decay_step`` updates, blended as ``r * old + (1 - r) * recent``.

    0 until the first window is full, which is then taken as it is. Never leaves its rank.

    Args:
        metric: metric of one window, with ``local=True``.
        decay_rate: r.
        decay_step: updates per window.

    Raises:
        ConfigError: ``decay_rate`` is outside [0, 1) or ``decay_step`` is 0.
    """

    def __init__(self, metric: Metric, *, decay_rate: float = 0.9, decay_step: int = 100) -> None:
        super().__init__()
        if not 0.0 <= decay_rate < 1.0:
            raise ConfigError(f"train_metrics.decay_rate is {decay_rate}, it must be in [0, 1)")
        if decay_step < 1:
            raise ConfigError(f"train_metrics.decay_step is {decay_step}, it must be at least 1")
        self.metric = metric
        self._decay_rate = decay_rate
        self._decay_step = decay_step
        self._num_updates = 0
        self._blended: Tensor | None = None

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Updates the window's metric; arguments as there."""
        self.metric.update(*args, **kwargs)
        self._num_updates += 1
        if self._num_updates < self._decay_step:
            return
        recent = self._recent()
        if self._blended is not None:
            recent = self._decay_rate * self._blended + (1.0 - self._decay_rate) * recent
        self._blended = recent
        self.metric.reset()
        self._num_updates = 0

    def compute(self) -> Tensor:
        """Returns the blended value, a float64 scalar."""
        if self._blended is None:
            return torch.zeros((), dtype=torch.float64)
        return self._value(self._blended)

    def reset(self) -> None:
        """Forgets everything."""
        self.metric.reset()
        self._num_updates = 0
        self._blended = None

    def state(self) -> dict[str, Any]:
        """Returns all that `load_state` needs to go on as if never interrupted."""
        return {
            "num_updates": self._num_updates,
            "blended": self._blended,
            "metric": metric_state(self.metric),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Puts the result of `state` back."""
        blended = state["blended"]
        self._num_updates = state["num_updates"]
        self._blended = None if blended is None else blended.to(self.metric.device)
        load_metric_state(self.metric, state["metric"])

    def _recent(self) -> Tensor:
        """Returns what is blended, of the full window."""
        recent: Tensor = self.metric.compute()
        return recent.double()

    def _value(self, blended: Tensor) -> Tensor:
        """Returns the metric of what was blended."""
        return blended
