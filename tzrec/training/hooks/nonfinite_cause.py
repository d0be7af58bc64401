"""Where a number that is not finite comes from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.batch import Batch, JaggedTensor
from tzrec.training.trainer import Trainer

_CHUNK = 1 << 24


def cause_in_batch(batch: Batch) -> str | None:
    """Returns the first feature, label or weight of the batch that is not finite, and its row."""
    for what, values, lengths in _columns(batch):
        finite = torch.isfinite(_by_row(values)).all(dim=1)
        if finite.all():
            continue
        bad = ~finite
        if lengths is not None:
            bad = _rows_of_values(bad, lengths)
        first = int(bad.nonzero()[0])
        where = batch.locate(first) or f"row {first}"
        return f"{what} is not finite ({int(bad.sum())} of {len(bad)} rows, the first is {where})"
    return None


def _columns(batch: Batch) -> Iterator[tuple[str, Tensor, Tensor | None]]:
    """Yields (what, values, values of each row; None = one each) of all numbers of a batch."""
    for kt in batch.dense_features.values():
        for name, value in kt.to_dict().items():
            yield f"the input of feature {name}", value, None
    for name, jt in batch.sequence_dense_features.items():
        yield f"the input of feature {name}", jt.values(), jt.lengths()
    for kjt in batch.sparse_features.values():
        if kjt.weights_or_none() is not None:
            yield from (_weights(name, jt) for name, jt in kjt.to_dict().items())
    for name, value in (batch.labels | batch.sample_weights).items():
        yield f"column {name}", value, None
    for name, jt in batch.jagged_labels.items():
        yield f"column {name}", jt.values(), jt.lengths()


def _weights(name: str, jt: JaggedTensor) -> tuple[str, Tensor, Tensor]:
    return f"the weights of feature {name}", jt.weights(), jt.lengths()


def _rows_of_values(bad: Tensor, lengths: Tensor) -> Tensor:
    """Returns which rows (B,) have a bad value, given the bad values (sum of lengths,)."""
    row_of_value = torch.repeat_interleave(
        torch.arange(len(lengths), device=lengths.device), lengths.long()
    )
    rows = torch.zeros(len(lengths), dtype=torch.bool, device=bad.device)
    rows[row_of_value[bad]] = True
    return rows


def cause_in_model(trainer: Trainer) -> str | None:
    """Returns the first parameter, embedding table or buffer that is not finite, and its row.

    Of what a checkpoint holds; of a sharded table the shards of this rank.
    """
    model: nn.Module = trainer.base_model
    buffers = {name for name, _ in model.named_buffers()}
    for name, whole in model.state_dict().items():
        for value, offset in _shards(whole):
            if not value.is_floating_point() or (row := _first_bad_row(value.detach())) is None:
                continue
            what = "buffer" if name in buffers else "parameter"
            of_row = f" (row {offset + row} of {whole.size(0):,})" if value.dim() > 1 else ""
            return f"{what} {name} is not finite{of_row}"
    return None


def _shards(value: Any) -> list[tuple[Tensor, int]]:
    """Returns the parts of a state-dict entry that are here, each with its first row."""
    if not hasattr(value, "local_shards"):
        return [(value, 0)]
    return [(shard.tensor, shard.metadata.shard_offsets[0]) for shard in value.local_shards()]


def _first_bad_row(value: Tensor) -> int | None:
    """Returns the first row of a tensor with a number that is not finite."""
    rows = _by_row(value)
    step = max(1, _CHUNK // max(rows.shape[1], 1))
    for start in range(0, len(rows), step):
        chunk = rows[start : start + step]
        # A sum is one pass and is finite unless a number is not, or the sum overflows.
        if math.isfinite(float(chunk.sum(dtype=torch.float32))):
            continue
        bad = ~torch.isfinite(chunk).all(dim=1)
        if bad.any():
            return start + int(bad.nonzero()[0])
    return None


def _by_row(value: Tensor) -> Tensor:
    """Returns a tensor as (rows, everything else)."""
    return value.flatten(1) if value.dim() > 1 else value.reshape(-1, 1)


def cause_on_the_way(trainer: Trainer, batch: Batch) -> str | None:
    """Returns the first layer whose output is not finite, by running the batch again.

    For one process: the forward pass of several needs all of them. Buffers that a forward pass
    changes are changed again.
    """
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001
            if not found and any(not torch.isfinite(t).all() for t in _tensors(output)):
                found.append(name)

        return hook

    model: nn.Module = trainer.base_model
    handles = [
        module.register_forward_hook(look(name)) for name, module in model.named_modules() if name
    ]
    try:
        with torch.no_grad(), torch.random.fork_rng():
            trainer.model(batch)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        return None
    return f"inputs and parameters are finite, the output of {found[0]} is not"


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
