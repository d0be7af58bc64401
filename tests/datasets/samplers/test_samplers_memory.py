"""Tables in shared memory: pickling, other processes, and what is left when one is killed."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sampler_tables import KINDS, draw, make_sampler, write_items

from tzrec.datasets.samplers.memory import SharedArrays
from tzrec.errors import DistributedError

needs_memfd = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs memfd_create")


def memory_files(token):
    """Processes that have memory of this name open or mapped."""
    found = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            if f"tzrec-sampler-{token}" in maps.read_text():
                found.add(int(maps.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_pickled_samplers_draw_the_same(graph, kind):
    sampler = make_sampler(graph, kind, with_log_q=True, num_sample=50)
    copy = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(sampler))))
    for seed in range(3):
        wanted, found = (draw(s, [1, 2, 3], [0, 1, 2], seed=seed) for s in (sampler, copy))
        assert wanted.columns == found.columns
        np.testing.assert_array_equal(wanted.positive_log_q, found.positive_log_q)
    assert copy.arrays["items.keys"] is not sampler.arrays["items.keys"]


@needs_memfd
def test_a_pickle_does_not_hold_the_tables(tmp_path):
    write_items(tmp_path / "items.txt", {i: i + 1 for i in range(10_000)})
    sampler = make_sampler(tmp_path)
    assert sampler.arrays.nbytes > 200_000
    assert len(pickle.dumps(sampler)) < 2000


def test_a_sampler_pickles_before_it_is_built(graph):
    sampler = make_sampler(graph, build=False)
    copy = pickle.loads(pickle.dumps(sampler))
    copy.build()
    sampler.build()
    assert draw(copy, [1]).columns == draw(sampler, [1]).columns


@needs_memfd
def test_handle_and_attach(graph):
    """What ranks of a host do."""
    first = make_sampler(graph, "hard_negative_sampler_v2")
    second = make_sampler(graph, "hard_negative_sampler_v2", build=False)
    second.attach(pickle.loads(pickle.dumps(first.handle())))
    assert draw(second, [1], [2]).columns == draw(first, [1], [2]).columns
    second.build()  # has its tables
    assert second.handle() == first.handle()


@needs_memfd
def test_building_twice_reads_once(graph):
    sampler = make_sampler(graph)
    arrays = sampler.arrays
    (graph / "items.txt").unlink()
    sampler.build()
    assert sampler.arrays is arrays


def test_tables_are_read_only(graph):
    sampler = make_sampler(graph)
    for arrays in (sampler.arrays, pickle.loads(pickle.dumps(sampler)).arrays):
        with pytest.raises(ValueError, match="read-only"):
            arrays["items.keys"][0] = 1


@needs_memfd
def test_memory_goes_with_its_last_user(graph):
    sampler = make_sampler(graph)
    token = sampler.handle().token
    descriptors = len(os.listdir("/proc/self/fd"))
    assert memory_files(token) == {os.getpid()}
    copy = pickle.loads(pickle.dumps(sampler))
    del sampler
    assert draw(copy, [1]).num_negatives == 6
    del copy
    assert memory_files(token) == set()
    assert len(os.listdir("/proc/self/fd")) < descriptors


def _draw_in_child(sampler, seed):
    return draw(sampler, [1, 2], [0, 2], seed=seed).columns


@needs_memfd
def test_worker_processes(graph):
    sampler = make_sampler(graph, "hard_negative_sampler_v2")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        found = [pool.submit(_draw_in_child, sampler, seed) for seed in range(4)]
        for seed, future in enumerate(found):
            assert future.result() == _draw_in_child(sampler, seed)


BUILDER = """
import pickle, sys, time
sys.path.insert(0, {here!r})
from pathlib import Path
from sampler_tables import make_sampler
sampler = make_sampler(Path({folder!r}), "hard_negative_sampler_v2")
sys.stdout.buffer.write(pickle.dumps(sampler).hex().encode() + b"\\n")
sys.stdout.buffer.flush()
time.sleep(600)
"""


@pytest.fixture
def builder(graph, tmp_path):
    """A process that has built a sampler, the pickled sampler, and its folder for files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    script = BUILDER.format(here=str(Path(__file__).parent), folder=str(graph))
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "TMPDIR": str(folder)},  # noqa: TID251
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process, bytes.fromhex(process.stdout.readline().decode()), folder
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@needs_memfd
def test_nothing_is_left_of_a_killed_process(graph, builder):
    process, pickled, folder = builder
    sampler = pickle.loads(pickled)
    token = sampler.handle().token
    assert memory_files(token) == {process.pid, os.getpid()}
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    # Who has the tables keeps them; nobody can get them any more.
    expected = make_sampler(graph, "hard_negative_sampler_v2")
    assert draw(sampler, [1, 2], [0, 2]).columns == draw(expected, [1, 2], [0, 2]).columns
    with pytest.raises(DistributedError, match=f"tables in process {process.pid}") as caught:
        pickle.loads(pickled)
    assert "must be alive" in caught.value.hint
    del sampler
    assert memory_files(token) == set()
    assert list(folder.iterdir()) == []
    assert [name for name in os.listdir("/dev/shm") if token in name] == []


@needs_memfd
def test_another_process_of_the_same_number(graph):
    """Its memory is not mistaken for the tables."""
    sampler = make_sampler(graph)
    other = make_sampler(graph)
    handle = sampler.handle()
    wrong = type(handle)(handle.pid, other.handle().token, handle.segments)
    with pytest.raises(DistributedError, match="is another file now"):
        sampler.attach(wrong)


def test_without_shared_memory(graph, monkeypatch):
    """Other systems: every process has tables of its own, and a pickle carries them."""
    monkeypatch.delattr(os, "memfd_create", raising=False)
    sampler = make_sampler(graph, "hard_negative_sampler_v2")
    assert sampler.handle() is None
    copy = pickle.loads(pickle.dumps(sampler))
    assert draw(copy, [1, 2], [0, 2]).columns == draw(sampler, [1, 2], [0, 2]).columns


def test_arrays_of_any_length():
    arrays = SharedArrays()
    for name, values in {"none": [], "one": [7], "many": range(10_000)}.items():
        arrays.put(name, np.array(values, dtype=np.int64))
    arrays.freeze()
    copy = pickle.loads(pickle.dumps(arrays))
    for name in ("none", "one", "many"):
        np.testing.assert_array_equal(copy[name], arrays[name])
    assert copy.nbytes == arrays.nbytes == 8 * 10_001
    assert "one" in copy
    assert "two" not in copy


def test_taken_rows_outlive_the_sampler(graph):
    """Columns of a batch are copies."""
    sampler = make_sampler(graph)
    columns = draw(sampler, [1]).columns
    wanted = {name: column.to_pylist() for name, column in columns.items()}
    del sampler
    assert {name: column.to_pylist() for name, column in columns.items()} == wanted
    assert all(isinstance(column, pa.Array) for column in columns.values())


@needs_memfd
def test_attaching_takes_no_time(tmp_path):
    write_items(tmp_path / "items.txt", {i: i + 1 for i in range(50_000)})
    sampler = make_sampler(tmp_path)
    data = pickle.dumps(sampler)
    best = min(_seconds(data) for _ in range(5))
    assert best < 0.05


def _seconds(data):
    began = time.perf_counter()
    pickle.loads(data)
    return time.perf_counter() - began
