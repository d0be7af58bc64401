"""What ranks tell each other beside tensors: two processes of one gloo group."""

import multiprocessing
import traceback

import pytest
import torch
import torch.distributed as dist

from tzrec.errors import DataError, DistributedError
from tzrec.training import peers


def work(rank, store, results, job):
    try:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
        results.put((rank, globals()[job](rank)))
    except Exception:
        results.put((rank, traceback.format_exc()))
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def votes(rank):
    """Rank 1 sets its flag in its second call; everybody learns it in the third."""
    vote = peers.Vote()
    cast = [vote.cast(rank == 1 and i == 1) for i in range(3)]
    together = vote.any_of(rank == 0), vote.any_of(False)
    vote.close()
    last = peers.Vote()
    last.cast(True)
    last.close()  # nobody asks for the result
    sums = peers.sum_over_ranks(rank + 1), peers.any_rank(rank == 1), peers.any_rank(False)
    return cast, together, sums


def failure(rank):
    """Rank 1 fails between two collectives."""
    dist.barrier()  # connects them
    if rank == 1:
        error = DataError("row 7 is bad", hint="mend it")
        assert peers.failure_behind(error) is None
        peers.announce_failure(error)
        return "announced"
    try:
        dist.all_reduce(torch.zeros(1))
    except RuntimeError as error:
        found = peers.failure_behind(error)
        peers.announce_failure(found)  # the first message stays
        return type(found).__name__, str(found), peers.failure_behind(RuntimeError("other"))
    return None


@pytest.fixture
def two_ranks(tmp_path):
    def run(job):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["test_training_peers"])
        results = context.Queue()
        ranks = [
            context.Process(target=work, args=(rank, tmp_path / "store", results, job))
            for rank in range(2)
        ]
        for rank in ranks:
            rank.start()
        found = dict(results.get(timeout=60) for _ in ranks)
        for rank in ranks:
            rank.join(timeout=10)
        return found

    return run


def test_a_flag_of_one_rank_reaches_all(two_ranks):
    found = two_ranks("votes")
    expected = [False, False, True], (True, False), (3, True, False)
    assert found == {0: expected, 1: expected}


def test_the_failure_of_one_rank_is_known_to_the_other(two_ranks):
    found = two_ranks("failure")
    assert found[1] == "announced"
    assert found[0] == ("DistributedError", "another rank has ended: rank 1: row 7 is bad", None)


def test_one_process_has_no_peers():
    assert peers.num_ranks() == 1
    assert peers.sum_over_ranks(3) == 3
    assert peers.any_rank(True)
    assert not peers.any_rank(False)
    assert peers.failure_behind(RuntimeError("gloo: Connection closed by peer")) is None
    peers.announce_failure(RuntimeError("nobody listens"))


def test_an_end_without_a_word(monkeypatch):
    monkeypatch.setattr(peers, "num_ranks", lambda: 2)
    monkeypatch.setattr(peers, "_store", lambda: dist.HashStore())
    error = peers.failure_behind(
        RuntimeError("[gloo/pair.cc:553] Connection closed by peer\nsecond line")
    )
    assert isinstance(error, DistributedError)
    assert "another rank does not answer: [gloo/pair.cc:553] Connection closed" in str(error)
    assert "second line" not in str(error)
