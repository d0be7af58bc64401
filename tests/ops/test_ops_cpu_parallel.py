"""Several tables at a time: every item once, and the bits of one thread."""

import threading
import time

import numpy as np
import pytest
import torch
from ops_tables import bag_collection, row_collection

from tzrec.batch import KeyedJaggedTensor
from tzrec.errors import DataError
from tzrec.ops.cpu import parallel
from tzrec.ops.cpu.collections import CpuEmbeddingBagCollection, CpuEmbeddingCollection
from tzrec.ops.cpu.parallel import for_each
from tzrec.ops.cpu.rule import UpdateRule
from tzrec.ops.cpu.table import RowTable


@pytest.fixture
def threads():
    """Sets how many threads torch has, until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def always(monkeypatch):
    monkeypatch.setattr(parallel, "_LEAST", 0)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
@pytest.mark.parametrize("number", [1, 2, 5])
def test_every_item_once(always, threads, number, count):
    threads(number)
    rng = np.random.default_rng(count)
    done = []
    for_each(done.append, range(count), rng.integers(0, 5, count).tolist())
    assert sorted(done) == list(range(count))


def test_shares_are_of_one_size_and_of_neighbours(always, threads):
    threads(2)
    shares = {}
    for_each(
        lambda i: shares.setdefault(threading.get_ident(), []).append(i), range(5), [1] * 4 + [4]
    )
    assert sorted(shares.values()) == [[0, 1, 2, 3], [4]]


def test_little_work_stays_in_this_thread(threads):
    threads(2)
    seen = set()
    for_each(lambda _: seen.add(threading.get_ident()), range(4), [1000] * 4)
    assert seen == {threading.get_ident()}


def test_items_of_any_number_share_the_threads(always, threads):
    before = {thread.ident for thread in threading.enumerate()}
    threads(4)
    for count in (2, 3, 4, 9):
        for_each(lambda _: time.sleep(0.01), range(count), [1] * count)
    assert len({thread.ident for thread in threading.enumerate()} - before) <= 3


@pytest.mark.parametrize(("all_rows", "moving"), [(False, 2), (True, 7)])
def test_the_size_of_an_update_is_that_of_the_rows_that_move(all_rows, moving):
    weight = torch.nn.Parameter(torch.zeros(7, 3))
    table = RowTable("t", weight, UpdateRule("sgd", 0.1, embedding_l2=1.0, all_rows=all_rows))
    table.load_pending(np.array([1, 5]), np.ones((2, 3), np.float32))
    assert table.num_moving == moving


def test_the_first_problem_is_raised_when_all_threads_have_ended(always, threads):
    threads(3)
    done = []

    def work(item):
        if item in (1, 5):
            raise DataError(f"item {item}")
        done.append(item)

    with pytest.raises(DataError, match="item 1"):
        for_each(work, range(6), [1] * 6)
    assert sorted(done) == [0, 2, 3, 4]


def test_ids_that_are_no_rows_are_named_from_any_thread(always, threads):
    threads(2)
    collection = CpuEmbeddingBagCollection(bag_collection())
    ids = torch.tensor([0, 99, 0])
    with pytest.raises(DataError, match="feature b holds the id 99"):
        collection(KeyedJaggedTensor(["a", "b", "c"], ids, lengths=torch.ones(3).int()))


@pytest.mark.parametrize("pooled", [True, False])
def test_training_gives_the_bits_of_one_thread(always, threads, pooled):
    def train(number):
        threads(number)
        rule = UpdateRule("adagrad", 0.1)
        make = CpuEmbeddingBagCollection if pooled else CpuEmbeddingCollection
        collection = make(bag_collection(dim=8) if pooled else row_collection(), rule)
        generator = torch.Generator().manual_seed(3)
        for _ in range(5):
            lengths = torch.randint(0, 4, (3 * 40,), generator=generator)
            ids = torch.randint(0, 12, (int(lengths.sum()),), generator=generator)
            output = collection(KeyedJaggedTensor(["c", "b", "a"], ids, lengths=lengths))
            values = [output.values()] if pooled else [jt.values() for jt in output.values()]
            upstream = [torch.randn(v.shape, generator=generator) for v in values]
            torch.autograd.backward(values, upstream)
            collection.tables.apply()
        return [*values, *collection.parameters()]

    for one, two in zip(train(1), train(2), strict=True):
        assert torch.equal(one, two)
