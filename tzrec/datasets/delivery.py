"""What becomes of batches that have lost all their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from tzrec.datasets.slicer import RawBatch
from tzrec.errors import DataError

Parsed = tuple[RawBatch, dict[str, Tensor]]


def without_empty(batches: Iterator[Parsed]) -> Iterator[Parsed]:
    """Yields the batches with rows; rows left out of others are counted with the next one."""
    carried: RawBatch | None = None
    for raw, parsed in batches:
        if carried is not None:
            raw = raw.after(carried)
        carried = None if raw.num_rows else raw
        if raw.num_rows:
            yield raw, parsed


def same_number(batches: Iterator[Parsed], parse: Callable[[RawBatch], Parsed]) -> Iterator[Parsed]:
    """Yields as many batches as come, all with rows, so that ranks stay in step.

    For a batch without rows a later one is split, or else the last one that has rows.

    Args:
        batches: of one rank.
        parse: parses the parts of a batch.

    Raises:
        DataError: there are not enough rows to split.
    """
    held: Parsed | None = None
    empty: list[RawBatch] = []
    for raw, parsed in batches:
        if not raw.num_rows:
            empty.append(raw)
            continue
        if held is not None:
            yield from _fill(held, empty, parse)
        held = raw, parsed
    if held is not None:
        yield from _fill(held, empty, parse)
    if empty:
        raise DataError(
            f"{len(empty)} batch(es) of this process have no row that can be used, and no other "
            "has rows to spare",
            hint="correct the data, or start fewer processes",
        )


def _fill(
    batch: Parsed, empty: list[RawBatch], parse: Callable[[RawBatch], Parsed]
) -> Iterator[Parsed]:
    """Yields a batch, in as many parts as fill the empty ones too; removes these."""
    raw = batch[0]
    filled = empty[: raw.num_rows - 1]
    if not filled:
        yield batch
        return
    del empty[: len(filled)]
    first, *others = raw.parts(len(filled) + 1)
    for left_out in filled:
        first = first.after(left_out)
    yield from map(parse, [first, *others])
