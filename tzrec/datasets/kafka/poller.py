"""`Poller`: a thread that fetches messages, and their one order over the partitions."""

from __future__ import annotations

import contextlib
import enum
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

from tzrec.datasets.kafka.client import Client, Message
from tzrec.datasets.kafka.partition import Partition, Range
from tzrec.datasets.position import StreamMark
from tzrec.errors import DataError

logger = logging.getLogger("tzrec")

_HELD_BYTES = 64 << 20
_LEAST_BYTES = 1 << 20
_AT_ONCE = 100
_POLL_SECONDS = 0.2
_LOOK_SECONDS = 10.0
_HEARTBEAT = 0.8
# Answers that no patience mends.
_FINAL = frozenset(
    (
        "UNKNOWN_TOPIC_OR_PART",
        "_UNKNOWN_TOPIC",
        "_UNKNOWN_PARTITION",
        "TOPIC_AUTHORIZATION_FAILED",
        "GROUP_AUTHORIZATION_FAILED",
        "_AUTHENTICATION",
        "_SSL",
    )
)


class Nothing(enum.Enum):
    """Why there is no message."""

    PENDING = "one is on its way"
    IDLE = "all that is there was read"
    END = "all partitions were read to their end"


class Poller:
    """Hands out the messages of some partitions, oldest first.

    Of the next messages of all partitions the oldest comes first, so the order depends on the
    messages alone and a run that goes on reads what it would have read. Only a partition that is
    read to its end is not waited for.

    The thread polls as long as the poller lives, at least so often that no broker gives the
    client up, and looks for new partitions. It holds about 64 MiB at most. Nobody else may use
    the client meanwhile: it serves one thread at a time, and a poll takes its turn at once again.

    Args:
        client: asks the brokers.
        ranges: partition → what is read of it.
        adopt: takes the number of partitions before and after it has grown, and returns the new
            ones that are to be read as well; None = the pass has an end, and they are not.
    """

    def __init__(
        self,
        client: Client,
        ranges: Mapping[int, Range],
        *,
        adopt: Callable[[int, int], list[int]] | None = None,
    ) -> None:
        self._client = client
        self._adopt = adopt
        self._patience = client.uri.wait_seconds
        now = time.monotonic()
        self._partitions = {p: Partition.of(found, now) for p, found in ranges.items()}
        self._num_known = max(ranges, default=-1) + 1
        self._added: dict[int, StreamMark] = {}
        self._changed = threading.Condition()
        self._turn = 0
        self._held_bytes = 0
        self._is_filling = True
        self._commits: dict[int, int] = {}
        self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="tzrec-kafka", daemon=True)

    def start(self, num_partitions: int) -> None:
        """Begins to fetch.

        Args:
            num_partitions: of the topic.
        """
        self._num_known = num_partitions
        open_ones = {p: s.next_offset for p, s in self._partitions.items() if not s.done}
        self._client.assign(open_ones)
        self._client.unpause(list(open_ones))  # a pass before this one paused what it had read
        self._thread.start()

    def next(self, timeout: float) -> Message | Nothing:
        """Returns the next message, or why there is none within ``timeout`` seconds.

        Raises:
            DataError: the brokers are away for too long, or messages are lost.
        """
        end = time.monotonic() + timeout
        with self._changed:
            while True:
                if self._error is not None:
                    raise self._error
                found = self._oldest()
                left = end - time.monotonic()
                if isinstance(found, int):
                    return self._pop(found)
                if found is Nothing.END or left <= 0:
                    return found
                self._changed.wait(left)

    def lag(self, marks: Mapping[int, StreamMark]) -> dict[int, int]:
        """Returns partition → messages that are there and not consumed, of a position."""
        with self._changed:
            known = {p: (s.high, s.range.start) for p, s in self._partitions.items()}
        return {p: max(high - marks.get(p, start).offset, 0) for p, (high, start) in known.items()}

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Commits partition → next offset for the group, soon; a failure is a warning."""
        with self._changed:
            if not self._closed:
                self._commits.update(offsets)
                self._changed.notify_all()
                return
        self._client.commit(offsets)

    def new_partitions(self) -> dict[int, StreamMark]:
        """Returns partitions that came since the last call, and where they are read from."""
        with self._changed:
            added, self._added = self._added, {}
        return added

    def close(self) -> None:
        """Ends the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        self._commit_now()
        self._client.release()

    def _oldest(self) -> int | Nothing:
        """Returns the partition whose next message comes first."""
        states = self._partitions.values()
        if any(state.is_awaited for state in states):
            return Nothing.PENDING
        heads = [
            (state.held[0].time_ms, state.held[0].offset, partition)
            for partition, state in self._partitions.items()
            if state.held
        ]
        if heads:
            return min(heads)[2]
        is_over = self._adopt is None and all(state.done for state in states)
        return Nothing.END if is_over else Nothing.IDLE

    def _pop(self, partition: int) -> Message:
        state = self._partitions[partition]
        message = state.held.popleft()
        state.num_bytes -= len(message.value or b"")
        self._held_bytes -= len(message.value or b"")
        if not self._is_filling:
            self._changed.notify_all()
        return message

    def _run(self) -> None:
        looked = time.monotonic()
        try:
            while not self._closed:
                self._commit_now()
                came = self._poll()
                with self._changed:
                    for message in came:
                        self._take(message)
                    self._changed.notify_all()
                if time.monotonic() - looked > min(_LOOK_SECONDS, self._patience / 4):
                    self._look()
                    looked = time.monotonic()
        except BaseException as error:  # raised where messages are consumed
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _commit_now(self) -> None:
        with self._changed:
            offsets, self._commits = self._commits, {}
        self._client.commit(offsets)

    def _poll(self) -> list[Message]:
        """Returns what has come, none while enough is held; the brokers hear of us anyway."""
        with self._changed:
            self._is_filling = self._has_room()
            if not self._is_filling:
                pause = min(_HEARTBEAT * self._client.uri.poll_seconds, _LOOK_SECONDS)
                self._is_filling = self._changed.wait_for(self._has_room, pause)
            full, free = self._plan()
        self._client.pause(full)
        self._client.unpause(free)
        if self._is_filling:
            return self._client.take(_AT_ONCE, _POLL_SECONDS)
        return self._client.take(1, 0.0)

    def _has_room(self) -> bool:
        if (
            self._closed
            or self._commits
            or any(state.is_awaited for state in self._partitions.values())
        ):
            return True
        return self._held_bytes < (_HELD_BYTES if self._is_filling else 3 * _HELD_BYTES // 4)

    def _plan(self) -> tuple[list[int], list[int]]:
        """Returns the partitions to pause while another is awaited, and those to go on with."""
        share = max(_HELD_BYTES // max(len(self._partitions), 1), _LEAST_BYTES)
        awaited = any(state.is_awaited for state in self._partitions.values())
        full, free = [], []
        for partition, state in self._partitions.items():
            if not state.paused and awaited and state.num_bytes >= share:
                state.paused = True
                full.append(partition)
            elif state.paused and state.num_bytes < share // 2 and not state.done:
                state.paused = False
                free.append(partition)
        return full, free

    def _take(self, message: Message) -> None:
        state = self._partitions.get(message.partition)
        if message.error:
            self._note(message, state)
        elif state is not None and not state.done and message.offset >= state.next_offset:
            state.heard = time.monotonic()
            state.at_end = False
            state.next_offset = message.offset + 1
            state.high = max(state.high, state.next_offset)
            if not state.range.ends_before(message):
                state.held.append(message)
                state.num_bytes += len(message.value or b"")
                self._held_bytes += len(message.value or b"")
            stop = state.range.stop
            if state.range.ends_before(message) or (stop is not None and state.next_offset >= stop):
                self._finish(message.partition, state)

    def _note(self, message: Message, state: Partition | None) -> None:
        """Takes an event."""
        if state is not None and message.error == "_PARTITION_EOF":
            state.heard = time.monotonic()
            state.at_end = not state.done
            state.high = max(state.high, message.offset)
            stop = state.range.stop
            if not state.done and stop is not None and message.offset >= stop:
                self._finish(message.partition, state)
            return
        name = self._name(message.partition)
        if message.error == "_AUTO_OFFSET_RESET":
            next_offset = state.next_offset if state is not None else message.offset
            raise DataError(
                f"{name}: offset {next_offset:,} is not there (any more): {message.text}",
                hint="the topic keeps messages for a shorter time than the run was behind, or it "
                "was made anew",
            )
        if message.fatal or message.error in _FINAL:
            raise DataError(f"{name}: {message.error}: {message.text}")
        logger.warning("%s: %s: %s", name, message.error, message.text)

    def _finish(self, partition: int, state: Partition) -> None:
        state.done = True
        state.paused = True
        with contextlib.suppress(Exception):  # what still comes of it is left alone
            self._client.pause([partition])

    def _look(self) -> None:
        """Asks how far the partitions go and whether there are new ones."""
        began = time.monotonic()
        self._turn += 1
        states = deque(self._partitions.items())
        states.rotate(self._turn)
        for partition, state in states:
            if self._closed or time.monotonic() - began > _LOOK_SECONDS / 2:
                break
            with contextlib.suppress(DataError):
                _, high = self._client.bounds(partition, patient=False)
                with self._changed:
                    state.high = max(state.high, high)
                    if state.is_awaited and high > state.next_offset:
                        continue  # its broker answers but sends nothing: that is not endless
                    state.heard = time.monotonic()
        with self._changed:
            self._end_by_clock()
            self._check_silence()
        if self._adopt is not None:
            self._find_partitions()

    def _end_by_clock(self) -> None:
        """Ends partitions without a message from the end of their time or later."""
        now_ms = time.time() * 1000
        for partition, state in self._partitions.items():
            until = state.range.until_ms
            if until is not None and state.at_end and not state.done and now_ms > until:
                self._finish(partition, state)
                self._changed.notify_all()

    def _check_silence(self) -> None:
        for partition, state in self._partitions.items():
            silent = time.monotonic() - state.heard
            if not state.done and silent > self._patience:
                last = self._client.last_error
                raise DataError(
                    f"{self._name(partition)}: no broker has sent anything for {silent:.0f} s, "
                    f"{max(state.high - state.next_offset, 0):,} messages are to come"
                    f"{f'; the last error: {last}' if last else ''}",
                    hint="go on with --continue once the brokers are back; wait.timeout.ms in the "
                    "path waits longer",
                )

    def _find_partitions(self) -> None:
        number = self._client.current_partitions()
        if number is None or number <= self._num_known:
            return
        assert self._adopt is not None
        new = self._adopt(self._num_known, number)
        try:
            found = {p: StreamMark(self._client.bounds(p, patient=False)[0]) for p in new}
        except DataError:
            return  # asked again soon
        with self._changed:
            now = time.monotonic()
            self._partitions.update(
                {p: Partition.of(Range(mark), now) for p, mark in found.items()}
            )
            self._added.update(found)
            self._num_known = number
        if found:
            logger.info("%s: new partitions %s", self._client.uri, sorted(found))
            self._client.add({p: mark.offset for p, mark in found.items()})

    def _name(self, partition: int) -> str:
        uri = self._client.uri
        return str(uri) if partition < 0 else f"{uri.topic}:{partition}"
