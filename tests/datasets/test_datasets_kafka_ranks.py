"""Several ranks: the same number of batches on each, every row on one, whatever partitions hold."""

from __future__ import annotations

import json
import multiprocessing
import random
import threading
from collections import Counter, deque

import pytest
import torch.distributed as dist
from kafka_broker import payload
from kafka_streams import T0, fill, ids, loader, rows, stored

from tzrec.constant import Mode
from tzrec.datasets.kafka import loader as kafka_loader
from tzrec.datasets.kafka.together import Ranks, State, share
from tzrec.datasets.position import DataPosition
from tzrec.errors import DataError, DistributedError

WHOLE = {"end_offset": "latest", "auto_offset_reset": "earliest"}


class Room:
    """Where threads stand for ranks."""

    def __init__(self, world_size):
        self.world_size = world_size
        self.barrier = threading.Barrier(world_size, timeout=30)
        self.said = [0] * world_size
        self.sent = {(a, b): deque() for a in range(world_size) for b in range(world_size)}
        self.num_shared = 0


class ThreadRanks(Ranks):
    room: Room

    def __init__(self, rank, world_size):
        self.rank, self.world_size = rank, world_size

    def gather(self, mine, is_closing):
        self.room.said[self.rank] = int(mine)
        self.room.barrier.wait()
        found = list(self.room.said)
        self.room.barrier.wait()
        return found

    def send(self, batch, rank):
        self.room.num_shared += batch.num_rows
        self.room.sent[self.rank, rank].append(batch)

    def receive(self, rank):
        while not self.room.sent[rank, self.rank]:
            pass
        return self.room.sent[rank, self.rank].popleft()


@pytest.fixture
def room(monkeypatch):
    def make(world_size):
        ThreadRanks.room = Room(world_size)
        monkeypatch.setattr(kafka_loader, "Ranks", ThreadRanks)
        return ThreadRanks.room

    return make


def of_ranks(path, world_size, *, mode=Mode.TRAIN, position=None, steps=None, **options):
    """(ids of each batch, position) of every rank; after some steps all leave."""
    found = [None] * world_size
    errors = []

    def run(rank):
        try:
            own = DataPosition()
            with loader(path, mode, rank=rank, world_size=world_size, **options) as made:
                if position is not None:
                    made.resume(position)
                batches, seen = iter(made), []
                for batch in batches:
                    own.add(batch.checkpoint_info)
                    seen.append(ids(batch))
                    if len(seen) == steps:
                        break
                batches.close()
                found[rank] = seen, own
        except BaseException as error:
            errors.append((rank, error))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0][1]
    assert None not in found
    return found


def merged(found):
    position = DataPosition()
    for _, own in found:
        position.merge(own)
    return stored(position)


def all_ids(found):
    return sorted(row for batches, _ in found for batch in batches for row in batch)


@pytest.mark.parametrize("seed", range(8))
def test_any_rows_in_any_partitions_on_any_ranks(brokers, topic, room, seed):
    """And stopped after some steps, on another number of ranks from there."""
    rng = random.Random(seed)
    partitions, world_size = rng.randint(1, 4), rng.randint(2, 4)
    name = topic(partitions)
    messages, number = [], 0
    weights = [rng.random() ** 3 for _ in range(partitions)]
    for turn in range(rng.randint(5, 40)):
        size = rng.randint(0, 12)
        (where,) = rng.choices(range(partitions), weights)
        messages.append((where, payload(rows(number, size)), T0 + 1000 * turn))
        number += size
    messages.append((0, payload(rows(number, 20)), T0))
    number += 20
    brokers.send(name, *messages)
    path, batch_size = brokers.uri(name, **WHOLE), rng.choice([1, 2, 7])
    room(world_size)
    whole = of_ranks(path, world_size, batch_size=batch_size)
    counts = {len(batches) for batches, _ in whole}
    assert len(counts) == 1
    assert all_ids(whole) == list(range(number))
    # The last ones may have a few more rows, so that none is left over.
    sizes = [len(batch) for batches, _ in whole for batch in batches]
    assert min(sizes) >= 1
    assert max(sizes) <= batch_size + world_size - 1
    # One after another, in other worlds.
    seen, position, some = Counter(), None, 0
    for turn in range(3):
        world_size = rng.randint(1, 4)
        room(world_size)
        steps = rng.randint(1, 4) if turn < 2 else None
        found = of_ranks(path, world_size, position=position, steps=steps, batch_size=batch_size)
        seen.update(all_ids(found))
        some += min(len(batches) for batches, _ in found)
        before = position or DataPosition()
        position = merged(found)
        position.merge(before)
    assert set(seen.values()) == {1}
    left = number - len(seen)
    assert left < world_size  # too few for a batch each, said by a warning


