"""How a model is run: training, prediction, and as a function of plain tensors for export."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Dict  # noqa: UP035 (TorchScript reads it)

import torch
from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.datasets.data_parser import DataParser
from tzrec.errors import ConfigError, did_you_mean

CPU = torch.device("cpu")
_PRECISIONS = {"BF16": torch.bfloat16, "FP16": torch.float16}

TrainResult = tuple[Tensor, tuple[dict[str, Tensor], dict[str, Tensor], Batch]]


def autocast_dtype(mixed_precision: str | None) -> torch.dtype | None:
    """Returns the autocast type of ``BF16`` or ``FP16``, None for no autocast.

    Raises:
        ConfigError: another text.
    """
    if not mixed_precision:
        return None
    if mixed_precision not in _PRECISIONS:
        raise ConfigError(
            f"mixed_precision is {mixed_precision!r}; it is one of {', '.join(_PRECISIONS)}"
        )
    return _PRECISIONS[mixed_precision]


class _Wrapper(nn.Module):
    """Base: parameter names of the wrapped model start with ``model.``."""

    def __init__(
        self, module: nn.Module, device: torch.device | None, mixed_precision: str | None
    ) -> None:
        super().__init__()
        self.model: Any = module
        self._device_type = (device or CPU).type
        self._dtype = autocast_dtype(mixed_precision)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self._dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self._device_type, dtype=self._dtype)


class TrainWrapper(_Wrapper):
    """Predictions, losses and their sum.

    Args:
        module: a `BaseModel`.
        device: where it runs.
        mixed_precision: ``BF16`` or ``FP16`` autocast of prediction and loss; None = FP32.

    Raises:
        ConfigError: ``mixed_precision`` is unknown.
    """

    def __init__(
        self,
        module: nn.Module,
        device: torch.device | None = None,
        mixed_precision: str | None = None,
    ) -> None:
        super().__init__(module, device, mixed_precision)
        self.model.init_loss()
        self.model.init_metric()

    def forward(self, batch: Batch) -> TrainResult:
        """Returns the total loss, and (losses, predictions, batch) without gradients."""
        with self._autocast():
            predictions = self.model.predict(batch)
            losses = self.model.loss(predictions, batch)
            total_loss = torch.stack(list(losses.values())).sum()
        losses = {key: value.detach() for key, value in losses.items()}
        predictions = {key: value.detach() for key, value in predictions.items()}
        return total_loss, (losses, predictions, batch)


class PredictWrapper(_Wrapper):
    """Predictions, on the CPU.

    Args:
        module: a `BaseModel`.
        device: where it runs.
        mixed_precision: ``BF16`` or ``FP16`` autocast; None = FP32.
        output_cols: predictions to keep; None = all.

    Raises:
        ConfigError: ``mixed_precision`` is unknown.
    """

    def __init__(
        self,
        module: nn.Module,
        device: torch.device | None = None,
        mixed_precision: str | None = None,
        output_cols: Sequence[str] | None = None,
    ) -> None:
        super().__init__(module, device, mixed_precision)
        self._output_cols = list(output_cols) if output_cols is not None else None

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], Batch]:
        """Returns the predictions and the batch.

        Raises:
            ConfigError: an output column is no prediction of the model.
        """
        with torch.no_grad(), self._autocast():
            predictions = self.model.predict(batch)
        if self._output_cols is not None:
            for name in self._output_cols:
                if name not in predictions:
                    raise ConfigError(
                        f"the model has no output {name!r}; it has "
                        f"{', '.join(sorted(predictions))}{did_you_mean(name, predictions)}"
                    )
            predictions = {name: predictions[name] for name in self._output_cols}
        return {key: value.to(CPU) for key, value in predictions.items()}, batch


class ScriptWrapper(nn.Module):
    """A model as a function of the flat dictionary of parse keys, for tracing and scripting.

    Args:
        module: a `BaseModel`.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.model: Any = module
        self._features = module._features
        self._parser = DataParser(module._features)

    def get_batch(
        self,
        data: Dict[str, Tensor],
        device: torch.device = CPU,  # noqa: UP006
    ) -> Batch:
        """Builds the batch of parse key → tensor on ``device``."""
        return self._parser.to_batch(data).to(device)

    def forward(
        self,
        data: Dict[str, Tensor],  # noqa: UP006
        device: torch.device = CPU,
    ) -> Dict[str, Tensor]:  # noqa: UP006
        """Returns prediction key → tensor.

        Args:
            data: parse key → tensor (`DataParser.parse`, or `Batch.to_dict`).
            device: where the model lives.
        """
        return self.model.predict(self.get_batch(data, device))
