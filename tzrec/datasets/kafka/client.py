"""`Client`: what is asked of the brokers; the one file that imports confluent_kafka."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from tzrec.config.kafka_uri import KafkaUri, unknown_parameter
from tzrec.errors import ConfigError, DataError, MissingDependencyError, did_you_mean
from tzrec.options import KafkaLookup

logger = logging.getLogger("tzrec")

T = TypeVar("T")

_ASK_SECONDS = 5.0
_CONNECT_SECONDS = 30.0
_QUIET_SECONDS = 30.0
_COMMIT_SECONDS = 5.0
# Where the user has not said it: what librdkafka holds, and how long it rests when that is full;
# its own second would bound the speed.
_DEFAULTS = {"queued.max.messages.kbytes": "16384", "fetch.queue.backoff.ms": "20"}
_UNKNOWN_PARAMETER = re.compile(r'No such configuration property: "(.+)"')


def kafka_module() -> Any:
    """Returns confluent_kafka.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import confluent_kafka
    except ImportError as error:
        raise MissingDependencyError(
            f"reading kafka:// needs confluent-kafka: {error}", hint="pip install confluent-kafka"
        ) from error
    return confluent_kafka


class Message(NamedTuple):
    """A message or an event of a partition.

    Attributes:
        partition: its number; -1 = no partition's.
        offset: in the partition; of an event, where the partition ends.
        time_ms: milliseconds since 1970, -1 = unknown.
        value: the payload; None = there is none.
        error: name of the event, "" = it is a message.
        text: what librdkafka says about the event.
        fatal: the client cannot go on.
    """

    partition: int
    offset: int
    time_ms: int = -1
    value: bytes | None = None
    error: str = ""
    text: str = ""
    fatal: bool = False


