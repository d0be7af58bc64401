"""`TZRecOptimizer`: all optimizers of a model as one, with everything around a step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    SplitTableBatchedEmbeddingBagsCodegen,
)
from torch import Tensor, nn
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.optimizers import in_backward_optimizer_filter

from tzrec.errors import ConfigError, Unsupported, did_you_mean
from tzrec.ops.cpu.collections import CpuEmbeddingBagCollection, CpuEmbeddingCollection
from tzrec.ops.loss_scale import LossScale, unscale_gradient
from tzrec.optim.lr_scheduler import Schedule, create_scheduler
from tzrec.optim.optimizer_builder import (
    DenseSpec,
    create_dense_optimizer,
    create_part_optimizers,
)
from tzrec.protos.train_pb2 import GradClipping, TrainConfig

_CLIPPING_TYPES = ("none", "norm", "value")


@dataclasses.dataclass(frozen=True)
class StepOptions:
    """What happens to dense gradients between the backward pass and the update.

    Attributes:
        accumulation_steps: batches whose gradients make one dense update.
        dense_l2: L2 penalty on dense weights; biases and norms (1-D parameters) are left out.
        clipping_type: ``none``, ``norm`` or ``value``.
        max_gradient: bound of the norm or of each element.
        norm_type: which norm.
    """

    accumulation_steps: int = 1
    dense_l2: float = 0.0
    clipping_type: str = "none"
    max_gradient: float = 1.0
    norm_type: float = 2.0


class TZRecOptimizer:
    """Embedding tables (updated in the backward pass), dense parameters and part optimizers.

    One step of the loop is ``zero_grad()``, ``backward(loss)``, ``step()``. With accumulation
    the loss is divided by the number of batches, and dense parameters change at every n-th
    call of `step`; embedding tables change in every backward pass. Checkpoints do not hold
    gradients that are still accumulating.

    Clipping sees dense gradients only, and after the gradients of all ranks were averaged, so
    every rank computes the same norm.

    Args:
        fused: optimizer of the embedding tables.
        dense: optimizers of dense parameters.
        schedules: schedules of all of them.
        options: what happens to dense gradients.
        scaler: scales the loss of half-precision training.
        loss_scale: where embedding tables read the scale.
    """

    def __init__(
        self,
        fused: KeyedOptimizer,
        dense: Iterable[KeyedOptimizerWrapper],
        *,
        schedules: Iterable[Schedule] = (),
        options: StepOptions | None = None,
        scaler: torch.amp.GradScaler | None = None,
        loss_scale: LossScale | None = None,
    ) -> None:
        self._fused = fused
        self._dense = list(dense)
        self._all = CombinedOptimizer([fused, *self._dense])
        self.schedulers = list(schedules)
        self._options = options or StepOptions()
        self._scaler = scaler
        self._loss_scale = loss_scale or LossScale()
        self._num_backward = 0

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
        if self._num_backward % self._options.accumulation_steps == 0:
            for optimizer in self._dense:
                optimizer.zero_grad()

    def backward(self, loss: Tensor) -> None:
        """Computes dense gradients and updates embedding tables."""
        loss = loss / self._options.accumulation_steps
        if self._scaler is not None:
            loss = self._scaler.scale(loss)
            self._loss_scale.value = self._scaler.get_scale()
        loss.backward()
        self._num_backward += 1

    def step(self) -> None:
        """Updates dense parameters, if enough gradients have been accumulated."""
        if self._num_backward % self._options.accumulation_steps:
            return
        ready = [optimizer for optimizer in self._inner() if _gradients(optimizer)]
        if self._scaler is not None:
            for optimizer in ready:
                self._scaler.unscale_(optimizer)
        self._regularise(ready)
        self._clip(ready)
        for optimizer in ready:
            if self._scaler is not None:
                self._scaler.step(optimizer)
            else:
                optimizer.step()
        if self._scaler is not None and ready:
            self._scaler.update()

    def init_state(self) -> None:
        """Creates the states that dense optimizers make in their first step.

        No parameter changes. Call it before loading a state dict.
        """
        for optimizer in self._inner():
            _create_states(optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Returns the states by parameter name, and the grad scaler's.

        Learning rates are not part of it: schedules have their own state dicts.
        """
        state: dict[str, Any] = self._all.state_dict()
        if self._scaler is not None:
            state["grad_scaler"] = self._scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Loads what `state_dict` returned; `init_state` must have been called."""
        self._all.load_state_dict(state_dict)
        if self._scaler is not None and "grad_scaler" in state_dict:
            self._scaler.load_state_dict(dict(state_dict["grad_scaler"]))

    def _inner(self) -> list[torch.optim.Optimizer]:
        return [wrapper._optimizer for wrapper in self._dense]

    def _regularise(self, optimizers: list[torch.optim.Optimizer]) -> None:
        if self._options.dense_l2 == 0:
            return
        for optimizer in optimizers:
            for parameter in _parameters(optimizer):
                if parameter.grad is not None and parameter.dim() > 1:
                    parameter.grad.add_(parameter.detach(), alpha=self._options.dense_l2)

    def _clip(self, optimizers: list[torch.optim.Optimizer]) -> None:
        options = self._options
        parameters = [p for optimizer in optimizers for p in _parameters(optimizer)]
        if options.clipping_type == "norm":
            nn.utils.clip_grad_norm_(parameters, options.max_gradient, options.norm_type)
        elif options.clipping_type == "value":
            nn.utils.clip_grad_value_(parameters, options.max_gradient)


def build_optimizer(model: Any, train_config: TrainConfig) -> TZRecOptimizer:
    """Returns the optimizer of a distributed model.

    Args:
        model: `DistributedModelParallel`, whose embedding tables have their optimizer already.
        train_config: config of all optimizers and of what surrounds a step.

    Raises:
        ConfigError: the config has values that it cannot have.
        Unsupported: the config asks for the moving average of dense parameters.
    """
    if train_config.dense_optimizer.HasField("ema"):
        raise Unsupported("dense_optimizer.ema comes with a later version")
    fused = model.fused_optimizer
    schedules = []
    if fused.params:
        schedules.append(create_scheduler(fused, train_config.sparse_optimizer))
    dense = []
    for spec, parameters in _assign(model, train_config):
        optimizer = KeyedOptimizerWrapper(parameters, spec.build)
        schedules.append(create_scheduler(optimizer, spec.config))
        dense.append(optimizer)
    scaler = loss_scale = None
    if train_config.HasField("grad_scaler"):
        loss_scale = LossScale()
        scaler = _create_scaler(train_config, next(iter(model.parameters())).device)
        _hand_to_tables(model, loss_scale)
    return TZRecOptimizer(
        fused,
        dense,
        schedules=schedules,
        options=_step_options(train_config),
        scaler=scaler,
        loss_scale=loss_scale,
    )


def _assign(
    model: Any, train_config: TrainConfig
) -> list[tuple[DenseSpec, dict[str, nn.Parameter]]]:
    """Returns each dense optimizer with its parameters: the main one, then the parts."""
    main = create_dense_optimizer(train_config.dense_optimizer)
    parts = create_part_optimizers(train_config.dense_optimizer)
    assigned: list[tuple[DenseSpec, dict[str, nn.Parameter]]] = [(main, {})]
    assigned += [(part, {}) for part in parts]
    for name, parameter in in_backward_optimizer_filter(model.named_parameters()):
        if not parameter.requires_grad:
            continue
        matches = [
            p for s, p in assigned[1:] if s.pattern is not None and s.pattern.fullmatch(name)
        ]
        (matches[0] if matches else assigned[0][1])[name] = parameter
    return [(spec, parameters) for spec, parameters in assigned if parameters]


def _step_options(train_config: TrainConfig) -> StepOptions:
    clipping = train_config.grad_clipping
    return StepOptions(
        accumulation_steps=max(train_config.gradient_accumulation_steps, 1),
        dense_l2=train_config.dense_l2,
        clipping_type=_clipping_type(clipping),
        max_gradient=clipping.max_gradient,
        norm_type=clipping.norm_type,
    )


def _clipping_type(clipping: GradClipping) -> str:
    kind = clipping.clipping_type.lower()
    if kind not in _CLIPPING_TYPES:
        raise ConfigError(
            f"grad_clipping.clipping_type is {clipping.clipping_type!r}, it must be one of "
            f"{', '.join(_CLIPPING_TYPES)}{did_you_mean(kind, _CLIPPING_TYPES)}"
        )
    return kind


def _create_scaler(train_config: TrainConfig, device: torch.device) -> torch.amp.GradScaler:
    config = train_config.grad_scaler
    return torch.amp.GradScaler(
        device.type,
        init_scale=config.init_scale,
        growth_factor=config.growth_factor,
        backoff_factor=config.backoff_factor,
        growth_interval=config.growth_interval,
    )


def _hand_to_tables(model: nn.Module, loss_scale: LossScale) -> None:
    """Lets every embedding table take the scale out of its gradients."""

    def unscale(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:  # noqa: ARG001
        return unscale_gradient(output, loss_scale)

    for module in model.modules():
        if isinstance(module, CpuEmbeddingBagCollection | CpuEmbeddingCollection):
            module.set_loss_scale(loss_scale)
        lookups: Any = getattr(module, "_lookups", [])
        for kernel in (kernel for lookup in lookups for kernel in lookup.modules()):
            if isinstance(kernel, SplitTableBatchedEmbeddingBagsCodegen):
                kernel.register_forward_hook(unscale)


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _gradients(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p.grad for p in _parameters(optimizer) if p.grad is not None]


def _create_states(optimizer: torch.optim.Optimizer) -> None:
    """Runs a step that changes nothing for the parameters that have no state yet."""
    parameters = _parameters(optimizer)
    fresh = [parameter for parameter in parameters if not optimizer.state.get(parameter)]
    gradients = [parameter.grad for parameter in parameters]
    settings = [dict(group) for group in optimizer.param_groups]
    for parameter in parameters:
        parameter.grad = None
    for parameter in fresh:
        parameter.grad = torch.zeros_like(parameter)
    for group in optimizer.param_groups:
        group["lr"] = group["weight_decay"] = 0.0
    optimizer.step()
    for parameter in fresh:
        step = optimizer.state.get(parameter, {}).get("step")
        if isinstance(step, Tensor):
            step.zero_()
    for group, setting in zip(optimizer.param_groups, settings, strict=True):
        group.update(setting)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
