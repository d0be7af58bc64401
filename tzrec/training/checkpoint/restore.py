"""Reading a checkpoint into a model and its optimizer, with a report of what fitted."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from tzrec import storage
from tzrec.errors import CheckpointError
from tzrec.optim.ema import NUM_AVERAGED
from tzrec.training.checkpoint.changes import Change, find_change, unknown_change
from tzrec.training.checkpoint.files import (
    FlatState,
    StateFiles,
    local_copy,
    shape_of,
    write_rows,
)
from tzrec.training.checkpoint.manifest import DATA_POSITION, TRAINER_STATE, read_manifest
from tzrec.training.checkpoint.rename import stored_names, stored_state_name
from tzrec.training.checkpoint.report import RestoreReport
from tzrec.training.checkpoint.tables import (
    MAP_COUNTERS,
    model_tables,
    stored_tables,
    weights_of_map,
)
from tzrec.training.location import Location

logger = logging.getLogger("tzrec")

OnMismatch = Literal["strict", "remap", "reset"]

_AS_TRAINED = "use the config and the vocabularies that the checkpoint was trained with"
_CHOOSE = (
    "undo the change; or pass --on_mismatch remap to keep the rows that mean the same, or "
    "--on_mismatch reset to start the table afresh"
)
_RESET_ONLY = "undo the change, or pass --on_mismatch reset to start the table afresh"


class Restorer:
    """Reads one checkpoint into one model, its optimizer and its averages, in place.

    `open_checkpoint` makes one; every rank does the same.

    Args:
        model: sharded or not.
        checkpoint: what messages call it.
        directory: where its files are.
        param_map: parameter → its name in the checkpoint.
        on_mismatch: what happens to a table whose rows stood for something else: it is refused,
            the rows that mean the same are kept, or all start afresh. None refuses it where the
            user has no choice.

    Raises:
        CheckpointError: the checkpoint cannot be read, or a table is refused.
    """

    def __init__(
        self,
        model: nn.Module,
        checkpoint: Location,
        *,
        directory: Path,
        param_map: Mapping[str, str] | None = None,
        on_mismatch: OnMismatch | None = None,
    ) -> None:
        self._model = model
        self._checkpoint = checkpoint
        self._directory = directory
        self._on_mismatch = on_mismatch
        self._meta = _read_meta(directory)
        self._names: dict[str, str] = {}
        self._changes: dict[str, Change] = {}
        self._tables = model_tables(model)
        self._manifest = read_content(self._directory, self._checkpoint)
        self._state = FlatState.of(model.state_dict())
        if (directory / "model").is_dir():
            self._weights = StateFiles(directory / "model")
            self._names = stored_names(self._state.shapes, self._weights.shapes, param_map or {})
            self._changes = self._find_changes()
            self._refuse_changes()

    def weights(self) -> RestoreReport:
        """Restores the weights.

        Raises:
            CheckpointError: nothing fits, a shape differs, or the files cannot be read.
        """
        if not self._meta.get("load_model", True):
            return RestoreReport(skipped="its meta file says load_model: false")
        if not (self._directory / "model").is_dir():
            return RestoreReport(skipped="it has no weights")
        report = self._restore(self._weights, self._state, self._names)
        if not (report.matched or report.resized):
            raise CheckpointError(
                f"{self._checkpoint} holds none of the model's parameters ({report})"
            )
        self._model.load_state_dict(self._state.nested)
        return report

    def optimizer(
        self, optimizer: Any, *, resume: bool = True, sparse_optimizer: str = ""
    ) -> RestoreReport:
        """Restores the optimizer states; `init_state` must have been called.

        Args:
            optimizer: all optimizers as one.
            resume: also take what belongs to this very run: gradients that are accumulating.
            sparse_optimizer: field of the config that moves the tables. Of another one their
                states start afresh: states of different meaning have the same names.

        Raises:
            CheckpointError: a shape differs, or the files cannot be read.
        """
        if not self._meta.get("load_optim", True):
            return RestoreReport(skipped="its meta file says load_optim: false")
        if not (self._directory / "optimizer").is_dir():
            return RestoreReport(skipped="it has no optimizer states")
        files, state = (
            StateFiles(self._directory / "optimizer"),
            FlatState.of(optimizer.state_dict()),
        )
        afresh = self._other_optimizer(sparse_optimizer)
        names = {
            key: old
            for key, path in state.paths.items()
            if (old := self._state_name(key, path)) in files.shapes
            and (path[0] != "accumulation" or (resume and not self._changes))
            and not (afresh and path[0] == "state" and path[1] in self._tables)
        }
        report = self._restore(files, state, names)
        optimizer.load_state_dict(state.nested)
        return report

    def averages(self, ema: Any) -> RestoreReport:
        """Restores the averages of the dense weights (`DenseEma`).

        Raises:
            CheckpointError: a shape differs, or the files cannot be read.
        """
        if not (self._directory / "dense_ema").is_dir():
            return RestoreReport(skipped="it has no averages")
        files, state = StateFiles(self._directory / "dense_ema"), FlatState.of(ema.state_dict())
        names = {k: old for k in state.flat if (old := self._names.get(k, k)) in files.shapes}
        if NUM_AVERAGED not in names:
            return RestoreReport(skipped="it has no averages of this model")
        report = self._restore(files, state, names)
        ema.load_state_dict({key: state.nested[key] for key in names})
        return report

    def _restore(
        self, files: StateFiles, state: FlatState, names: Mapping[str, str]
    ) -> RestoreReport:
        report = RestoreReport(
            missing=[key for key in state.flat if key not in names],
            unexpected=sorted(set(files.shapes) - set(names.values())),
            renamed={key: old for key, old in names.items() if key != old},
        )
        plain = {}
        for key, old in names.items():
            change = self._change_of(state.paths[key])
            shape, stored = shape_of(state.flat[key]), files.shapes[old]
            # Has a size of its own, which may change while the table does not.
            resized = key.endswith(MAP_COUNTERS) and shape != stored
            as_it_is = not shape or (key.endswith(MAP_COUNTERS) and not resized)
            if resized and self._on_mismatch in ("remap", "reset"):
                report.resized[key] = "starts afresh"
            elif change is None or (self._on_mismatch == "remap" and as_it_is):
                plain[key] = old
                report.matched.append(key)
            elif self._on_mismatch == "reset":
                report.resized[key] = "starts afresh"
            else:
                report.resized[key] = self._carry(change, files, old, state.flat[key])
        files.load(state, plain)
        return report

    def _change_of(self, path: tuple[Any, ...]) -> Change | None:
        """Returns the change of the table that a weight, a state or a map of ids belongs to."""
        parameter = str(path[1] if path[0] == "state" and len(path) > 2 else path[0])
        names = [parameter, *weights_of_map(parameter)]
        return next((self._changes[name] for name in names if name in self._changes), None)

    def _carry(self, change: Change, files: StateFiles, old: str, target: Any) -> str:
        rows, stored = change.sources(), files.whole(old)
        wanted, found = shape_of(target) or (), tuple(stored.shape)
        if wanted[:1] != (len(rows),) or found[1:] != wanted[1:]:
            raise CheckpointError(
                f"{old}: {list(found)} there, {list(wanted)} in the model",
                hint="the optimizer is another one: pass --ignore_restore_optimizer",
            )
        write_rows(target, stored, torch.from_numpy(rows))
        kept = int((rows >= 0).sum())
        return f"{kept:,} of {len(rows):,} rows kept, {len(rows) - kept:,} start afresh"

    def _state_name(self, key: str, path: tuple[Any, ...]) -> str:
        """Returns the name of an optimizer state in the checkpoint."""
        if path[0] != "state" or len(path) < 3:
            return key
        parameter = str(path[1])
        old = self._names.get(parameter, parameter)
        rest = ".".join(map(str, path[2:]))
        return f"state.{old}.{stored_state_name(rest, parameter, old)}"

    def _other_optimizer(self, sparse_optimizer: str) -> bool:
        stored = self._manifest.get("sparse_optimizer")
        if not stored or not sparse_optimizer or stored == sparse_optimizer:
            return False
        logger.warning(
            "the tables were trained by %s and now by %s: its states of the tables start afresh",
            stored,
            sparse_optimizer,
        )
        return True

    def _find_changes(self) -> dict[str, Change]:
        stored = stored_tables(self._manifest, self._directory)
        changes = {}
        for weight, table in self._tables.items():
            old = self._names.get(weight)
            if old is None:
                continue
            change = None
            wanted, there = shape_of(self._state.flat[weight]), self._weights.shapes[old]
            if old in stored:
                change = find_change(weight, table, stored[old])
            elif wanted != there and wanted is not None and there is not None:
                change = unknown_change(weight, wanted, there)
            if change is not None:
                changes[weight] = change
        return changes

    def _refuse_changes(self) -> None:
        refused = list(self._changes.values())
        if self._on_mismatch == "reset":
            return
        if self._on_mismatch == "remap":
            refused = [change for change in refused if change.obstacle]
        if not refused:
            return
        remap = self._on_mismatch == "remap"
        texts = [f"{c} (no remap: {c.obstacle})" if remap else str(c) for c in refused]
        hint = _RESET_ONLY if all(change.obstacle for change in refused) else _CHOOSE
        listed = texts[0] if len(texts) == 1 else "\n  ".join([f"{len(texts)} tables:", *texts])
        raise CheckpointError(
            f"the embedding tables are not as they were in {self._checkpoint}: {listed}",
            hint=_AS_TRAINED if self._on_mismatch is None else hint,
        )


@contextlib.contextmanager
def open_checkpoint(model: nn.Module, checkpoint: Location, **options: Any) -> Iterator[Restorer]:
    """Yields the `Restorer` of a checkpoint; files of a remote one are copied here meanwhile.

    Args:
        model: to restore into.
        checkpoint: its directory.
        **options: ``param_map`` and ``on_mismatch`` of `Restorer`.

    Raises:
        CheckpointError: as `Restorer`, or the files cannot be copied.
    """
    with local_copy(checkpoint) as directory:
        yield Restorer(model, checkpoint, directory=directory, **options)


def restore_model(model: nn.Module, checkpoint: Location) -> RestoreReport:
    """Loads the weights of ``checkpoint`` into ``model`` (sharded or not) in place.

    Raises:
        CheckpointError: the files cannot be read, a shape differs, or a table is not as it was.
    """
    with open_checkpoint(model, checkpoint) as restorer:
        return restorer.weights()


def read_trainer_state(checkpoint: Location) -> dict[str, Any]:
    """Returns what the trainer stored, or ``{}`` for a checkpoint of another program."""
    path = checkpoint / TRAINER_STATE
    if not storage.exists(path):
        return {}
    try:
        with storage.open_file(path) as stream:
            state: dict[str, Any] = torch.load(stream, weights_only=True)
            return state
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def read_content(directory: Location, checkpoint: Location) -> dict[str, Any]:
    """Returns the manifest of a checkpoint, ``{}`` for one of another program.

    Args:
        directory: where it is read.
        checkpoint: how the user knows it.

    Raises:
        CheckpointError: the manifest cannot be read.
    """
    try:
        return read_manifest(directory) or {}
    except ValueError as error:
        raise CheckpointError(f"{checkpoint}: {error}") from error


def read_data_position(checkpoint: Location) -> dict[str, Any] | None:
    """Returns the stored data position as JSON, or None.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = checkpoint / DATA_POSITION
    if not storage.exists(path):
        return None
    try:
        with storage.open_file(path, "r", encoding="utf-8") as stream:
            data: dict[str, Any] = json.load(stream)
            return data
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def _read_meta(directory: Path) -> dict[str, Any]:
    """Returns the hand-made file that says what not to load, or ``{}``."""
    path = directory / "meta"
    if not path.exists():
        return {}
    try:
        meta = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(meta, dict):
        raise CheckpointError(f"{path} must be a JSON object, it is {meta!r}")
    return meta
