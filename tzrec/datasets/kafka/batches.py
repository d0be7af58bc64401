"""`StreamBatches`: the raw batches of one rank's pass over a stream."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from tzrec.datasets.costs import cost_numbers, cut_by_cost
from tzrec.datasets.kafka.poller import Nothing
from tzrec.datasets.kafka.reader import KafkaReader
from tzrec.datasets.kafka.rows import StreamRows, joined
from tzrec.datasets.kafka.together import LEAVING, Ranks, State, share
from tzrec.datasets.slicer import RawBatch
from tzrec.datasets.split import SplitConfig
from tzrec.errors import DataError, DistributedError
from tzrec.features.mask import SAMPLE_MASK

_MASK_STREAM = 2
_DRAW_STREAM = 3
_WAIT_SECONDS = 0.2
_LINGER_SECONDS = 1.0


@dataclass(frozen=True)
class PassSettings:
    """How the rows of a pass become batches.

    Attributes:
        config: batch size, ranks, seed.
        epoch: number of the pass.
        is_bounded: the pass has an end.
        mask_prob: probability of a row to be masked, 0 = no masks.
        cost_field: column with the cost of a row, where batches are cut by cost.
    """

    config: SplitConfig
    epoch: int = 0
    is_bounded: bool = False
    mask_prob: float = 0.0
    cost_field: str = ""


class StreamBatches:
    """Cuts the rows of this rank's partitions into batches, as many as on every other rank.

    Full batches are waited for; only the last one of a bounded pass may be shorter. What is drawn
    for a batch depends on its first row, so a run that goes on draws the same.

    Args:
        rows: of this rank's partitions.
        reader: names rows in errors.
        ranks: tells what the other ranks have.
        settings: how rows become batches.
        wants_stop: whether the pass is to end now; asked all the time.

    Attributes:
        is_over: no further batch comes.
        was_stopped: it ended because a rank wanted to.
        num_left: rows at the end that are too few for a batch on each rank and were in none.
    """

    def __init__(
        self,
        rows: StreamRows,
        reader: KafkaReader,
        *,
        ranks: Ranks,
        settings: PassSettings,
        wants_stop: Callable[[], bool],
    ) -> None:
        self._rows = rows
        self._reader = reader
        self._ranks = ranks
        self._settings = settings
        self._wants_stop = wants_stop
        self._patience = _WAIT_SECONDS
        self._held: RawBatch | None = None
        self._said = False
        self._closing = False
        self.is_over = False
        self.was_stopped = False
        self.num_left = 0

    def burst(self) -> Iterator[RawBatch]:
        """Yields batches until none is there for the moment, or the pass is over."""
        while not self.is_over:
            found = self._round()
            if found is not None:
                # A last row or two that are not enough for all ranks go into this one.
                if self._ranks.world_size > 1 and self._settings.is_bounded:
                    found, self._held = self._held, found
                if found is not None:
                    yield self._drawn_for(found)
            elif not self.is_over and self._patience == _WAIT_SECONDS:
                return
        if self._held is not None:
            held, self._held = self._held, None
            yield self._drawn_for(held)

    def leave(self, *, failed: bool) -> None:
        """Tells the other ranks that this one ends the pass, unless all have."""
        if self._said:
            return
        self._said = self.is_over = True
        with contextlib.suppress(DistributedError):  # they may be gone
            self._ranks.states(State.FAILED if failed else State.CLOSED, self._is_closing)

    def close(self) -> None:
        """Says that nobody wants batches any more."""
        self._closing = True

    def _is_closing(self) -> bool:
        return self._closing

    def _round(self) -> RawBatch | None:
        """Returns the next batch, if every rank gets one."""
        state = self._state()
        states = self._ranks.states(state, self._is_closing)
        if State.FAILED in states:
            self._end()
            raise DistributedError(
                f"rank {states.index(State.FAILED)} cannot read its part of the stream",
                hint="its own output tells why",
            )
        if any(each in LEAVING for each in states):
            self._end(was_stopped=State.INTERRUPTED in states)
            return None
        if all(each is State.ENDED for each in states):
            self._end()
            return None
        ready = states.count(State.READY)
        if State.PENDING in states or not ready:
            self._patience = _WAIT_SECONDS
            return None
        self._patience = 0.0 if state is State.IDLE else _LINGER_SECONDS
        if ready == len(states):
            return self._rows.cut(self._num_cut(self._settings.config.batch_size))
        return self._share(states)

    def _end(self, *, was_stopped: bool = False) -> None:
        self._said = self.is_over = True
        self.was_stopped = was_stopped

    def _state(self) -> State:
        if self._closing:
            return State.CLOSED
        if self._wants_stop():
            return State.INTERRUPTED
        why = self._rows.fill(self._settings.config.batch_size, self._patience)
        if why is Nothing.PENDING:
            return State.PENDING
        if why is Nothing.IDLE:
            return State.IDLE
        if why is None:
            return State.READY
        enough = self._rows.num_rows and not self._settings.config.drop_remainder
        return State.READY if enough else State.ENDED

    def _share(self, states: list[State]) -> RawBatch | None:
        """Returns the next batch where some ranks have no rows of their own."""
        config, rank = self._settings.config, self._ranks.rank
        is_ready = states[rank] is State.READY
        wanted = config.batch_size
        if is_ready and not config.cost_limit:
            wanted *= -(-len(states) // states.count(State.READY))
            while self._rows.fill(wanted, _LINGER_SECONDS) is Nothing.PENDING:
                pass
        size = self._num_cut(wanted) if is_ready else 0
        sizes = self._ranks.gather(size, self._is_closing)
        moves = share(sizes, config.batch_size, whole=config.drop_remainder)
        if moves is None:
            return self._leftover(states, sizes)
        if not is_ready:
            return self._receive(moves)
        return self._give(moves, sizes[rank])

    def _give(self, moves: list[tuple[int, int, int]], size: int) -> RawBatch:
        mine = [(taker, rows) for giver, taker, rows in moves if giver == self._ranks.rank]
        given = sum(rows for _, rows in mine)
        own = min(size - given, self._settings.config.batch_size)
        batch = self._rows.cut(own + given)
        left_out = RawBatch(batch.columns[:0], batch.source[:0], batch.row[:0], batch.left_out)
        start = own
        for taker, rows in mine:
            self._ranks.send(_part(batch, start, start + rows), taker)
            start += rows
        # What others train on is counted here: this rank tells how far its partitions were read.
        return _part(batch, 0, own).after(_part(batch, own, start)).after(left_out)

    def _receive(self, moves: list[tuple[int, int, int]]) -> RawBatch:
        (giver,) = (giver for giver, taker, _ in moves if taker == self._ranks.rank)
        return self._ranks.receive(giver)

    def _leftover(self, states: list[State], sizes: list[int]) -> RawBatch | None:
        if State.IDLE in states:
            self._patience = _WAIT_SECONDS  # more rows may come
            return None
        self._end()
        mine = sizes[self._ranks.rank]
        if self._settings.config.drop_remainder:
            return None
        if self._held is None:
            self.num_left = sum(sizes)
        elif mine:
            self._held = joined(self._held, self._rows.cut(mine))
        return None

    def _num_cut(self, wanted: int) -> int:
        """Returns how many of the first rows make a batch."""
        limit, field = self._settings.config.cost_limit, self._settings.cost_field
        num_rows = min(wanted, self._rows.num_rows)
        if not limit or not num_rows:
            return num_rows
        rows = self._rows.peek(num_rows)
        costs, bad = cost_numbers(rows.columns.column(field))
        for index in np.flatnonzero(bad).tolist():
            source, code = int(rows.source[index]), int(rows.code[index])
            error = DataError(
                f"{self._reader.place(source, code)}: sample_cost_field {field!r} is null, "
                "negative or not finite"
            )
            self._reader.bad_rows.add(source, code, error)
        return cut_by_cost(costs, limit, wanted)[1]

    def _drawn_for(self, batch: RawBatch) -> RawBatch:
        """Returns the batch with what its draws depend on, and its mask."""
        settings = self._settings
        seed = (settings.config.seed, settings.epoch)
        first = (int(batch.source[0]), int(batch.row[0]))
        columns = batch.columns
        if settings.mask_prob:
            random = np.random.default_rng((*seed, _MASK_STREAM, *first))
            mask = random.random(batch.num_rows) < settings.mask_prob
            columns = columns.append_column(SAMPLE_MASK, pa.array(mask))
        return replace(batch, columns=columns, stream=(*seed, _DRAW_STREAM, *first))


def _part(batch: RawBatch, start: int, stop: int) -> RawBatch:
    columns = batch.columns.slice(start, stop - start)
    return RawBatch(columns, batch.source[start:stop], batch.row[start:stop])
