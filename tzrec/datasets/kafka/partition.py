"""What is read of a partition, and what is known of it meanwhile."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from tzrec.datasets.kafka.client import Message
from tzrec.datasets.position import StreamMark


@dataclass(frozen=True)
class Range:
    """What is read of a partition.

    Attributes:
        start: where it begins.
        stop: the offset where it ends; None = it does not.
        until_ms: it also ends with a message that is not older, milliseconds since 1970.
        high: offset after the last message that is there when it is planned.
    """

    start: StreamMark
    stop: int | None = None
    until_ms: int | None = None
    high: int = 0

    def ends_before(self, message: Message) -> bool:
        """Returns whether a message is behind it."""
        if self.stop is not None and message.offset >= self.stop:
            return True
        return self.until_ms is not None and message.time_ms >= self.until_ms


@dataclass
class Partition:
    """What is known of a partition that is read.

    Attributes:
        range: what is read of it.
        next_offset: of what the brokers send next.
        high: offset after the last message that is known to be there.
        heard: when a broker last told something of it.
        held: messages that came and were not taken.
        num_bytes: of these.
        at_end: nothing more is there now.
        done: its range is read.
        paused: nothing is fetched of it.
    """

    range: Range
    next_offset: int
    high: int
    heard: float
    held: deque[Message] = field(default_factory=deque)
    num_bytes: int = 0
    at_end: bool = False
    done: bool = False
    paused: bool = False

    @classmethod
    def of(cls, found: Range, now: float) -> Partition:
        """Returns the partition before its first message.

        Args:
            found: what is to be read.
            now: `time.monotonic`.
        """
        offset = found.start.offset
        done = found.stop is not None and offset >= found.stop
        return cls(found, offset, max(offset, found.high), now, done=done)

    @property
    def is_awaited(self) -> bool:
        """True while its next message decides which one comes first, and is not here yet."""
        return not (self.held or self.at_end or self.done)