def test_a_restart_on_as_many_ranks_is_the_same_to_the_batch(brokers, topic, room):
    name = topic(3)
    fill(brokers, name, [5, 9, 2, 14] * 8, partitions=3)
    fill(brokers, name, [10] * 6, first=1000)  # more for rank 0: it shares
    path = brokers.uri(name, **WHOLE)
    room(2)
    whole = of_ranks(path, 2)
    assert ThreadRanks.room.num_shared
    for steps in (1, 9, len(whole[0][0]) - 1):
        room(2)
        part = of_ranks(path, 2, steps=steps)
        room(2)
        rest = of_ranks(path, 2, position=merged(part))
        for rank in range(2):
            assert part[rank][0] + rest[rank][0] == whole[rank][0]


def test_evaluation_on_ranks_counts_every_row(brokers, topic, room):
    name = topic(2)
    number = fill(brokers, name, [3, 50, 1, 2, 1], partitions=2)
    room(3)
    found = of_ranks(brokers.uri(name), 3, mode=Mode.EVAL)
    assert all_ids(found) == list(range(number))


def test_ranks_without_a_partition_get_rows(brokers, topic, room, caplog):
    name = topic(1)
    number = fill(brokers, name, [24] * 4)
    room(3)
    found = of_ranks(brokers.uri(name, **WHOLE), 3)
    assert all_ids(found) == list(range(number))
    # Not by halves of one batch: each has a full one.
    assert [[len(batch) for batch in batches] for batches, _ in found] == [[8] * 4] * 3
    assert "1 partitions for 3 processes" in caplog.text


def test_a_quiet_partition_holds_nobody_up(brokers, topic, room):
    """Without an end: rank 1 has too little for a batch, and more may come for it."""
    name = topic(2)
    brokers.send(name, (1, payload(rows(900, 3)), T0))
    fill(brokers, name, [20] * 4)
    room(2)
    found = of_ranks(brokers.uri(name, auto_offset_reset="earliest"), 2, steps=5)
    assert [len(batches) for batches, _ in found] == [5, 5]
    assert all_ids(found) == list(range(80))
    # Its own rows still come first when it has a batch of them.
    assert f"{name}:1" in merged(found).marks
    assert merged(found).marks[f"{name}:1"] == (0, 0)


def test_an_interrupt_ends_all_after_the_same_batch(brokers, topic, room):
    name = topic(2)
    fill(brokers, name, [8] * 6, partitions=2)
    room(2)
    found, stopped = [None, None], []

    def run(rank):
        path = brokers.uri(name, auto_offset_reset="earliest")
        with loader(path, rank=rank, world_size=2) as made:
            made.on_stopped = lambda: stopped.append(rank)
            told = threading.Event()
            made.wants_stop = told.is_set
            seen = []
            for batch in made:
                seen.append(ids(batch))
                if rank and len(seen) == 3:
                    told.set()
            found[rank] = seen

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(stopped) == [0, 1]
    assert len(found[0]) == len(found[1]) == 3


