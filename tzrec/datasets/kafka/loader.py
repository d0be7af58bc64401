"""`KafkaLoader`: the batches of one rank, of a stream."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, overload

import pyarrow.compute as pc

from tzrec.batch import Batch
from tzrec.datasets.delivery import Parsed, same_number, without_empty
from tzrec.datasets.event_time import newest
from tzrec.datasets.kafka.batches import PassSettings, StreamBatches
from tzrec.datasets.kafka.poller import Poller
from tzrec.datasets.kafka.ranges import find_ranges
from tzrec.datasets.kafka.reader import TIME_COLUMN, KafkaReader
from tzrec.datasets.kafka.rowcode import place_of, row_numbers
from tzrec.datasets.kafka.rows import StreamRows, marks_of
from tzrec.datasets.kafka.together import Ranks
from tzrec.datasets.loader import BatchLoader, _Pass, _SizedBatches
from tzrec.datasets.position import DataPosition, StreamMark
from tzrec.datasets.slicer import RawBatch
from tzrec.datasets.workers import ParserPool
from tzrec.errors import DataError, Unsupported

logger = logging.getLogger("tzrec")


class KafkaLoader(BatchLoader):
    """Iterates over the batches of this rank's partitions: those whose number, divided by the
    ranks, leaves the rank.

    A pass over a stream without an end ends only when it is told to. Arguments are those of
    `BatchLoader`.

    Attributes:
        wants_stop: asked all the time; True ends the pass, on all ranks after the same batch.
        on_stopped: called where batches are consumed, once the pass has ended because of that.

    Raises:
        Unsupported: rows are to be shuffled.
    """

    reader: KafkaReader

    def _count(self) -> tuple[int | None, int | None]:
        if self.config.shuffle_batches:
            raise Unsupported(
                "data_config.shuffle: a stream is read in its order",
                hint="write shuffle: false; send the rows to Kafka in the order to learn from",
            )
        self.wants_stop: Callable[[], bool] = _never
        self.on_stopped: Callable[[], None] = _nothing
        self._poller: Poller | None = None
        self._ranks = Ranks(self.config.rank, self.config.world_size)
        uri, number = self.reader.uri, len(self.reader.paths)
        for setting in uri.without_effect:
            logger.warning(
                "%s: %s has no effect: offsets are kept in checkpoints and committed with them",
                *(uri, setting),
            )
        if self.config.rank == 0 and self.config.world_size > number:
            logger.warning(
                "%s has %d partitions for %d processes: those without one get rows from others",
                *(uri, number, self.config.world_size),
            )
        return None, None

    @property
    def is_bounded(self) -> bool:
        """True when a pass has an end of its own."""
        return self.reader.uri.is_bounded or not self.options.learns

    def resume(self, position: DataPosition) -> None:
        """Goes on after what ``position`` says was consumed, in the next pass only."""
        own = set(self.reader.paths)
        foreign = [*position.sources, *(name for name in position.marks if name not in own)]
        if foreign:
            logger.warning(
                "the data position knows %d source(s) that are not in %s, the first is %s",
                *(len(foreign), self.reader.uri, foreign[0]),
            )
        self._position = position

    def __iter__(self) -> Iterator[Batch]:
        if self._closed:
            raise RuntimeError("the loader is closed")
        for running in list(self._passes):
            running.close()
        position, self._position = self._position, None
        marks = {} if position is None else position.marks
        known = {name: marks[name] for name in self.reader.paths if name in marks}
        ranges = find_ranges(
            self.reader.client,
            self._own(range(len(self.reader.paths))),
            known,
            learns=self.options.learns,
            is_first=self._epoch == 0,
        )
        starts = {partition: found.start for partition, found in ranges.items()}
        self._announce_starts(starts, resumed=bool(known))
        poller = Poller(self.reader.client, ranges, adopt=None if self.is_bounded else self._adopt)
        self.parser.warm_up()
        if self.options.num_workers and self._pool is None:
            self._pool = ParserPool(self._batches, self.options.num_workers)
        batches = StreamBatches(
            StreamRows(poller.next, self.reader, starts),
            self.reader,
            ranks=self._ranks,
            settings=PassSettings(
                self.config,
                epoch=self._epoch,
                is_bounded=self.is_bounded,
                mask_prob=self.options.mask_prob,
                cost_field=self.options.cost_field,
            ),
            wants_stop=lambda: self.wants_stop(),
        )
        self._poller = poller
        self._begun = starts
        poller.start(len(self.reader.paths))
        running = _StreamPass(self._made(batches, poller, known=bool(known)), batches, self)
        self._passes.add(running)
        return running

    def close(self) -> None:
        """Ends all threads and processes, and leaves the brokers."""
        is_open = not self._closed
        super().close()
        if is_open:
            self.reader.client.close()

    def commit(self, marks: Mapping[str, StreamMark]) -> None:
        """Commits how far this rank's partitions were consumed, for others to see."""
        offsets = {p: mark.offset for p, mark in self._own_marks(marks).items()}
        if self._poller is None:
            self.reader.client.commit(offsets)
        else:
            self._poller.commit(offsets)

    def lag(self, marks: Mapping[str, StreamMark]) -> dict[int, int]:
        """Returns partition → messages after a mark, of this rank's partitions."""
        return {} if self._poller is None else self._poller.lag(self._own_marks(marks))

    def _own_marks(self, marks: Mapping[str, StreamMark]) -> dict[int, StreamMark]:
        names = self.reader.paths
        return {p: marks[names[p]] for p in self._own(range(len(names))) if names[p] in marks}

    def _own(self, partitions: Sequence[int]) -> list[int]:
        return [p for p in partitions if p % self.config.world_size == self.config.rank]

    def _adopt(self, known: int, number: int) -> list[int]:
        self.reader.add_partitions(number)
        return self._own(range(known, number))

    def _announce_starts(self, starts: dict[int, StreamMark], *, resumed: bool) -> None:
        places = [f"{p} at {mark.offset:,}" for p, mark in sorted(starts.items())]
        more = f" … ({len(places)} partitions)" if len(places) > 8 else ""
        logger.info(
            "%s: %s partitions %s%s",
            self.reader.uri,
            "going on with" if resumed else "reading",
            ", ".join(places[:8]) or "of other ranks",
            more,
        )

    def _made(self, batches: StreamBatches, poller: Poller, *, known: bool) -> _SizedBatches:
        some, failed = known, True
        try:
            for raw, parsed in self._delivered(batches):
                some = True
                yield self._finish(raw, parsed), self._size(raw, parsed)
            self._check_end(batches, some=some)
            failed = False
        except GeneratorExit:
            failed = False
            raise
        finally:
            batches.leave(failed=failed)
            poller.close()

    def _check_end(self, batches: StreamBatches, *, some: bool) -> None:
        if batches.num_left and some:
            logger.warning(
                "%s: %d rows are left, too few for a batch on each of %d processes",
                *(self.reader.uri, batches.num_left, self.config.world_size),
            )
        elif batches.num_left:
            raise DataError(
                f"{self.reader.uri}: {batches.num_left} rows cannot be divided over "
                f"{self.config.world_size} processes",
                hint="start fewer processes or read more",
            )
        elif not some and not batches.was_stopped:
            raise DataError(
                f"{self.reader.uri} has no row that can be used",
                hint="start.timestamp.ms or auto.offset.reset=earliest begin with older messages",
            )

    def _delivered(self, batches: StreamBatches) -> Iterator[Parsed]:
        parsed = self._parse(batches)
        if self.config.world_size == 1 or not self.bad_rows.limit:
            return without_empty(parsed)
        return same_number(parsed, self._rows.parse)

    def _parse(self, batches: StreamBatches) -> Iterator[Parsed]:
        while not batches.is_over:
            if self._pool is not None:
                yield from self._pool.parse(batches.burst(), self._rows)
            else:
                yield from map(self._rows.parse, batches.burst())

    def _note_origin(self, batch: Batch, raw: RawBatch) -> None:
        names = self.reader.paths
        marks = {names[p]: mark for p, mark in marks_of(raw).items()}
        begun, self._begun = self._begun, {}
        if self._poller is not None:
            begun |= self._poller.new_partitions()
        first = {names[p]: mark for p, mark in begun.items()}
        info: dict[str, Any] = {**first, **marks}
        batch.checkpoint_info = info
        places = _Places(self.reader, raw)
        batch.row_origin = (places, range(raw.num_rows), row_numbers(raw.row))
        if self.options.time_field:
            batch.data_timestamp = newest(raw.columns.column(self.options.time_field))
        else:
            latest = pc.max(raw.columns.column(TIME_COLUMN)).as_py()
            batch.data_timestamp = latest / 1000 if latest >= 0 else -1.0


class _StreamPass(_Pass):
    """A pass that tells the loader when it was stopped."""

    def __init__(self, made: _SizedBatches, batches: StreamBatches, loader: KafkaLoader) -> None:
        super().__init__(made)
        self._of = batches
        self._loader = loader
        # Of two finalizers the newer one runs first: the ranks must not wait for each other.
        self._say = weakref.finalize(self, batches.close)

    def close(self) -> None:
        """Ends the thread; the iteration is over."""
        self._say()
        super().close()

    def __next__(self) -> Batch:
        try:
            return super().__next__()
        except StopIteration:
            if self._of.was_stopped:
                self._loader.on_stopped()
            raise


class _Places(Sequence[str]):
    """Names of the messages of a batch's rows, made when they are asked for."""

    def __init__(self, reader: KafkaReader, raw: RawBatch) -> None:
        self._reader = reader
        self._source, self._row = raw.source, raw.row

    def __len__(self) -> int:
        return len(self._row)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...

    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        offset, _ = place_of(int(self._row[index]))
        return f"{self._reader.paths[int(self._source[index])]}:{offset}"


def _never() -> bool:
    return False


def _nothing() -> None:
    pass
