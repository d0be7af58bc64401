"""Reading a checkpoint into a model and its optimizer, with a report of what fitted."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint._nested_dict import flatten_state_dict
from torch.distributed.checkpoint._traverse import set_element
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from tzrec.errors import CheckpointError
from tzrec.training.checkpoint.save import first_cause

_LISTED = 10


@dataclass
class RestoreReport:
    """What a restore did, by state-dict key.

    Attributes:
        matched: restored.
        missing: in the model, not in the checkpoint; left as initialised.
        unexpected: in the checkpoint, not in the model; ignored.
    """

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        """True when the checkpoint and the model hold the same keys."""
        return not self.missing and not self.unexpected

    def __str__(self) -> str:
        lines = [f"{len(self.matched)} restored"]
        for label, keys in (("missing", self.missing), ("unexpected", self.unexpected)):
            if keys:
                more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
                lines.append(f"{len(keys)} {label}: {', '.join(keys[:_LISTED])}{more}")
        return "; ".join(lines)


def restore_model(model: nn.Module, checkpoint: Path) -> RestoreReport:
    """Loads the weights of ``checkpoint`` into ``model`` (sharded or not) in place.

    Raises:
        CheckpointError: the files cannot be read, or a shape differs.
    """
    state, report = _load(model.state_dict(), checkpoint / "model")
    if not report.matched:
        raise CheckpointError(f"{checkpoint} holds none of the model's parameters ({report})")
    model.load_state_dict(state)
    return report


def restore_optimizer(optimizer: Any, checkpoint: Path) -> RestoreReport:
    """Loads the optimizer states of ``checkpoint``; `init_state` must have been called."""
    directory = checkpoint / "optimizer"
    if not directory.is_dir():
        return RestoreReport(missing=["optimizer"])
    state, report = _load(optimizer.state_dict(), directory)
    optimizer.load_state_dict(state)
    return report


def read_trainer_state(checkpoint: Path) -> dict[str, Any]:
    """Returns what the trainer stored, or ``{}`` for a checkpoint of another program."""
    path = checkpoint / "trainer_state.pt"
    return torch.load(path, weights_only=True) if path.exists() else {}


def read_data_position(checkpoint: Path) -> dict[str, Any] | None:
    """Returns the stored data position as JSON, or None."""
    path = checkpoint / "dataloader_state.json"
    return json.loads(path.read_text()) if path.exists() else None


def _load(state: dict[str, Any], directory: Path) -> tuple[dict[str, Any], RestoreReport]:
    """Returns ``state`` with the entries that ``directory`` holds, and the report."""
    stored = _stored_shapes(directory)
    flat, mapping = flatten_state_dict(state)
    report = RestoreReport(
        matched=[key for key in flat if key in stored],
        missing=[key for key in flat if key not in stored],
        unexpected=[key for key in stored if key not in flat],
    )
    _refuse_resized(flat, stored, report.matched)
    found = {key: flat[key] for key in report.matched}
    if found:
        try:
            dcp.load(found, checkpoint_id=str(directory), no_dist=not dist.is_initialized())
        except (Exception, CheckpointException) as error:
            raise CheckpointError(f"{directory} cannot be read: {first_cause(error)}") from error
    for key, value in found.items():
        set_element(state, mapping[key], value)
    return state, report


def _stored_shapes(directory: Path) -> dict[str, torch.Size | None]:
    try:
        metadata = dcp.FileSystemReader(str(directory)).read_metadata()
    except Exception as error:
        raise CheckpointError(f"{directory} is not a checkpoint directory: {error}") from error
    return {
        key: value.size if isinstance(value, TensorStorageMetadata) else None
        for key, value in metadata.state_dict_metadata.items()
    }


def _refuse_resized(
    flat: dict[str, Any], stored: dict[str, torch.Size | None], matched: list[str]
) -> None:
    resized = []
    for key in matched:
        size = getattr(flat[key], "size", None)
        wanted = size() if callable(size) else None
        if wanted is not None and stored[key] is not None and wanted != stored[key]:
            resized.append(f"{key}: {list(stored[key] or ())} there, {list(wanted)} in the model")
    if resized:
        raise CheckpointError(
            "shapes differ from the checkpoint's:\n  " + "\n  ".join(resized),
            hint="a table whose bucketiser changed cannot be continued; train anew, or undo it",
        )
