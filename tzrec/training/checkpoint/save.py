"""Writing a checkpoint: into a temporary directory, flushed to disk, then renamed.

A directory with a scheme has no rename. There the files are written locally and copied, the
manifest last; until then the directory is no checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

import tzrec
from tzrec import storage
from tzrec.errors import CheckpointError
from tzrec.training.checkpoint.find import checkpoint_name, list_checkpoints, newest_first, step_of
from tzrec.training.checkpoint.manifest import (
    DATA_POSITION,
    FILE_NAME,
    TRAINER_STATE,
    file_sizes,
    write_manifest,
)
from tzrec.training.checkpoint.tables import VOCABULARIES
from tzrec.training.checkpoint.together import is_first_rank, run_together
from tzrec.training.location import Location, RemotePath, location

PLAN = "plan"
# Directories that are not, or no longer, checkpoints.
_PARTIAL, _OLD = ".partial-", ".old-"


@dataclass(frozen=True)
class Snapshot:
    """Everything that a checkpoint holds.

    Attributes:
        step: 0-based number of the last finished step.
        model: state dict of the weights.
        optimizer: state dict of all optimizers, or empty.
        trainer: what else must survive a restart; plain values and tensors.
        data: the data position as JSON.
        tables: the embedding tables by the name of their weight, for the manifest.
        vocabularies: file name → words and their ids, of the tables' bucketisers.
        plan: module path → table → where it lives.
        ema: state dict of the averaged dense weights, or empty.
        sparse_optimizer: field of the config that moves the tables.
        step_precision: of training steps where the program chose it, or empty.
    """

    step: int
    model: dict[str, Any]
    optimizer: dict[str, Any]
    trainer: dict[str, Any]
    data: dict[str, Any]
    tables: dict[str, Any] = field(default_factory=dict)
    vocabularies: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    ema: dict[str, Any] = field(default_factory=dict)
    sparse_optimizer: str = ""
    step_precision: str = ""


def save_checkpoint(model_dir: str | os.PathLike[str], snapshot: Snapshot) -> Location:
    """Writes and publishes a checkpoint; every rank calls it.

    Returns:
        The checkpoint's directory.

    Raises:
        CheckpointError: the disk is full, the directory cannot be written or is gone. Checkpoints
            that were saved earlier are untouched; the message names the last good one.
    """
    final = location(model_dir) / checkpoint_name(snapshot.step)
    try:
        if isinstance(final, RemotePath):
            _save_remote(final, snapshot)
        else:
            _save_local(final, snapshot)
    except (OSError, RuntimeError, CheckpointException) as error:
        raise _failure(final, error) from error
    return final


def save_data_position(checkpoint: Location, data: dict[str, Any]) -> None:
    """Replaces the data position of a checkpoint (a step that was saved before its pass ended).

    Raises:
        CheckpointError: the file cannot be written; the old one is untouched.
    """

    def replace() -> None:
        text = json.dumps(data) + "\n"
        if isinstance(checkpoint, RemotePath):
            _upload(lambda: _write_remote(checkpoint / DATA_POSITION, text))
            return
        temporary = checkpoint / f".{DATA_POSITION}"
        temporary.write_text(text)
        _flush(temporary)
        temporary.replace(checkpoint / DATA_POSITION)
        _flush(checkpoint)

    try:
        run_together(replace, here=is_first_rank())
    except OSError as error:
        raise _failure(checkpoint, error) from error


def remove_leftovers(model_dir: str | os.PathLike[str]) -> None:
    """Removes what a killed run left unfinished: saves, and removals of old checkpoints."""
    root = location(model_dir)
    if isinstance(root, RemotePath) or not root.is_dir():
        return
    for path in root.iterdir():
        if path.name.startswith((_PARTIAL, _OLD)):
            shutil.rmtree(path, ignore_errors=True)


def remove_checkpoint(path: Location) -> None:
    """Removes a checkpoint; whatever is left when that fails is not taken for one.

    Raises:
        OSError: it cannot be removed.
    """
    if isinstance(path, RemotePath):
        for part in ("model", "optimizer"):
            if storage.exists(path / part / ".metadata"):
                system, inner = storage.file_system(path / part / ".metadata")
                system.rm_file(inner)
        storage.remove_tree(path)
        return
    old = path.with_name(_OLD + path.name)
    path.rename(old)
    shutil.rmtree(old)


def first_cause(error: BaseException) -> str:
    """Returns the message of what went wrong first on any rank."""
    if isinstance(error, CheckpointException) and error.failures:
        return first_cause(next(iter(error.failures.values()))[0])
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    return error.message if isinstance(error, CheckpointError) else str(error)


def _failure(path: Location, error: BaseException) -> CheckpointError:
    safe = "no checkpoint of this run is on disk"
    with contextlib.suppress(Exception):
        for other, reason in newest_first(path.parent):
            if reason is None:
                safe = f"{other} (step {step_of(other)}) is safe"
                break
    return CheckpointError(
        f"checkpoint {path} could not be written: {first_cause(error)}",
        hint=f"{safe}; free space or mend the directory, then go on with --continue_train",
    )


def _save_local(final: Path, snapshot: Snapshot) -> None:
    partial = final.with_name(_PARTIAL + final.name)
    try:
        run_together(lambda: _fresh_directory(partial), here=is_first_rank())
        _write_states(partial, snapshot)
        run_together(lambda: _publish(partial, final, snapshot), here=is_first_rank())
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _save_remote(final: RemotePath, snapshot: Snapshot) -> None:
    """Every rank writes its part into a directory of its own and copies it."""
    with tempfile.TemporaryDirectory(prefix="tzrec-") as name:
        directory = Path(name)
        run_together(lambda: _upload(lambda: remove_checkpoint(final)), here=is_first_rank())
        _write_states(directory, snapshot)
        if is_first_rank():
            _write_files(directory, snapshot)
        # DCP's .metadata makes a checkpoint of other programs whole, so it comes late.
        late = [f"{part}/.metadata" for part in _parts(snapshot) if is_first_rank()]
        of_ranks = run_together(lambda: _upload_all(directory, final, late))

        def finish() -> None:
            sizes = {
                key: size for rank_sizes in of_ranks for key, size in (rank_sizes or {}).items()
            }
            write_manifest(directory, _content(snapshot), sizes)
            _upload(lambda: _write_remote(final / FILE_NAME, (directory / FILE_NAME).read_text()))

        run_together(finish, here=is_first_rank())


def _upload_all(directory: Path, final: RemotePath, late: list[str]) -> dict[str, int]:
    _upload(lambda: storage.upload_tree(directory, str(final), last=late))
    return file_sizes(directory)


def _upload(action: Callable[[], None]) -> None:
    """Turns what a remote file system raises, which may be anything, into an OSError."""
    try:
        action()
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def _write_remote(path: RemotePath, text: str) -> None:
    with storage.open_file(path, "w", encoding="utf-8") as stream:
        stream.write(text)


def _fresh_directory(path: Path) -> None:
    if not path.parent.is_dir():
        raise OSError(f"{path.parent} is gone")
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()


def _parts(snapshot: Snapshot) -> Iterator[str]:
    yield "model"
    if snapshot.optimizer:
        yield "optimizer"
    if snapshot.ema:
        yield "dense_ema"


def _write_states(directory: Path, snapshot: Snapshot) -> None:
    """Writes the state dicts; every rank its shards."""
    states = {
        "model": snapshot.model,
        "optimizer": snapshot.optimizer,
        "dense_ema": snapshot.ema,
    }
    alone = not dist.is_initialized()
    for part in _parts(snapshot):
        dcp.save(states[part], checkpoint_id=str(directory / part), no_dist=alone)


def _write_files(directory: Path, snapshot: Snapshot, siblings: Path | None = None) -> None:
    """Writes everything but state dicts and manifest."""
    torch.save(snapshot.trainer, directory / TRAINER_STATE)
    (directory / DATA_POSITION).write_text(json.dumps(snapshot.data) + "\n")
    (directory / PLAN).write_text(json.dumps(snapshot.plan, indent=2) + "\n")
    if snapshot.vocabularies:
        (directory / VOCABULARIES).mkdir()
    for name, words in snapshot.vocabularies.items():
        path = directory / VOCABULARIES / name
        if siblings is None or not _link_from_sibling(path, siblings):
            path.write_text(json.dumps(words, ensure_ascii=False) + "\n", encoding="utf-8")


def _link_from_sibling(path: Path, siblings: Path) -> bool:
    """Takes a vocabulary from the checkpoint before, so that a disk holds it once.

    Its name is a hash of its words, and checkpoints never change.
    """
    for checkpoint in reversed(list_checkpoints(siblings)):
        with contextlib.suppress(OSError):
            os.link(Path(checkpoint) / VOCABULARIES / path.name, path)
            return True
    return False


def _content(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "step": snapshot.step,
        "versions": {"tzrec": tzrec.__version__, "torch": torch.__version__},
        "sparse_optimizer": snapshot.sparse_optimizer,
        "step_precision": snapshot.step_precision,
        "tables": snapshot.tables,
    }


def _publish(partial: Path, final: Path, snapshot: Snapshot) -> None:
    _write_files(partial, snapshot, siblings=final.parent)
    write_manifest(partial, _content(snapshot))
    for path in [*partial.rglob("*"), partial]:
        _flush(path)
    if final.exists():
        remove_checkpoint(final)
    partial.rename(final)
    _flush(final.parent)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
