"""Learning-rate schedules: closed formulas of the number of completed scheduler steps.

A schedule is ``lr(base, t)`` per param group, where base is the group's configured rate and t
starts at 0 for the first batch. A base rate of 0 (a frozen table) stays 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, Protocol

from google.protobuf.message import Message

from tzrec.errors import ConfigError, did_you_mean


class _Optimizer(Protocol):
    @property
    def param_groups(self) -> Any:
        """Groups with their ``lr``."""


class Schedule:
    """Sets the learning rate of every group of an optimizer; constant unless overridden.

    Args:
        optimizer: has ``param_groups``; their ``lr`` at this moment is the base rate.
        by_epoch: the trainer calls `step` after each pass instead of after each batch.
    """

    def __init__(self, optimizer: _Optimizer, *, by_epoch: bool = False) -> None:
        self.by_epoch = by_epoch
        self.t = 0
        self._groups: Sequence[MutableMapping[str, Any]] = list(optimizer.param_groups)
        self.base_lrs = [float(group["lr"]) for group in self._groups]

    def lr(self, base: float, t: int) -> float:
        """Returns the learning rate after ``t`` steps of a group whose configured rate is base."""
        return base

    def step(self) -> None:
        """Goes one step further."""
        self.t += 1
        self._apply()

    def state_dict(self) -> dict[str, Any]:
        """Returns where the schedule stands."""
        return {"t": self.t}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes to where a schedule stood, learning rates included."""
        self.t = int(state["t"])
        self._apply()

    def _apply(self) -> None:
        for group, base in zip(self._groups, self.base_lrs, strict=True):
            group["lr"] = self.lr(base, self.t) if base != 0 else 0.0


class ConstantLR(Schedule):
    """The configured rate."""


class _WarmupLR(Schedule):
    """Linear from ``warmup_learning_rate`` to the base in ``warmup_size`` steps, then `after`."""

    def __init__(
        self,
        optimizer: _Optimizer,
        *,
        warmup_learning_rate: float = 0.0,
        warmup_size: int = 0,
        min_learning_rate: float = 0.0,
        by_epoch: bool = False,
    ) -> None:
        super().__init__(optimizer, by_epoch=by_epoch)
        self.warmup_learning_rate = warmup_learning_rate
        self.warmup_size = warmup_size
        self.min_learning_rate = min_learning_rate
        self._apply()

    def lr(self, base: float, t: int) -> float:
        """Returns the rate after ``t`` steps."""
        if t < self.warmup_size:
            start = self.warmup_learning_rate
            return start + (base - start) * t / self.warmup_size
        return self.after(base, t - self.warmup_size)

    def after(self, base: float, t: int) -> float:
        """Returns the rate ``t`` steps after the warm-up."""
        raise NotImplementedError


class ExponentialDecayLR(_WarmupLR):
    """``max(base * factor ** p, min)`` with ``p = t / decay_size``, whole numbers if staircase."""

    def __init__(
        self,
        optimizer: _Optimizer,
        *,
        decay_size: int,
        decay_factor: float = 0.95,
        staircase: bool = True,
        **warmup: Any,
    ) -> None:
        self.decay_size = _positive("decay_size", decay_size)
        self.decay_factor = decay_factor
        self.staircase = staircase
        super().__init__(optimizer, **warmup)

    def after(self, base: float, t: int) -> float:
        """Returns the rate ``t`` steps after the warm-up."""
        p = t // self.decay_size if self.staircase else t / self.decay_size
        return max(base * self.decay_factor**p, self.min_learning_rate)


class ManualStepLR(Schedule):
    """``learning_rates[i]`` for ``schedule_sizes[i] < t <= schedule_sizes[i + 1]``.

    Up to ``schedule_sizes[0]`` the base rate, or with ``warmup`` linear from the base to
    ``learning_rates[0]``.
    """

    def __init__(
        self,
        optimizer: _Optimizer,
        *,
        schedule_sizes: Sequence[int],
        learning_rates: Sequence[float],
        warmup: bool = False,
        by_epoch: bool = False,
    ) -> None:
        sizes, rates = list(schedule_sizes), list(learning_rates)
        if not sizes or len(sizes) != len(rates):
            raise ConfigError(
                f"manual_step_learning_rate has {len(sizes)} schedule_sizes and {len(rates)} "
                "learning_rates; it needs as many of the one as of the other, at least one"
            )
        if sizes != sorted(set(sizes)):
            raise ConfigError(f"schedule_sizes must grow from one to the next, they are {sizes}")
        super().__init__(optimizer, by_epoch=by_epoch)
        self.schedule_sizes = sizes
        self.learning_rates = rates
        self.warmup = warmup
        self._apply()

    def lr(self, base: float, t: int) -> float:
        """Returns the rate after ``t`` steps."""
        first = self.schedule_sizes[0]
        if t <= first:
            if not self.warmup or first == 0:
                return base
            return base + (self.learning_rates[0] - base) * t / first
        passed = sum(size < t for size in self.schedule_sizes)
        return self.learning_rates[passed - 1]