def test_a_rank_that_cannot_read_ends_all(brokers, topic, room):
    name = topic(2)
    fill(brokers, name, [8] * 6, partitions=2)
    brokers.send(name, (1, b"junk", T0 + 10**6))
    room(2)
    path, errors = brokers.uri(name, **WHOLE), {}

    def run(rank):
        try:
            with loader(path, rank=rank, world_size=2) as made:
                list(made)
        except Exception as error:
            errors[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert isinstance(errors[1], DataError)
    assert isinstance(errors[0], DistributedError)
    assert "rank 1 cannot read its part of the stream" in str(errors[0])


def test_bad_rows_on_one_rank_leave_the_numbers_equal(brokers, topic, room):
    name = topic(2)
    fill(brokers, name, [8] * 8, partitions=2)
    bad = rows(1000, 8).drop_columns(["price"])
    brokers.send(name, (1, payload(bad), T0 + 2500))
    room(2)
    found = of_ranks(brokers.uri(name, **WHOLE), 2, max_bad_rows=8)
    assert len({len(batches) for batches, _ in found}) == 1
    assert all_ids(found) == list(range(64))


def test_full_batches_only(brokers, topic, room):
    name = topic(2)
    fill(brokers, name, [8, 8, 8, 8, 8, 3], partitions=2)
    fill(brokers, name, [40], first=500)
    room(2)
    found = of_ranks(brokers.uri(name, **WHOLE), 2, drop_remainder=True)
    assert [[len(batch) for batch in batches] for batches, _ in found] == [[8] * 5, [8] * 5]


def test_too_few_rows(brokers, topic, room):
    name = topic(2)
    fill(brokers, name, [1])
    room(2)
    with pytest.raises(DataError, match="1 rows cannot be divided over 2 processes"):
        of_ranks(brokers.uri(name, **WHOLE), 2)


@pytest.mark.parametrize(
    ("sizes", "whole", "expected"),
    [
        ([8, 8], False, []),
        ([8, 0], False, [(0, 1, 4)]),
        ([16, 0], False, [(0, 1, 8)]),
        ([24, 0, 0], False, [(0, 1, 8), (0, 2, 8)]),
        ([3, 9, 0, 0], False, [(1, 2, 4), (1, 3, 2)]),
        ([1, 0], False, None),
        ([0, 0], False, None),
        ([2, 0, 0], False, None),
        ([15, 0], True, None),
        ([16, 0], True, [(0, 1, 8)]),
    ],
)
def test_who_gives_to_whom(sizes, whole, expected):
    assert share(sizes, 8, whole=whole) == expected


def _gloo(rank, folder, path, rows_path):
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    number = []
    with loader(path, rank=rank, world_size=2) as made:
        for turn in range(2):  # a pass that is left early, and a whole one
            made.set_epoch(turn)
            seen = []
            for batch in made:
                seen += ids(batch)
                if not turn:
                    break
            del batch
            number.append(seen)
    rows_path.write_text(f"{number}")
    ranks = Ranks(rank, 2)
    assert ranks.states(State.IDLE if rank else State.READY, lambda: False) == [0, 2]
    dist.barrier()
    if rank == 1:
        dist.destroy_process_group()
        return  # without a word
    with pytest.raises(DistributedError, match="another rank does not answer"):
        ranks.gather(1, lambda: True)
    with pytest.raises(DistributedError, match="the ranks have lost each other"):
        ranks.gather(1, lambda: False)


def test_processes_under_gloo(brokers, topic, tmp_path):
    name = topic(2)
    number = fill(brokers, name, [30, 5, 1, 20, 4] * 3, partitions=2)
    context = multiprocessing.get_context("spawn")
    files = [tmp_path / f"{rank}" for rank in range(2)]
    path = brokers.uri(name, **WHOLE)
    ranks = [
        context.Process(target=_gloo, args=(rank, tmp_path, path, files[rank])) for rank in range(2)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(150)
        assert process.exitcode == 0
    found = [json.loads(file.read_text()) for file in files]
    assert sorted(row for _, seen in found for row in seen) == list(range(number))
    assert all(0 < len(seen) <= 8 for seen, _ in found)
