"""Writing a checkpoint: into a temporary directory, flushed to disk, then renamed."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

import tzrec
from tzrec.errors import CheckpointError
from tzrec.training.checkpoint.find import checkpoint_name
from tzrec.training.checkpoint.manifest import write_manifest


@dataclass(frozen=True)
class Snapshot:
    """Everything that a checkpoint holds.

    Attributes:
        step: 0-based number of the last finished step.
        model: state dict of the weights.
        optimizer: state dict of all optimizers, or empty.
        trainer: what else must survive a restart; plain values and tensors.
        data: the data position as JSON.
        tables: facts about the embedding tables, for the manifest.
    """

    step: int
    model: dict[str, Any]
    optimizer: dict[str, Any]
    trainer: dict[str, Any]
    data: dict[str, Any]
    tables: dict[str, Any]


def save_checkpoint(model_dir: str | Path, snapshot: Snapshot) -> Path:
    """Writes and publishes a checkpoint; every rank calls it.

    Returns:
        The checkpoint's directory.

    Raises:
        CheckpointError: the disk is full, the directory cannot be written. Checkpoints that
            were saved earlier are untouched.
    """
    final = Path(model_dir) / checkpoint_name(snapshot.step)
    partial = final.with_name(f".partial-{final.name}")
    try:
        _on_first_rank(lambda: _fresh_directory(partial))
        alone = not dist.is_initialized()
        dcp.save(snapshot.model, checkpoint_id=str(partial / "model"), no_dist=alone)
        if snapshot.optimizer:
            optimizer_dir = str(partial / "optimizer")
            dcp.save(snapshot.optimizer, checkpoint_id=optimizer_dir, no_dist=alone)
        _on_first_rank(lambda: _publish(partial, final, snapshot))
    except (OSError, RuntimeError, CheckpointException) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(
            f"checkpoint {final} could not be written: {first_cause(error)}",
            hint="earlier checkpoints of the run are untouched; free space or fix the "
            "directory, then go on with --continue_train",
        ) from error
    return final


def first_cause(error: BaseException) -> str:
    """Returns the message of what went wrong first on any rank."""
    if isinstance(error, CheckpointException) and error.failures:
        return str(next(iter(error.failures.values()))[0])
    return str(error)


def save_data_position(checkpoint: Path, data: dict[str, Any]) -> None:
    """Replaces the data position of a checkpoint (a step that was saved before its pass ended)."""

    def replace() -> None:
        temporary = checkpoint / ".dataloader_state.json"
        temporary.write_text(json.dumps(data) + "\n")
        size = temporary.stat().st_size
        manifest_path = checkpoint / "manifest.json"
        manifest = json.loads(manifest_path.read_text())
        manifest["files"]["dataloader_state.json"] = size
        new_manifest = checkpoint / ".manifest.json"
        new_manifest.write_text(json.dumps(manifest, indent=2) + "\n")
        temporary.rename(checkpoint / "dataloader_state.json")
        new_manifest.rename(manifest_path)

    _on_first_rank(replace)


def _on_first_rank(action: Any) -> None:
    if not dist.is_initialized() or dist.get_rank() == 0:
        action()
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.barrier()


def _fresh_directory(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)


def _publish(partial: Path, final: Path, snapshot: Snapshot) -> None:
    torch.save(snapshot.trainer, partial / "trainer_state.pt")
    (partial / "dataloader_state.json").write_text(json.dumps(snapshot.data) + "\n")
    write_manifest(
        partial,
        {
            "step": snapshot.step,
            "versions": {"tzrec": tzrec.__version__, "torch": torch.__version__},
            "tables": snapshot.tables,
        },
    )
    for path in [*partial.rglob("*"), partial]:
        _flush(path)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    _flush(final.parent)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
