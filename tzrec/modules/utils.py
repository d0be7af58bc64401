"""`BaseModule`: the flags that every module of a model shares, and small weight helpers."""

from __future__ import annotations

import enum

from torch import nn

from tzrec.config.names import parameter_name_problem
from tzrec.errors import ConfigError


class Kernel(enum.IntEnum):
    """Implementation of the heavy operators; numbers of ``ModelConfig.kernel``."""

    TRITON = 0
    PYTORCH = 1
    CUTLASS = 2


class BaseModule(nn.Module):
    """A module that knows whether it trains, evaluates or serves, and with which kernels.

    Args:
        is_inference: True for a model that is exported or served.
        kernel: implementation of the heavy operators.
    """

    def __init__(self, is_inference: bool = False, kernel: Kernel = Kernel.PYTORCH) -> None:
        super().__init__()
        self._is_inference = is_inference
        self._kernel = kernel

    @property
    def is_inference(self) -> bool:
        """True when the module serves: no labels, no loss."""
        return self._is_inference

    @property
    def is_train(self) -> bool:
        """True while weights are learnt."""
        return not self._is_inference and self.training

    @property
    def is_eval(self) -> bool:
        """True while metrics are computed without learning."""
        return not self._is_inference and not self.training

    def kernel(self) -> Kernel:
        """Returns the implementation of the heavy operators."""
        return self._kernel

    def set_is_inference(self, is_inference: bool) -> None:
        """Marks this module and all `BaseModule`s below it."""
        for module in self.modules():
            if isinstance(module, BaseModule):
                module._is_inference = is_inference

    def set_kernel(self, kernel: Kernel) -> None:
        """Selects the operators of this module and all `BaseModule`s below it."""
        for module in self.modules():
            if isinstance(module, BaseModule):
                module._kernel = kernel


def init_linear_xavier_weights_zero_bias(module: nn.Module) -> None:
    """Xavier-uniform weights and zero bias for a linear layer; for ``module.apply``."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def check_module_name(name: str, what: str) -> str:
    """Returns ``name`` if it can be a part of a parameter name.

    Raises:
        ConfigError: it cannot, see `parameter_name_problem`.
    """
    problem = parameter_name_problem(name)
    if problem:
        raise ConfigError(f"{what} {name!r} becomes part of parameter names: {problem}")
    return name
