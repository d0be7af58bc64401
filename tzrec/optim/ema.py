"""`DenseEma`: the moving average of the dense parameters."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.errors import ConfigError

NUM_AVERAGED = "__n_averaged__"


class DenseEma:
    """Averages the dense parameters over the updates of a run.

    The first update copies, later ones make
    ``average = decay * average + (1 - decay) * parameter``. Averages are held in FP32 whatever
    the parameter's type. Parameters only: statistics of batch norms and embedding tables
    stay what they are. All ranks hold the same averages, because they hold the same parameters.

    Args:
        parameters: name → dense parameter, with the names of the model's state dict.
        decay: weight of the old average, in [0, 1).

    Raises:
        ConfigError: ``decay`` is out of its range.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        if not 0 <= decay < 1:
            raise ConfigError(f"dense_optimizer.ema.decay must be in [0, 1), it is {decay:g}")
        self.decay = decay
        self.num_averaged = 0
        self._parameters = dict(parameters)
        self._averages = {
            name: parameter.detach().float().clone() for name, parameter in parameters.items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Takes the current parameters into the average; call it after each real update."""
        averages, current = list(self._averages.values()), self._current()
        if not averages:
            return
        if self.num_averaged == 0:
            torch._foreach_copy_(averages, current)
        else:
            torch._foreach_lerp_(averages, current, 1 - self.decay)
        self.num_averaged += 1

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """Puts the averages into the model, and the parameters back at the end.

        Before the first update there is no average: the parameters stay.
        """
        if self.num_averaged == 0:
            yield
            return
        parameters = [parameter.detach() for parameter in self._parameters.values()]
        kept = [parameter.clone() for parameter in parameters]
        self._copy(parameters, list(self._averages.values()))
        try:
            yield
        finally:
            self._copy(parameters, kept)

    def apply(self) -> None:
        """Puts the averages into the model for good, if there are any."""
        if self.num_averaged:
            parameters = [parameter.detach() for parameter in self._parameters.values()]
            self._copy(parameters, list(self._averages.values()))

    def state_dict(self) -> dict[str, Any]:
        """Returns parameter name → average, and how often was averaged.

        Tensors are the averages themselves, not copies.
        """
        return {**self._averages, NUM_AVERAGED: torch.tensor(self.num_averaged)}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned.

        A name that the state lacks gets the parameter's present value.
        """
        for name, average in self._averages.items():
            average.copy_(state.get(name, self._parameters[name]))
        self.num_averaged = int(state[NUM_AVERAGED])

    def _current(self) -> list[Tensor]:
        return [parameter.detach().float() for parameter in self._parameters.values()]

    @staticmethod
    @torch.no_grad()
    def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
        torch._foreach_copy_(targets, sources)
