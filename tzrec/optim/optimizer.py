"""`TZRecOptimizer`: all optimizers of a model as one, with everything around a step."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.optimizers import in_backward_optimizer_filter

from tzrec.ops.accumulation import Accumulation
from tzrec.ops.loss_scale import LossScale, unscale_torchrec_tables
from tzrec.optim.clipping import StepOptions
from tzrec.optim.ema import DenseEma
from tzrec.optim.lr_scheduler import Schedule, create_scheduler
from tzrec.optim.optimizer_builder import (
    DenseSpec,
    create_dense_optimizer,
    create_part_optimizers,
)
from tzrec.optim.replicated_tables import ReplicatedTables, replicated_optimizers
from tzrec.optim.sparse_parameters import split_sparse_parameters
from tzrec.optim.states import create_states
from tzrec.options import current_rank
from tzrec.protos.train_pb2 import TrainConfig

logger = logging.getLogger("tzrec")

# What changes while a scaler works; the rest is as the config says.
_SCALER_STATES = ("scale", "_growth_tracker")


class TZRecOptimizer:
    """Embedding tables, dense parameters and part optimizers.

    One step of the loop is ``zero_grad()``, ``backward(loss)``, ``step()``. With accumulation
    the loss is divided by the number of batches, and parameters change at every n-th call of
    `step`, by the mean gradient of n batches. Gradients that are still accumulating are part of
    the state. TorchRec's own tables (several processes, GPUs) are the exception: they change
    inside every backward pass, n times by an n-th.

    Clipping sees dense gradients only, and after the gradients of all ranks were averaged, so
    every rank computes the same norm. When a gradient overflowed under the scaler, nothing
    moves.

    Args:
        fused: optimizer of the embedding tables.
        dense: optimizers of dense parameters.
        tables: gradients of the embedding tables that wait for `step`.
        schedules: schedules of all of them.
        options: what happens to dense gradients.
        scaler: scales the loss of half-precision training.
        loss_scale: where embedding tables read the scale.
        ema: average of the dense parameters.

    Attributes:
        ema: average of the dense parameters, None without.
        on_gradients: called once, at the next update, with parameter name → gradient of the
            dense parameters: unscaled, with the L2 penalty, not clipped yet.
        num_overflows: updates that were left out because a scaled gradient was not finite.
    """

    def __init__(
        self,
        fused: KeyedOptimizer,
        dense: Iterable[KeyedOptimizerWrapper],
        *,
        tables: Accumulation,
        schedules: Iterable[Schedule] = (),
        options: StepOptions | None = None,
        scaler: torch.amp.GradScaler | None = None,
        loss_scale: LossScale | None = None,
        ema: DenseEma | None = None,
    ) -> None:
        self._fused = fused
        self._dense = list(dense)
        self._tables = tables
        self._all = CombinedOptimizer([fused, *self._dense])
        self.schedulers = list(schedules)
        self._options = options or StepOptions()
        self._scaler = scaler
        self._loss_scale = loss_scale or LossScale()
        self._num_backward = 0
        self.ema = ema
        self.on_gradients: Callable[[dict[str, Tensor]], None] | None = None
        self.num_overflows = 0

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Groups of the embedding tables, then of the dense parameters, then of the parts."""
        groups: Any = self._all.param_groups
        return list(groups)

    @property
    def params(self) -> Mapping[str, Any]:
        """Parameter name → parameter."""
        params: Mapping[str, Any] = self._all.params
        return params

    def learning_rates(self) -> list[float]:
        """Returns the current learning rate of each group."""
        return [float(group["lr"]) for group in self.param_groups]

    def zero_grad(self) -> None:
        """Drops dense gradients, unless they are still accumulating."""
        self._fused.zero_grad()  # hands the learning rate to TorchRec's kernels
        if self.is_due:
            for optimizer in self._dense:
                optimizer.zero_grad()

    def backward(self, loss: Tensor) -> None:
        """Computes gradients; TorchRec's own tables are updated on the way."""
        loss = loss / self._options.accumulation_steps
        if self._scaler is not None:
            loss = self._scaler.scale(loss)
            self._loss_scale.value = self._scaler.get_scale()
        loss.backward()
        self._num_backward += 1

    @property
    def is_due(self) -> bool:
        """True when the next `step` updates, False while gradients accumulate."""
        return self.num_waiting == 0

    @property
    def num_waiting(self) -> int:
        """Batches whose gradients accumulate, 0 after an update."""
        return self._num_backward % self._options.accumulation_steps

    def is_finite(self) -> bool:
        """Returns whether all gradients so far are finite; one pass over them.

        Under a scaler they need not be: `step` takes care of them.
        """
        gradients = list(self._named_gradients().values())
        if gradients:
            largest = torch.stack(torch._foreach_norm(gradients, float("inf")))
            if not bool(torch.isfinite(largest).all()):
                return False
        return self._tables.is_finite()

    def non_finite(self) -> list[str]:
        """Returns the names of the dense parameters whose gradients are not finite."""
        gradients = self._named_gradients().items()
        return [name for name, gradient in gradients if not torch.isfinite(gradient).all()]

    def drop(self) -> None:
        """Forgets the gradients since the last update, accumulated ones included."""
        self._num_backward = 0
        self._tables.drop()
        for optimizer in self._dense:
            optimizer.zero_grad()

    def step(self) -> None:
        """Updates all parameters, if enough gradients have been accumulated."""
        if not self.is_due:
            return
        ready = [optimizer for optimizer in self._inner() if _gradients(optimizer)]
        if not self._unscale(ready):
            self.num_overflows += 1
            self._tables.drop()
            return
        parameters = [
            parameter
            for optimizer in ready
            if not isinstance(optimizer, ReplicatedTables)
            for parameter in _parameters(optimizer)
        ]
        self._options.regularise(parameters)
        if self.on_gradients is not None:
            self.on_gradients(self._named_gradients(dense_only=True))
            self.on_gradients = None
        self._options.clip(parameters)
        self._tables.apply()
        for optimizer in ready:
            optimizer.step()
        if self.ema is not None and ready:
            self.ema.update()

    def init_state(self) -> None:
        """Creates the states that dense optimizers make in their first step.

        No parameter changes. Call it before loading a state dict.
        """
        for optimizer in self._inner():
            create_states(optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Returns the states by parameter name, the grad scaler's, and what is accumulating.

        Learning rates are not part of it: schedules have their own state dicts; neither is
        the average (`ema`).
        """
        state: dict[str, Any] = self._all.state_dict()
        if self._options.accumulation_steps > 1:
            state["accumulation"] = self._pending()
        if self._scaler is not None:
            scaler = self._scaler.state_dict()
            state["grad_scaler"] = {name: scaler[name] for name in _SCALER_STATES}
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Loads what `state_dict` returned; `init_state` must have been called."""
        self._all.load_state_dict(state_dict)
        if self._scaler is not None and "grad_scaler" in state_dict:
            stored = state_dict["grad_scaler"]
            self._load_scaler({name: stored[name] for name in _SCALER_STATES})
        if "accumulation" in state_dict and self._options.accumulation_steps > 1:
            self._load_pending(state_dict["accumulation"])

    def _inner(self) -> list[torch.optim.Optimizer]:
        return [wrapper._optimizer for wrapper in self._dense]

    def _named_gradients(self, *, dense_only: bool = False) -> dict[str, Tensor]:
        """Returns parameter name → gradient of the dense parameters that have one.

        Args:
            dense_only: without embedding tables that every rank holds whole.
        """
        return {
            name: parameter.grad
            for wrapper in self._dense
            if not (dense_only and isinstance(wrapper._optimizer, ReplicatedTables))
            for name, parameter in wrapper.params.items()
            if parameter.grad is not None
        }

    def _unscale(self, optimizers: list[torch.optim.Optimizer]) -> bool:
        """Takes the scale out of dense gradients; returns whether all gradients are finite."""
        if self._scaler is None:
            return True
        scale = self._scaler.get_scale()
        for optimizer in optimizers:
            self._scaler.unscale_(optimizer)
        if not self._tables.is_finite():
            self._scaler.update(scale * self._scaler.get_backoff_factor())
            # A scale that is given leaves the count of finite updates alone.
            self._load_scaler({"_growth_tracker": 0})
        elif optimizers:
            self._scaler.update()
        # The scale shrinks when, and only when, a gradient is not finite.
        return self._scaler.get_scale() >= scale

    def _load_scaler(self, changes: Mapping[str, Any]) -> None:
        assert self._scaler is not None
        self._scaler.load_state_dict({**self._scaler.state_dict(), **changes})

    def _pending(self) -> bytes:
        """Returns what has been accumulated since the last update.

        Bytes, because which parameters have a gradient differs from step to step.
        """
        tables = self._tables.pending_state()
        buffer = io.BytesIO()
        torch.save(
            {
                "accumulation_steps": self._options.accumulation_steps,
                "num_backward": self.num_waiting,
                "gradients": {} if self.is_due else self._named_gradients(),
                "tables": torch.from_numpy(np.frombuffer(tables, np.uint8).copy()),
            },
            buffer,
        )
        return buffer.getvalue()

    def _load_pending(self, stored: bytes) -> None:
        pending = torch.load(io.BytesIO(stored), weights_only=True)
        if pending["accumulation_steps"] != self._options.accumulation_steps:
            if pending["num_backward"]:
                logger.warning(
                    "gradient_accumulation_steps was %d and is %d: gradients of the last %d "
                    "batches before the checkpoint are dropped",
                    pending["accumulation_steps"],
                    self._options.accumulation_steps,
                    pending["num_backward"],
                )
            return
        self._num_backward = pending["num_backward"]
        self._tables.load_pending_state(pending["tables"].numpy().tobytes())
        for wrapper in self._dense:
            for name, parameter in wrapper.params.items():
                gradient = pending["gradients"].get(name)
                if gradient is not None:
                    gradient = gradient.to(parameter.device)
                parameter.grad = gradient


def build_optimizer(model: Any, train_config: TrainConfig) -> TZRecOptimizer:
    """Returns the optimizer of a distributed model.

    Args:
        model: `DistributedModelParallel`, whose embedding tables have their optimizer already.
        train_config: config of all optimizers and of what surrounds a step.

    Raises:
        ConfigError: the config has values that it cannot have.
    """
    fused = model.fused_optimizer
    schedules = []
    replicated = replicated_optimizers(model, train_config)
    if fused.params or replicated:
        # One schedule, however the tables are placed.
        of_tables = CombinedOptimizer([fused, *replicated])
        schedules.append(create_scheduler(of_tables, train_config.sparse_optimizer))
    dense = list(replicated)
    assigned = _assign(model, train_config)
    for spec, parameters in assigned:
        optimizer = KeyedOptimizerWrapper(parameters, spec.build)
        schedules.append(create_scheduler(optimizer, spec.config))
        dense.append(optimizer)
    tables = Accumulation(model)
    scaler = loss_scale = None
    if train_config.HasField("grad_scaler"):
        loss_scale = LossScale()
        scaler = _create_scaler(train_config, next(iter(model.parameters())).device)
        tables.set_loss_scale(loss_scale)
        unscale_torchrec_tables(model, loss_scale)
    return TZRecOptimizer(
        fused,
        dense,
        tables=tables,
        schedules=schedules,
        options=StepOptions.of(train_config),
        scaler=scaler,
        loss_scale=loss_scale,
        ema=_create_ema(train_config, [parameters for _, parameters in assigned]),
    )


def _assign(
    model: Any, train_config: TrainConfig
) -> list[tuple[DenseSpec, dict[str, nn.Parameter]]]:
    """Returns each dense optimizer with its parameters: the main one, then the parts."""
    main = create_dense_optimizer(train_config.dense_optimizer)
    parts = create_part_optimizers(train_config.dense_optimizer)
    assigned: list[tuple[DenseSpec, dict[str, nn.Parameter]]] = [(main, {})]
    assigned += [(part, {}) for part in parts]
    tables = {id(weight) for part in split_sparse_parameters(model) for weight in part}
    for name, parameter in in_backward_optimizer_filter(model.named_parameters()):
        if not parameter.requires_grad or id(parameter) in tables:
            continue
        matches = [
            p for s, p in assigned[1:] if s.pattern is not None and s.pattern.fullmatch(name)
        ]
        (matches[0] if matches else assigned[0][1])[name] = parameter
    for spec, parameters in assigned[1:]:
        if spec.pattern is not None and not parameters and current_rank() == 0:
            logger.warning(
                "dense_optimizer.part_optimizers: %r is no whole name of a parameter (such as %s) "
                "that an earlier part left over, so this part does nothing",
                spec.pattern.pattern,
                next(iter(assigned[0][1]), "model.…"),
            )
    return [(spec, parameters) for spec, parameters in assigned if parameters]


def _create_ema(
    train_config: TrainConfig, parameters: list[dict[str, nn.Parameter]]
) -> DenseEma | None:
    config = train_config.dense_optimizer
    if not config.HasField("ema"):
        return None
    every = {name: parameter for part in parameters for name, parameter in part.items()}
    return DenseEma(every, config.ema.decay)


def _create_scaler(train_config: TrainConfig, device: torch.device) -> torch.amp.GradScaler:
    config = train_config.grad_scaler
    return torch.amp.GradScaler(
        device.type,
        init_scale=config.init_scale,
        growth_factor=config.growth_factor,
        backoff_factor=config.backoff_factor,
        growth_interval=config.growth_interval,
    )


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _gradients(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p.grad for p in _parameters(optimizer) if p.grad is not None]