class Client:
    """A consumer of one topic whose partitions and offsets are chosen here, not by the group.

    Args:
        uri: the topic.

    Raises:
        ConfigError: librdkafka does not take a setting.
        MissingDependencyError: confluent_kafka is not installed.
    """

    def __init__(self, uri: KafkaUri) -> None:
        self.uri = uri
        self._kafka = kafka_module()
        self._log = _Log(str(uri))
        self._is_reading = False
        self._pending_commits = 0
        self._lock = threading.Lock()
        settings = {**_DEFAULTS, **uri.settings()}
        try:
            self._consumer = self._kafka.Consumer(
                {**settings, "error_cb": self._log.note_error, "on_commit": self._committed},
                logger=self._log,
            )
        except (self._kafka.KafkaException, TypeError, ValueError) as error:
            raise _refused(uri, _text(error)) from error

    @property
    def last_error(self) -> str:
        """What librdkafka said last about its connections, "" = nothing."""
        return self._log.last

    def num_partitions(self) -> int:
        """Returns the number of partitions.

        Raises:
            DataError: no broker answers within half a minute, or there is no such topic.
        """
        limit = min(_CONNECT_SECONDS, self.uri.wait_seconds)
        seconds = min(_ASK_SECONDS, limit)
        found = self._ask(lambda: self._metadata(seconds), "partitions", limit)
        if found is None or not found.partitions:
            known = self._ask(lambda: self._consumer.list_topics(timeout=_ASK_SECONDS), "topics")
            names = sorted(name for name in known.topics if not name.startswith("__"))
            raise DataError(
                f"{self.uri}: there is no topic {self.uri.topic!r}"
                f"{did_you_mean(self.uri.topic, names)}",
                hint=f"topics: {', '.join(names[:20])}" if names else "the brokers have no topic",
            )
        return len(found.partitions)

    def current_partitions(self) -> int | None:
        """Returns the number of partitions now, None where no broker answers at once."""
        try:
            found = self._metadata(1.0)
        except self._kafka.KafkaException:
            return None
        return None if found is None else len(found.partitions)

    def bounds(self, partition: int, *, patient: bool = True) -> tuple[int, int]:
        """Returns the first offset that is there and the one after the last.

        Args:
            partition: its number.
            patient: ask for half a minute; else for a second.

        Raises:
            DataError: no broker answers.
        """
        place = self._place(partition)
        seconds = _ASK_SECONDS if patient else 1.0

        def ask() -> tuple[int, int]:
            low, high = self._consumer.get_watermark_offsets(place, timeout=seconds)
            return int(low), int(high)

        what = f"the bounds of {self.uri.topic}:{partition}"
        return self._ask(ask, what, _CONNECT_SECONDS if patient else 0.0)

    def committed(self, partitions: Sequence[int]) -> dict[int, int]:
        """Returns partition → offset that the group committed, of those that have one.

        Raises:
            DataError: no broker answers.
        """
        places = [self._place(partition) for partition in partitions]
        found = self._ask(
            lambda: self._consumer.committed(places, timeout=_ASK_SECONDS),
            f"offsets of the group {self.uri.group!r}",
        )
        return {place.partition: place.offset for place in found if place.offset >= 0}

    def offsets_at(
        self, time_ms: int, partitions: Sequence[int], lookup: KafkaLookup
    ) -> dict[int, int | None]:
        """Returns partition → first offset whose message is not older, None = there is none.

        Args:
            time_ms: milliseconds since 1970.
            partitions: their numbers.
            lookup: partitions per request, its time limit and how often it is repeated.

        Raises:
            DataError: the brokers do not tell.
        """
        found: dict[int, int | None] = {}
        for first in range(0, len(partitions), lookup.batch_size):
            some = partitions[first : first + lookup.batch_size]
            for place in self._offsets_at(time_ms, some, lookup):
                if place.error is not None:
                    raise DataError(
                        f"{self.uri}: the offset of time {time_ms} in partition "
                        f"{place.partition} cannot be found: {place.error.str()}"
                    )
                found[place.partition] = place.offset if place.offset >= 0 else None
        return found

    def _offsets_at(self, time_ms: int, partitions: Sequence[int], lookup: KafkaLookup) -> Any:
        for attempt in range(lookup.retries + 1):
            places = [self._place(partition, time_ms) for partition in partitions]
            try:
                return self._consumer.offsets_for_times(places, timeout=lookup.timeout)
            except self._kafka.KafkaException as error:
                text = _text(error)
                logger.warning(
                    "%s: looking up offsets by time failed (%d of %d): %s",
                    self.uri, attempt + 1, lookup.retries + 1, text,
                )  # fmt: skip
        raise DataError(
            f"{self.uri}: the offsets of time {time_ms} cannot be found: {text}",
            hint="TZREC_KAFKA_OFFSETS_FOR_TIMES_TIMEOUT and _RETRIES allow more",
        )

    def assign(self, offsets: Mapping[int, int]) -> None:
        """Reads these partitions (partition → offset) from now on, and no others."""
        places = [self._place(partition, offset) for partition, offset in offsets.items()]
        self._is_reading = True
        self._consumer.assign(places)

    def add(self, offsets: Mapping[int, int]) -> None:
        """Reads further partitions."""
        self._consumer.incremental_assign([self._place(p, o) for p, o in offsets.items()])

    def release(self) -> None:
        """Reads nothing any more."""
        self._consumer.unassign()
        self._is_reading = False

    def pause(self, partitions: Sequence[int]) -> None:
        """Fetches nothing of them for a while."""
        if partitions:
            self._consumer.pause([self._place(partition) for partition in partitions])

    def unpause(self, partitions: Sequence[int]) -> None:
        """Fetches them again, after what was taken of them."""
        if partitions:
            self._consumer.resume([self._place(partition) for partition in partitions])

    def take(self, limit: int, timeout: float) -> list[Message]:
        """Returns what has come, waiting at most ``timeout`` seconds for the first of it."""
        found = self._consumer.consume(1, timeout)
        if found and limit > 1:  # consume waits for as many as it is asked for
            found += self._consumer.consume(limit - 1, 0.0)
        return [self._message(each) for each in found]

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Commits partition → next offset for the group; a failure is a warning."""
        if not offsets:
            return
        with self._lock:
            self._pending_commits += 1
        try:
            places = [self._place(partition, offset) for partition, offset in offsets.items()]
            self._consumer.commit(offsets=places, asynchronous=True)
        except self._kafka.KafkaException as error:
            self._committed(error.args[0], [])

    def close(self) -> None:
        """Leaves the brokers, once what was committed is known to be."""
        self.release()
        end = time.monotonic() + _COMMIT_SECONDS
        while self._pending_commits and time.monotonic() < end:
            self._consumer.poll(0.05)
        self._consumer.close()

    def _committed(self, error: Any, places: Any) -> None:
        with self._lock:
            self._pending_commits = max(self._pending_commits - 1, 0)
        failed = error or next((place.error for place in places if place.error is not None), None)
        if failed is not None:
            logger.warning(
                "%s: offsets of the group %r were not committed: %s. The checkpoint has them",
                self.uri, self.uri.group, failed.str(),
            )  # fmt: skip

    def _message(self, found: Any) -> Message:
        partition = -1 if found.partition() is None else found.partition()
        offset = -1 if found.offset() is None else found.offset()
        error = found.error()
        if error is not None:
            text = error.str()
            return Message(partition, offset, -1, None, error.name(), text, error.fatal())
        kind, time_ms = found.timestamp()
        known = kind != self._kafka.TIMESTAMP_NOT_AVAILABLE
        return Message(partition, offset, time_ms if known else -1, found.value())

    def _metadata(self, timeout: float) -> Any:
        topic = self.uri.topic
        found = self._consumer.list_topics(topic, timeout=timeout).topics.get(topic)
        return None if found is None or found.error is not None else found

    def _place(self, partition: int, offset: int | None = None) -> Any:
        place = self._kafka.TopicPartition
        if offset is None:
            return place(self.uri.topic, partition)
        return place(self.uri.topic, partition, offset)

    def _ask(self, ask: Callable[[], T], what: str, limit: float = _CONNECT_SECONDS) -> T:
        """Asks until there is an answer, at most ``limit`` seconds."""
        end = time.monotonic() + limit
        while True:
            try:
                return ask()
            except self._kafka.KafkaException as error:
                failed = error.args[0]
                if not self._is_reading:
                    self._consumer.poll(0)  # lets librdkafka tell what happened
                if not (failed.retriable() or _is_transport(failed)) or time.monotonic() >= end:
                    raise self._unanswered(what, failed, limit) from error
            time.sleep(0.2)

    def _unanswered(self, what: str, error: Any, limit: float) -> DataError:
        if not _is_transport(error):
            return DataError(f"{self.uri}: {what} cannot be read: {error.str()}")
        last = f" The last error: {self.last_error}" if self.last_error else ""
        return DataError(
            f"{self.uri}: no broker tells {what} within {limit:g} s: {error.str()}.{last}",
            hint="check the brokers' addresses and ports, and security.protocol, sasl.* and ssl.*",
        )


class _Log:
    """Takes librdkafka's log: it repeats itself many times a second while brokers are away."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._told: dict[str, float] = {}
        self.last = ""

    def log(self, level: int, form: str, *args: Any) -> None:
        """Writes a line, unless one of its kind was written within the last half minute."""
        text = form % args
        if level >= logging.WARNING:
            self.last = text.rpartition("]: ")[2]
        kind, now = str(args[0]) if args else form, time.monotonic()
        if level > logging.DEBUG and now - self._told.get(kind, -_QUIET_SECONDS) < _QUIET_SECONDS:
            return
        self._told[kind] = now
        logger.log(min(level, logging.WARNING), "%s: %s", self._name, text)

    def note_error(self, error: Any) -> None:
        """Keeps an error for messages."""
        self.last = error.str()


def _is_transport(error: Any) -> bool:
    return error.name() in (
        "_TRANSPORT",
        "_TIMED_OUT",
        "_ALL_BROKERS_DOWN",
        "_RESOLVE",
        "_WAIT_COORD",
    )


def _refused(uri: KafkaUri, text: str) -> ConfigError:
    found = _UNKNOWN_PARAMETER.search(text)
    guess = unknown_parameter(found[1]) if found else ""
    return ConfigError(
        f"{uri}: {text}{guess}",
        hint="parameters after ? are settings of librdkafka (its CONFIGURATION.md lists them)",
    )


def _text(error: Exception) -> str:
    inner = error.args[0] if error.args else error
    return inner.str() if hasattr(inner, "str") else str(inner)
