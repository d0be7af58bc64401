"""`BatchLoader`: the batches of one rank, made ahead of the training step."""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from torch import Tensor

from tzrec.batch import Batch, RecordBatchTensor
from tzrec.datasets.batch_parser import BatchParser
from tzrec.datasets.channel import Channel, Closed
from tzrec.datasets.costs import CostCutter
from tzrec.datasets.data_parser import DataParser
from tzrec.datasets.delivery import Parsed, same_number, without_empty
from tzrec.datasets.event_time import newest
from tzrec.datasets.feature_counts import FEATURE_COUNTS, FeatureCounts
from tzrec.datasets.locate import RowParser
from tzrec.datasets.position import DataPosition
from tzrec.datasets.reader import BaseReader
from tzrec.datasets.sampled import RowJoiner
from tzrec.datasets.slicer import BatchSlicer, RawBatch, row_origin
from tzrec.datasets.split import PassPlan, SplitConfig
from tzrec.datasets.start import Start, plan_pass
from tzrec.datasets.workers import ParserPool
from tzrec.errors import DataError

logger = logging.getLogger("tzrec")

_SizedBatches = Generator[tuple[Batch, int], None, None]

_AHEAD_BATCHES = 8
_AHEAD_BYTES = 256 << 20


@dataclass(frozen=True)
class LoaderOptions:
    """How batches are made.

    Attributes:
        num_workers: processes that parse, 0 = the reading thread parses.
        reserved: columns that travel with the batch into the output of a prediction.
        mask_prob: probability of a row to be masked, 0 = no masks.
        pin_memory: put batches into page-locked memory.
        in_order: deliver batches in the order of the plan, not as processes finish them.
        cost_field: column with the cost of a row, where batches are cut by cost.
        time_field: column with the event time of a row, "" = none.
        learns: batches are for training.
    """

    num_workers: int = 0
    reserved: tuple[str, ...] = ()
    mask_prob: float = 0.0
    pin_memory: bool = False
    in_order: bool = True
    cost_field: str = ""
    time_field: str = ""
    learns: bool = False


