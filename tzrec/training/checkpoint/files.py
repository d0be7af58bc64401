"""The state-dict directories of a checkpoint, and where their files can be read."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint._nested_dict import flatten_state_dict
from torch.distributed.checkpoint._traverse import set_element
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from tzrec import storage
from tzrec.errors import CheckpointError
from tzrec.training.checkpoint.save import first_cause
from tzrec.training.checkpoint.together import run_together
from tzrec.training.location import Location

Shape = tuple[int, ...]


@dataclass(frozen=True)
class FlatState:
    """A state dict of dicts, and the same by joined key.

    Attributes:
        nested: as an optimizer gives it.
        flat: key → value.
        paths: key → where the value is in ``nested``.
    """

    nested: dict[str, Any]
    flat: dict[str, Any]
    paths: dict[str, tuple[Any, ...]]

    @classmethod
    def of(cls, nested: dict[str, Any]) -> FlatState:
        """Returns a state dict flattened; tensors are the same."""
        flat, paths = flatten_state_dict(nested)
        return cls(nested, flat, dict(paths))

    @property
    def shapes(self) -> dict[str, Shape | None]:
        """Key → shape of the whole tensor, None = no tensor."""
        return {key: shape_of(value) for key, value in self.flat.items()}


class StateFiles:
    """One state-dict directory (``model``, ``optimizer``, ``dense_ema``).

    Args:
        directory: of `torch.distributed.checkpoint`.

    Attributes:
        shapes: key → shape of the whole tensor, None = no tensor.

    Raises:
        CheckpointError: it is no such directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        try:
            metadata = dcp.FileSystemReader(str(directory)).read_metadata()
        except Exception as error:
            raise CheckpointError(f"{directory} is not a checkpoint directory: {error}") from error
        self._stored = metadata.state_dict_metadata
        self.shapes: dict[str, Shape | None] = {
            key: tuple(value.size) if isinstance(value, TensorStorageMetadata) else None
            for key, value in self._stored.items()
        }

    def load(self, state: FlatState, names: Mapping[str, str]) -> None:
        """Loads values in place; every rank calls it.

        Args:
            state: what to load into.
            names: key of the state → key in the files.

        Raises:
            CheckpointError: shapes differ, or the files cannot be read.
        """
        self._refuse_resized(state, names)
        left = dict(names)
        while left:
            # Several keys may be loaded from one, but not at once.
            now = {old: key for key, old in left.items()}
            found = {old: state.flat[key] for old, key in now.items()}
            self._read(found)
            for old, key in now.items():
                set_element(state.nested, state.paths[key], found[old])
                del left[key]

    def whole(self, key: str) -> Tensor:
        """Returns a tensor as it was stored, of all ranks; every rank calls it."""
        stored: Any = self._stored[key]
        found = {key: torch.empty(stored.size, dtype=stored.properties.dtype)}
        self._read(found)
        return found[key]

    def _read(self, found: dict[str, Any]) -> None:
        try:
            alone = not dist.is_initialized()
            dcp.load(found, checkpoint_id=str(self._directory), no_dist=alone)
        except (Exception, CheckpointException) as error:
            raise CheckpointError(
                f"{self._directory} cannot be read: {first_cause(error)}"
            ) from error

    def _refuse_resized(self, state: FlatState, names: Mapping[str, str]) -> None:
        resized = []
        for key, old in names.items():
            wanted, stored = shape_of(state.flat[key]), self.shapes[old]
            if wanted is not None and stored is not None and wanted != stored:
                there = "" if key == old else f" as {old}"
                resized.append(f"{key}: {list(stored)} there{there}, {list(wanted)} in the model")
        if resized:
            optimizer = self._directory.name == "optimizer"
            raise CheckpointError(
                "shapes differ from the checkpoint's:\n  " + "\n  ".join(resized),
                hint="the optimizer is another one: pass --ignore_restore_optimizer"
                if optimizer
                else "undo the change of the model, or start a new run without the checkpoint",
            )


def shape_of(value: Any) -> Shape | None:
    """Returns the shape of a tensor or the whole of a sharded one, None for other values."""
    size = getattr(value, "size", None)
    return tuple(size()) if callable(size) else None


def write_rows(target: Any, source: Tensor, rows: Tensor) -> None:
    """Copies rows of a tensor into a sharded or plain one of other rows.

    Args:
        target: (R, …), or this rank's shards of it; rows that get nothing stay.
        source: (S, …).
        rows: (R,) int64, the row of ``source`` of each row, -1 = none.
    """
    if hasattr(target, "local_shards"):
        shards = target.local_shards()
        pieces = [(shard.tensor, shard.metadata.shard_offsets) for shard in shards]
    else:
        pieces = [(target.detach(), [0] * target.dim())]
    for piece, offsets in pieces:
        wanted = rows[offsets[0] : offsets[0] + piece.shape[0]]
        kept = wanted >= 0
        values = source[wanted[kept]]
        if piece.dim() > 1:
            values = values[:, offsets[1] : offsets[1] + piece.shape[1]]
        piece[kept.to(piece.device)] = values.to(piece.device, piece.dtype)


@contextlib.contextmanager
def local_copy(checkpoint: Location) -> Iterator[Path]:
    """Yields a directory with the checkpoint's files; every rank calls it.

    Those of a remote checkpoint are copied by one rank of each machine, and removed at the end.

    Raises:
        CheckpointError: the copy fails.
    """
    if isinstance(checkpoint, Path):
        yield checkpoint
        return
    host = socket.gethostname()
    hosts = run_together(lambda: host)
    rank = dist.get_rank() if dist.is_initialized() else 0
    copies = hosts.index(host) == rank
    made: list[str] = []

    def copy() -> tuple[str, str]:
        made.append(tempfile.mkdtemp(prefix="tzrec-"))
        try:
            storage.download_tree(str(checkpoint), made[0])
        except Exception as error:
            raise CheckpointError(f"{checkpoint} cannot be copied here: {error}") from error
        return host, made[0]

    try:
        of_hosts = dict(filter(None, run_together(copy, here=copies)))
        yield Path(of_hosts[host])
        run_together(lambda: None)
    finally:
        for directory in made:
            shutil.rmtree(directory, ignore_errors=True)
