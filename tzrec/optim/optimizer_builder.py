"""Optimizer messages of the config → what they build."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from google.protobuf.message import Message
from torch import nn

from tzrec.errors import ConfigError
from tzrec.ops.cpu.rule import UpdateRule, WeightDecayMode
from tzrec.protos import optimizer_pb2


def create_sparse_optimizer(
    config: optimizer_pb2.SparseOptimizer, *, embedding_l2: float = 0.0, all_rows: bool = False
) -> UpdateRule:
    """Returns how embedding tables are trained.

    Args:
        config: selects and parametrises the optimizer.
        embedding_l2: ``train_config.embedding_l2``.
        all_rows: ``train_config.embedding_l2_all_rows``.

    Raises:
        ConfigError: no optimizer is selected.
    """
    name = config.WhichOneof("optimizer")
    if name is None:
        raise ConfigError(
            "sparse_optimizer selects no optimizer", hint=f"one of {', '.join(_DECAY)}"
        )
    message = getattr(config, name)
    fields = {field.name: getattr(message, field.name) for field in message.DESCRIPTOR.fields}
    clips, bound = fields.pop("gradient_clipping"), fields.pop("max_gradient")
    mode = fields.pop("weight_decay_mode", None)
    return UpdateRule(
        name.removesuffix("_optimizer"),
        max_gradient=bound if clips else math.inf,
        embedding_l2=embedding_l2,
        all_rows=all_rows,
        weight_decay_mode=_DECAY[name] if mode is None else _MODES[mode],
        **fields,
    )


# Where weight decay enters the optimizers that do not choose.
_DECAY: Mapping[str, WeightDecayMode] = {
    "sgd_optimizer": "none",
    "adagrad_optimizer": "none",
    "adam_optimizer": "decoupled",
    "lars_sgd_optimizer": "own",
    "lamb_optimizer": "own",
    "partial_rowwise_lamb_optimizer": "own",
    "partial_rowwise_adam_optimizer": "decoupled",
    "rowwise_adagrad_optimizer": "none",
    "adadelta_optimizer": "l2",
    "rmsprop_optimizer": "l2",
}
_MODES: Mapping[int, WeightDecayMode] = {
    optimizer_pb2.NONE: "none",
    optimizer_pb2.L2: "l2",
    optimizer_pb2.DECOUPLE: "decoupled",
}


@dataclasses.dataclass(frozen=True)
class DenseSpec:
    """An optimizer of `torch.optim` that is not built yet.

    Attributes:
        optimizer_class: class in `torch.optim`.
        kwargs: its arguments.
        config: message whose ``learning_rate`` schedules it.
        pattern: a parameter belongs to a part optimizer when its whole name matches; None for
            the main optimizer.
    """

    optimizer_class: type[torch.optim.Optimizer]
    kwargs: dict[str, Any]
    config: Message
    pattern: re.Pattern[str] | None = None

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Returns the optimizer of ``parameters``."""
        build: Callable[..., torch.optim.Optimizer] = self.optimizer_class
        return build(list(parameters), **self.kwargs)


_DENSE: Mapping[str, type[torch.optim.Optimizer]] = {
    "sgd_optimizer": torch.optim.SGD,
    "adagrad_optimizer": torch.optim.Adagrad,
    "adam_optimizer": torch.optim.Adam,
    "adamw_optimizer": torch.optim.AdamW,
    "adadelta_optimizer": torch.optim.Adadelta,
    "rmsprop_optimizer": torch.optim.RMSprop,
}


def create_dense_optimizer(config: optimizer_pb2.DenseOptimizer) -> DenseSpec:
    """Returns the optimizer of the dense parameters.

    Where the config does not say, torch's fused kernels are used: same formula, one pass.

    Raises:
        ConfigError: no optimizer is selected.
    """
    return _dense_spec(config, "dense_optimizer")


def create_part_optimizers(config: optimizer_pb2.DenseOptimizer) -> list[DenseSpec]:
    """Returns the optimizers of parameters that match a pattern, in order of precedence.

    A part without a schedule has the main optimizer's.

    Raises:
        ConfigError: a part selects no optimizer, or its pattern is no regular expression.
    """
    specs = []
    for number, part in enumerate(config.part_optimizers):
        where = f"dense_optimizer.part_optimizers[{number}]"
        try:
            pattern = re.compile(part.regex_pattern)
        except re.error as error:
            raise ConfigError(
                f"{where}.regex_pattern {part.regex_pattern!r} is no regular expression: {error}"
            ) from None
        schedule: Message = part if part.WhichOneof("learning_rate") else config
        spec = _dense_spec(part, where)
        specs.append(dataclasses.replace(spec, config=schedule, pattern=pattern))
    return specs


def _dense_spec(config: Any, where: str) -> DenseSpec:
    name = config.WhichOneof("optimizer")
    if name is None:
        raise ConfigError(f"{where} selects no optimizer", hint=f"one of {', '.join(_DENSE)}")
    message = getattr(config, name)
    kwargs = {field.name: getattr(message, field.name) for field in message.DESCRIPTOR.fields}
    if "beta1" in kwargs:
        kwargs["betas"] = (kwargs.pop("beta1"), kwargs.pop("beta2"))
    if "fused" in kwargs and not message.HasField("fused"):
        kwargs["fused"] = True
    return DenseSpec(_DENSE[name], kwargs, config)
