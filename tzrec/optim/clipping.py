"""What happens to dense gradients between the backward pass and the update."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from torch import nn

from tzrec.errors import ConfigError, did_you_mean
from tzrec.protos.train_pb2 import TrainConfig

_CLIPPING_TYPES = ("none", "norm", "value")


@dataclasses.dataclass(frozen=True)
class StepOptions:
    """What happens to dense gradients between the backward pass and the update.

    Clipping covers the dense parameters of all dense optimizers together; embedding tables have
    their own ``gradient_clipping`` in the sparse optimizer. Dense parameters are replicated and
    their gradients averaged over the ranks before they get here, so the norm is that of the
    whole batch of all ranks, with ``enable_global_grad_clip`` or without.

    Attributes:
        accumulation_steps: batches whose gradients make one update.
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

    @classmethod
    def of(cls, train_config: TrainConfig) -> StepOptions:
        """Returns the options that a config asks for.

        Raises:
            ConfigError: the clipping type is unknown.
        """
        clipping = train_config.grad_clipping
        kind = clipping.clipping_type.lower()
        if kind not in _CLIPPING_TYPES:
            raise ConfigError(
                f"grad_clipping.clipping_type is {clipping.clipping_type!r}, it must be one of "
                f"{', '.join(_CLIPPING_TYPES)}{did_you_mean(kind, _CLIPPING_TYPES)}"
            )
        return cls(
            accumulation_steps=max(train_config.gradient_accumulation_steps, 1),
            dense_l2=train_config.dense_l2,
            clipping_type=kind,
            max_gradient=clipping.max_gradient,
            norm_type=clipping.norm_type,
        )

    def regularise(self, parameters: Iterable[nn.Parameter]) -> None:
        """Adds the gradient of the L2 penalty."""
        if self.dense_l2 == 0:
            return
        for parameter in parameters:
            if parameter.grad is not None and parameter.dim() > 1:
                parameter.grad.add_(parameter.detach(), alpha=self.dense_l2)

    def clip(self, parameters: Iterable[nn.Parameter]) -> None:
        """Bounds the gradients."""
        if self.clipping_type == "norm":
            nn.utils.clip_grad_norm_(parameters, self.max_gradient, self.norm_type)
        elif self.clipping_type == "value":
            nn.utils.clip_grad_value_(parameters, self.max_gradient)
