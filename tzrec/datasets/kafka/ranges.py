"""Where the partitions of a pass begin and end."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

from tzrec.datasets.kafka.client import Client
from tzrec.datasets.kafka.partition import Range
from tzrec.datasets.position import StreamMark
from tzrec.errors import DataError
from tzrec.options import kafka_lookup

logger = logging.getLogger("tzrec")


def find_ranges(
    client: Client,
    partitions: Sequence[int],
    marks: Mapping[str, StreamMark],
    *,
    learns: bool,
    is_first: bool = True,
) -> dict[int, Range]:
    """Returns partition → what is read of it in a pass that begins now.

    A position wins over ``start.timestamp.ms``, this over what the group committed, and this over
    ``auto.offset.reset``. Partitions that a position does not know are new: read from their
    oldest message.

    Args:
        client: asks the brokers.
        partitions: of this process.
        marks: position in this topic; empty = a fresh pass.
        learns: the stream is read for training: from its group's offsets, else its newest
            messages, without an end. Otherwise what is there is read, from the oldest message.
        is_first: it is the first pass; a later one does not go on where the first one ended.

    Raises:
        DataError: messages that a position needs are not there any more, or no broker answers.
    """
    bounds = {partition: client.bounds(partition) for partition in partitions}
    if marks:
        starts = {p: _resumed(client, p, marks, bounds[p]) for p in partitions}
    else:
        goes_on = learns and is_first
        starts = {p: StreamMark(o) for p, o in _fresh(client, bounds, goes_on=goes_on).items()}
    stops = _stops(client, bounds, learns=learns)
    return {p: Range(starts[p], *stops[p], high=bounds[p][1]) for p in partitions}


def _resumed(
    client: Client, partition: int, marks: Mapping[str, StreamMark], bounds: tuple[int, int]
) -> StreamMark:
    name, (low, high) = f"{client.uri.topic}:{partition}", bounds
    mark = marks.get(name)
    if mark is None:
        logger.info("%s is a new partition; it is read from offset %d", name, low)
        return StreamMark(low)
    if low <= mark.offset <= high:
        return mark
    lost = f"{low - mark.offset:,} messages are lost" if mark.offset < low else "it was made anew"
    text = f"{name}: the run goes on at offset {mark.offset:,}, but {low:,} … {high:,} are there"
    if client.uri.reset in (None, "error"):
        raise DataError(
            f"{text}: {lost}",
            hint="to go on all the same, append &auto.offset.reset=earliest (or latest) to the "
            "path",
        )
    logger.warning("%s: %s; auto.offset.reset=%s", text, lost, client.uri.reset)
    return StreamMark(low if client.uri.reset == "earliest" else high)


def _fresh(
    client: Client, bounds: Mapping[int, tuple[int, int]], *, goes_on: bool
) -> dict[int, int]:
    """Returns partition → first offset of a run that has no position."""
    uri = client.uri
    if uri.start_ms is not None:
        found = client.offsets_at(uri.start_ms, list(bounds), kafka_lookup())
        return {p: _either(found[p], high) for p, (_, high) in bounds.items()}
    committed = client.committed(list(bounds)) if goes_on else {}
    starts = {}
    for partition, (low, high) in bounds.items():
        offset = committed.get(partition)
        if offset is None or not low <= offset <= high:
            if uri.reset == "error":
                raise DataError(
                    f"{uri.topic}:{partition}: the group {uri.group!r} has no offset to begin at, "
                    "and auto.offset.reset=error",
                    hint="give start.timestamp.ms or another auto.offset.reset",
                )
            newest = uri.reset == "latest" or (uri.reset is None and goes_on and not uri.is_bounded)
            offset = high if newest else low
        starts[partition] = offset
    return starts


def _stops(
    client: Client, bounds: Mapping[int, tuple[int, int]], *, learns: bool
) -> dict[int, tuple[int | None, int | None]]:
    """Returns partition → end offset and end time, each None where there is none."""
    uri = client.uri
    if uri.end_ms is None:
        ends = uri.end_latest or not learns
        return {p: (high if ends else None, None) for p, (_, high) in bounds.items()}
    found = client.offsets_at(uri.end_ms, list(bounds), kafka_lookup())
    is_past = time.time() * 1000 > uri.end_ms
    stops: dict[int, tuple[int | None, int | None]] = {}
    for partition, (_, high) in bounds.items():
        stop = found[partition]
        if stop is None and is_past:
            stop = high
        stops[partition] = (stop, None if stop is not None else uri.end_ms)
    return stops


def _either(offset: int | None, other: int) -> int:
    return other if offset is None else offset