class BatchLoader:
    """Iterates over the batches of this rank; one iteration is one pass over the data.

    A thread reads, decodes and parses ahead (Arrow and NumPy release the GIL in the long
    parts), bounded in batches and bytes. With ``num_workers`` processes do the parsing;
    batches and their order are the same.

    Args:
        reader: the input.
        parser: of the columns.
        config: how rows become batches.
        options: how batches are made.
        joiner: adds the rows of a sampler.

    Attributes:
        num_rows: rows of the whole input.
        num_batches: batches of this rank in a whole pass, the same on every rank; None where
            they are cut by cost. With `num_bad_rows` it may be a few less.
        bad_rows: rows of this rank that were left out.
        feature_counts: how often features that are generated here were missing or unknown.

    Raises:
        DataError: there is not one batch for each rank.
    """

    def __init__(
        self,
        reader: BaseReader,
        parser: DataParser,
        *,
        config: SplitConfig,
        options: LoaderOptions | None = None,
        joiner: RowJoiner | None = None,
    ) -> None:
        self.reader = reader
        self.parser = parser
        self.joiner = joiner
        self.config = config
        self.options = options or LoaderOptions()
        self.bad_rows = reader.bad_rows
        self._batches = BatchParser(parser, joiner)
        self._rows = RowParser(self._batches, reader)
        self.feature_counts = FeatureCounts(parser.generated.names)
        self.num_rows, self.num_batches = self._count()
        self._epoch = 0
        self._position: DataPosition | None = None
        self._passes: weakref.WeakSet[_Pass] = weakref.WeakSet()
        self._pool: ParserPool | None = None
        self._closed = False

    def _count(self) -> tuple[int | None, int | None]:
        """Returns the rows of the input and the batches of a pass, as far as they are known."""
        self._blocks = self.reader.blocks()
        plan = plan_pass(self._blocks, self.config).plan
        return self.reader.total_rows, None if self.config.cost_limit else plan.num_batches

    @property
    def num_bad_rows(self) -> int:
        """Rows left out so far on this rank, each counted once."""
        return self.bad_rows.count

    @property
    def estimated_rows(self) -> int:
        """Rows of a full batch, about, with those of the sampler."""
        rows = self.config.batch_size
        if self.joiner is not None:
            rows += self.joiner.sampler.estimated_sample_num(rows)
        return rows

    def set_epoch(self, epoch: int) -> None:
        """Selects the order of the next passes under shuffling."""
        self._epoch = epoch

    def resume(self, position: DataPosition) -> None:
        """Leaves out what ``position`` says was delivered, in the next pass only.

        With the same files, ranks, batch size and seed the rest of the pass is exactly what an
        uninterrupted one would have delivered; otherwise every row that is left comes once.

        Raises:
            DataError: a file has fewer rows than were consumed of it.
        """
        rows = dict(zip(self.reader.sources, self.reader.num_rows, strict=True))
        unknown = [source for source in position.sources if source not in rows]
        for source in position.sources:
            last = int(position.consumed(source)[-1, 1])
            if source in rows and last > rows[source]:
                raise DataError(
                    f"{last} rows of {source} were consumed, but it has {rows[source]} rows",
                    hint="the file was changed since the checkpoint",
                )
        if unknown:
            logger.warning(
                "the data position knows %d file(s) that are not in the input, the first is %s; "
                "files that it does not know are read whole",
                len(unknown),
                unknown[0],
            )
        self._position = position

    def __iter__(self) -> Iterator[Batch]:
        if self._closed:
            raise RuntimeError("the loader is closed")
        position, self._position = self._position, None
        start = plan_pass(
            self._blocks,
            self.config,
            epoch=self._epoch,
            sources=self.reader.sources,
            position=position,
            cuts=self._cuts if self.config.cost_limit else None,
        )
        if position is not None:
            self._announce(start)
        self.parser.warm_up()
        if self.options.num_workers and self._pool is None:
            self._pool = ParserPool(self._batches, self.options.num_workers)
        batches = _Pass(self._produce(start, may_be_empty=position is not None))
        self._passes.add(batches)
        return batches

    def close(self) -> None:
        """Ends all threads and processes; running iterations end. Says how many rows were bad."""
        if self.num_bad_rows and not self._closed:
            logger.warning("%s: %d bad rows left out", self.reader.input_path, self.num_bad_rows)
        self._closed = True
        for running in list(self._passes):
            running.close()
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def __enter__(self) -> BatchLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _cuts(self, plan: PassPlan, window: int) -> list[list[int]]:
        return CostCutter(self.reader, plan, self.options.cost_field).of_all(window)

    def _announce(self, start: Start) -> None:
        plan, first = start.plan, start.first_batch
        if plan.num_batches == 0:
            left = len(plan.order)
            log = logger.warning if left else logger.info
            log("the pass was at its end: %d rows are left, too few for a batch each", left)
        elif first < plan.num_batches:
            row = plan.rank_rows(self.config.rank)[0] + plan.edge(self.config.rank, first)
            source, rows = next(plan.order.cut(row, row + 1).runs())
            logger.info(
                "resuming the pass at batch %d/%d: file %d/%d (%s), row %d",
                first,
                plan.num_batches,
                source + 1,
                len(self.reader.paths),
                self.reader.paths[source],
                rows[0, 0],
            )

    def _produce(self, start: Start, *, may_be_empty: bool) -> _SizedBatches:
        some = may_be_empty
        batches = self._parsed(self._slicer(start))
        if self.config.world_size == 1 or not self.bad_rows.limit:
            batches = without_empty(batches)
        else:
            batches = same_number(batches, self._rows.parse)
        for raw, parsed in batches:
            some = True
            yield self._finish(raw, parsed), self._size(raw, parsed)
        if not some:
            raise DataError(f"{self.reader.input_path!r} has no row that can be used")

    def _size(self, raw: RawBatch, parsed: dict[str, Tensor]) -> int:
        """Returns about how many bytes a batch holds."""
        if self.joiner is None:
            return int(raw.columns.nbytes)
        return sum(tensor.nbytes for tensor in parsed.values())

    def _slicer(self, start: Start) -> BatchSlicer:
        cutter = None
        if self.config.cost_limit:
            cutter = CostCutter(self.reader, start.plan, self.options.cost_field)
        return BatchSlicer(self.reader, start, mask_prob=self.options.mask_prob, cutter=cutter)

    def _parsed(self, batches: BatchSlicer) -> Iterator[Parsed]:
        if self._pool is not None:
            return self._pool.parse(iter(batches), self._rows, in_order=self.options.in_order)
        return (self._rows.parse(raw) for raw in batches)

    def _finish(self, raw: RawBatch, parsed: dict[str, Tensor]) -> Batch:
        counts = parsed.pop(FEATURE_COUNTS, None)
        if counts is not None:
            self.feature_counts.add(counts)
        batch = self.parser.to_batch(parsed)
        self._note_origin(batch, raw)
        if self.options.reserved:
            kept = raw.columns.select(list(self.options.reserved))
            batch.reserves = RecordBatchTensor(kept)
        return batch.pin_memory() if self.options.pin_memory else batch

    def _note_origin(self, batch: Batch, raw: RawBatch) -> None:
        """Tells the batch which rows it has and how new they are."""
        batch.checkpoint_info = row_origin(raw, self.reader.sources)
        batch.row_origin = (self.reader.paths, raw.source, raw.row)
        if self.options.time_field:
            batch.data_timestamp = newest(raw.columns.column(self.options.time_field))


class _Pass:
    """One iteration: a thread that fills a channel, and the consumer's end of it.

    The thread ends with the data, with `close`, when this object is dropped, and at exit.
    """

    def __init__(self, batches: _SizedBatches) -> None:
        self._channel: Channel[Batch] = Channel(_AHEAD_BATCHES, _AHEAD_BYTES)
        thread = threading.Thread(
            target=_fill, args=(self._channel, batches), name="tzrec-loader", daemon=True
        )
        self._stop = weakref.finalize(self, _stop, self._channel, thread)
        thread.start()

    def __iter__(self) -> _Pass:
        return self

    def __next__(self) -> Batch:
        try:
            batch = self._channel.get()
        except BaseException:
            self.close()
            raise
        if batch is None:
            self.close()
            raise StopIteration
        return batch

    def close(self) -> None:
        """Ends the thread; the iteration is over."""
        self._stop()


def _fill(channel: Channel[Batch], batches: _SizedBatches) -> None:
    error: BaseException | None = None
    try:
        with contextlib.closing(batches):
            for batch, size in batches:
                channel.put(batch, size)
    except Closed:
        pass
    except BaseException as caught:  # raised where batches are consumed
        error = caught
    channel.end(error)


def _stop(channel: Channel[Batch], thread: threading.Thread) -> None:
    channel.close()
    if thread is not threading.current_thread():
        thread.join()
