"""What an export is asked for; written whole into the artefact."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from tzrec.config.specs import MIXED_PRECISIONS
from tzrec.errors import ConfigError, Unsupported, did_you_mean

PARITY_TOLERANCE = 1e-6
TARGETS = ("torchscript",)
_LATER_TARGETS = ("aoti", "distributed")
_QUANTISATIONS = ("", "FP32", "FP16", "INT8", "INT4", "INT2")


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """How a model is exported.

    Attributes:
        target: what runs the model; ``torchscript`` is the one so far.
        quantisation: type of the pooled embedding tables; empty = as trained. Unlike
            TorchEasyRec's, an export is not quantised unless that is asked for.
        mixed_precision: autocast of the exported model, as ``export_config`` has it.
        asset_files: files to copy along.
        additional_export_config: entries for ``model_acc.json``.
        tolerance: largest difference between the model and its export that is published.
    """

    target: str = "torchscript"
    quantisation: str = ""
    mixed_precision: str = ""
    asset_files: tuple[str, ...] = ()
    additional_export_config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tolerance: float = PARITY_TOLERANCE

    def __post_init__(self) -> None:
        _one_of("export target", self.target, TARGETS, later=_LATER_TARGETS)
        _one_of("mixed_precision", self.mixed_precision, ("", *MIXED_PRECISIONS), later=())
        _one_of("quantisation", self.quantisation, _QUANTISATIONS[:2], later=_QUANTISATIONS[2:])
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise ConfigError(f"export tolerance {self.tolerance} is not a number of at least 0")
        object.__setattr__(self, "asset_files", tuple(self.asset_files))
        object.__setattr__(self, "additional_export_config", dict(self.additional_export_config))

    def to_dict(self) -> dict[str, Any]:
        """Returns all options as JSON values."""
        return dataclasses.asdict(self) | {"asset_files": list(self.asset_files)}


def _one_of(what: str, value: str, known: tuple[str, ...], *, later: tuple[str, ...]) -> None:
    if value in known:
        return
    if value in later:
        raise Unsupported(f"{what} {value!r} of an export comes with a later version")
    raise ConfigError(
        f"{what} {value!r} is not one of {', '.join(repr(name) for name in known + later)}"
        f"{did_you_mean(value, known + later)}"
    )