class CosineAnnealingLR(_WarmupLR):
    """``min + (base - min) / 2 * (1 + cos(pi * min(t, T_max) / T_max))`` after the warm-up."""

    def __init__(self, optimizer: _Optimizer, *, T_max: int, **warmup: Any) -> None:  # noqa: N803
        self.T_max = _positive("T_max", T_max)
        super().__init__(optimizer, **warmup)

    def after(self, base: float, t: int) -> float:
        """Returns the rate ``t`` steps after the warm-up."""
        return _cosine(base, self.min_learning_rate, min(t, self.T_max) / self.T_max)


class CosineAnnealingWarmRestartsLR(_WarmupLR):
    """The cosine in cycles of ``T_0``, ``T_0 * T_mult``, ``T_0 * T_mult ** 2``, … steps."""

    def __init__(
        self,
        optimizer: _Optimizer,
        *,
        T_0: int,  # noqa: N803
        T_mult: int = 1,  # noqa: N803
        **warmup: Any,
    ) -> None:
        self.T_0 = _positive("T_0", T_0)
        self.T_mult = _positive("T_mult", T_mult)
        super().__init__(optimizer, **warmup)

    def after(self, base: float, t: int) -> float:
        """Returns the rate ``t`` steps after the warm-up."""
        cycle = self.T_0
        if self.T_mult == 1:
            t %= cycle
        while t >= cycle:
            t -= cycle
            cycle *= self.T_mult
        return _cosine(base, self.min_learning_rate, t / cycle)


class ReduceOnPlateauLR(Schedule):
    """Multiplies the rate by ``factor`` when an evaluation metric has stopped improving.

    An evaluation is no improvement when the metric is not better than the best one by more
    than ``min_delta``, or not a number. After ``patience`` such evaluations in a row the rate
    drops, and the count starts again.
    """

    def __init__(
        self,
        optimizer: _Optimizer,
        *,
        metric: str,
        larger_is_better: bool = True,
        factor: float = 0.1,
        patience: int = 1,
        min_delta: float = 0.0,
        min_learning_rate: float = 0.0,
    ) -> None:
        super().__init__(optimizer)
        if not 0 < factor < 1:
            raise ConfigError(
                f"reduce_on_plateau_learning_rate.factor must be between 0 and 1, it is {factor}"
            )
        self.metric = metric
        self.larger_is_better = larger_is_better
        self.factor = factor
        self.patience = _positive("patience", patience)
        self.min_delta = min_delta
        self.min_learning_rate = min_learning_rate
        self.best: float | None = None
        self.num_bad = 0

    def lr(self, base: float, t: int) -> float:
        """Returns the rate after ``t`` drops."""
        return max(base * self.factor**t, min(base, self.min_learning_rate))

    def step(self) -> None:
        """Does nothing: evaluations drive this schedule."""

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Takes note of an evaluation.

        Raises:
            ConfigError: the metric was not evaluated.
        """
        if self.metric not in metrics:
            known = ", ".join(sorted(metrics))
            raise ConfigError(
                f"reduce_on_plateau_learning_rate.metric: {self.metric!r} was not evaluated, "
                f"there is {known}{did_you_mean(self.metric, metrics)}"
            )
        value = metrics[self.metric]
        if self._improves(value):
            self.best, self.num_bad = value, 0
            return
        self.num_bad += 1
        if self.num_bad >= self.patience:
            self.num_bad = 0
            self.t += 1
            self._apply()

    def _improves(self, value: float) -> bool:
        if self.best is None:
            return not math.isnan(value)
        gain = value - self.best if self.larger_is_better else self.best - value
        return gain > self.min_delta

    def state_dict(self) -> dict[str, Any]:
        """Returns where the schedule stands."""
        return {"t": self.t, "best": self.best, "num_bad": self.num_bad}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes to where a schedule stood."""
        self.best, self.num_bad = state["best"], int(state["num_bad"])
        super().load_state_dict(state)


_SCHEDULES: dict[str, type[Schedule]] = {
    "constant_learning_rate": ConstantLR,
    "exponential_decay_learning_rate": ExponentialDecayLR,
    "manual_step_learning_rate": ManualStepLR,
    "cosine_annealing_learning_rate": CosineAnnealingLR,
    "cosine_annealing_warm_restarts_learning_rate": CosineAnnealingWarmRestartsLR,
    "reduce_on_plateau_learning_rate": ReduceOnPlateauLR,
}


def create_scheduler(optimizer: _Optimizer, config: Message) -> Schedule:
    """Returns the schedule that a config's ``learning_rate`` oneof selects.

    Args:
        optimizer: its learning rates are set from now on.
        config: `SparseOptimizer`, `DenseOptimizer` or `PartOptimizer` message.

    Raises:
        ConfigError: no schedule is selected, or it has values that it cannot have.
    """
    name = config.WhichOneof("learning_rate")
    if name is None:
        raise ConfigError(
            f"{config.DESCRIPTOR.name} has no learning_rate",
            hint="add constant_learning_rate {} for a rate that does not change",
        )
    message = getattr(config, name)
    kwargs = {field.name: getattr(message, field.name) for field in message.DESCRIPTOR.fields}
    return _SCHEDULES[name](optimizer, **kwargs)


def _positive(name: str, value: int) -> int:
    if value <= 0:
        raise ConfigError(f"{name} must be positive, it is {value}")
    return value


def _cosine(base: float, minimum: float, progress: float) -> float:
    return minimum + (base - minimum) / 2 * (1 + math.cos(math.pi * progress))
