"""What training, prediction and export put around a model."""

# No postponed annotations: the tracer copies those of ScriptWrapper.forward for TorchScript.

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.batch import Batch
from tzrec.datasets.data_parser import DataParser
from tzrec.errors import ConfigError, did_you_mean
from tzrec.models.precision import autocast, check_precision

_CPU = torch.device("cpu")


class TrainWrapper(nn.Module):
    """A model with its losses and metrics.

    Args:
        module: a `BaseModel`.
        device: where it computes, CPU by default.
        mixed_precision: ``BF16`` or ``FP16`` for autocast of the predictions; losses are always
            float32.
        step_precision: that of predictions in training mode, where it is another.

    Raises:
        ConfigError: losses or metrics do not fit the model, or a precision is unknown.
    """

    model: Any

    def __init__(
        self,
        module: nn.Module,
        device: torch.device | None = None,
        mixed_precision: str | None = None,
        step_precision: str | None = None,
    ) -> None:
        super().__init__()
        self.model = module
        self.model.init_loss()
        self.model.init_metric()
        self._device_type = (device or _CPU).type
        self._precision = check_precision(mixed_precision)
        self._step_precision = check_precision(step_precision or mixed_precision)

    def forward(
        self, batch: Batch
    ) -> tuple[Tensor, tuple[dict[str, Tensor], dict[str, Tensor], Batch]]:
        """Returns the total of the losses, and (losses, predictions, batch) without gradients."""
        precision = self._step_precision if self.training else self._precision
        with autocast(self._device_type, precision):
            predictions = self.model.predict(batch)
        losses = self.model.loss(predictions, batch)
        if not losses:
            raise ConfigError(
                f"{type(self.model).__name__} has no loss: there is nothing to learn",
                hint="for a click label: losses { binary_cross_entropy {} }",
            )
        total_loss = self.model.total_loss(losses)
        return total_loss, (_detached(losses), _detached(predictions), batch)


class PredictWrapper(nn.Module):
    """A model that predicts, its output on the CPU and without gradients.

    Args:
        module: a `BaseModel`.
        device: where it computes, CPU by default.
        mixed_precision: ``BF16`` or ``FP16`` for autocast.
        output_cols: predictions to return, all by default.

    Raises:
        ConfigError: the precision is unknown.
    """

    model: Any

    def __init__(
        self,
        module: nn.Module,
        device: torch.device | None = None,
        mixed_precision: str | None = None,
        output_cols: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.model = module
        self._device = device or _CPU
        self._precision = check_precision(mixed_precision)
        self._output_cols = list(output_cols) if output_cols is not None else None

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], Batch]:
        """Returns the predictions and the batch.

        Raises:
            ConfigError: an output column is no prediction of the model.
        """
        batch = batch.to(self._device, non_blocking=True)
        with torch.no_grad(), autocast(self._device.type, self._precision):
            predictions = self.model.predict(batch)
        for name in self._output_cols or []:
            if name not in predictions:
                raise ConfigError(
                    f"the model does not predict {name!r}{did_you_mean(name, predictions)}",
                    hint=f"it predicts: {', '.join(sorted(predictions))}",
                )
        names = self._output_cols if self._output_cols is not None else list(predictions)
        return {name: predictions[name].detach().to(_CPU) for name in names}, batch


class ScriptWrapper(nn.Module):
    """A model on the flat dictionary of parse keys, the form that is exported.

    Traced with ``torchrec.fx.Tracer`` and compiled with ``torch.jit.script``.

    Args:
        module: a `BaseModel`.
        input_tile: 0, or how features of users are repeated, see `tzrec.datasets.tiling`.

    Raises:
        ConfigError: there is no such ``input_tile``.
    """

    model: Any

    def __init__(self, module: nn.Module, input_tile: int = 0) -> None:
        super().__init__()
        self.model = module
        self._data_parser = DataParser(self.model.features, input_tile=input_tile)

    def get_batch(self, data: dict[str, Tensor], device: torch.device = _CPU) -> Batch:
        """Builds the batch of the tensors of `DataParser.parse`, on ``device``."""
        moved: Any = _OnDevice(data, device)
        return self._data_parser.to_batch(moved)

    def forward(self, data: dict[str, Tensor], device: torch.device = _CPU) -> dict[str, Tensor]:
        """Returns the predictions of ``data`` (``{feature}.values``, ``{feature}.lengths`` …)."""
        batch = self.get_batch(data, device)
        return self.model.predict(batch)


class CombinedModelWrapper(nn.Module):
    """The two parts of a split model, called like a `ScriptWrapper`.

    Args:
        sparse: (parse keys → tensors, device) → name → tensor: batch and embeddings.
        dense: name → tensor to output → tensor: all behind them.
    """

    def __init__(self, sparse: nn.Module, dense: nn.Module) -> None:
        super().__init__()
        self.sparse = sparse
        self.dense = dense

    def forward(self, data: dict[str, Tensor], device: torch.device = _CPU) -> dict[str, Tensor]:
        """Returns the predictions of ``data`` (``{feature}.values``, ``{feature}.lengths`` …)."""
        outputs: dict[str, Tensor] = self.dense(self.sparse(data, device))
        return outputs


class _OnDevice(Mapping[str, Tensor]):
    """A view of a dictionary whose tensors are moved when they are asked for.

    While tracing the dictionary has no keys yet, so it cannot be moved as a whole.
    """

    def __init__(self, data: Mapping[str, Tensor], device: torch.device) -> None:
        self._data = data
        self._device = device

    def __getitem__(self, key: str) -> Tensor:
        return self._data[key].to(self._device)

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)


def _detached(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in tensors.items()}
