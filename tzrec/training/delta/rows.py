"""Reading rows of the embedding tables of a model, wherever they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

CHUNK = 1 << 16  # rows that are read at a time


def read_rows(value: Any, rows: Any) -> Iterator[tuple[Any, Any]]:
    """Yields numbers (n,) and vectors (n, D) float32 of the rows that this rank is to write.

    Of all ranks together every row is given once: by the rank that holds it, or by the first
    rank if all hold it or its columns are on several ranks. Every rank iterates to the end.

    Args:
        value: entry of the table in the model's state dict, whole or a `ShardedTensor`.
        rows: sorted numbers of the rows, the same on every rank.
    """
    if not hasattr(value, "local_shards"):
        if not dist.is_initialized() or dist.get_rank() == 0:
            yield from _chunks(value, rows, 0)
        return
    dim = int(value.size()[1])
    if any(shard.shard_sizes[1] < dim for shard in value.metadata().shards_metadata):
        yield from _joined_columns(value, rows, dim)
        return
    for shard in value.local_shards():
        first = int(shard.metadata.shard_offsets[0])
        last = first + int(shard.metadata.shard_sizes[0])
        begin, end = np.searchsorted(rows, [first, last])
        yield from _chunks(shard.tensor, rows[begin:end], first)


def _chunks(tensor: Tensor, rows: Any, first: int) -> Iterator[tuple[Any, Any]]:
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        yield part, _take(tensor, part - first).cpu().numpy()


def _joined_columns(value: Any, rows: Any, dim: int) -> Iterator[tuple[Any, Any]]:
    """Puts the columns of a table that is cut by columns together, a chunk of rows at a time."""
    pieces = value.local_shards()
    device = pieces[0].tensor.device if pieces else _device()
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        whole = torch.zeros(len(part), dim, device=device)
        for piece in pieces:
            top, left = piece.metadata.shard_offsets
            height, width = piece.metadata.shard_sizes
            begin, end = np.searchsorted(part, [top, top + height])
            found = _take(piece.tensor, part[begin:end] - top)
            whole[begin:end, left : left + width] = found
        dist.all_reduce(whole)
        if dist.get_rank() == 0:
            yield part, whole.cpu().numpy()


def _take(tensor: Tensor, rows: Any) -> Tensor:
    index = torch.from_numpy(rows).to(tensor.device)
    return tensor.detach().index_select(0, index).float()


def _device() -> torch.device:
    """Returns where the process group reduces tensors."""
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
