"""The engine with a fake servable: merging, bounds, deadlines, faults."""

import asyncio
import threading
import time

import numpy as np
import pyarrow as pa
import pytest
from serve_fakes import FakeServable, Recorder, asleep, columns_of, running, tasks_of

from tzrec.errors import ConfigError, DataError
from tzrec.serving.engine import Engine
from tzrec.serving.faults import DeadlineExceeded, NotReady, Overloaded
from tzrec.serving.options import ServeOptions, default_threads


async def started(servable):
    """Waits until a model call has begun."""
    assert await asyncio.to_thread(servable.started.acquire, timeout=10)


async def blocked(engine, servable, x=7.0):
    """Returns a request whose model call runs until the gate opens."""
    task = asyncio.create_task(engine.predict(columns_of(x), rows=1))
    await started(servable)
    return task


def test_a_request_is_answered_by_a_version(tmp_path):
    servable = FakeServable("v7")
    with running(tmp_path, servable) as engine:
        scored = asyncio.run(engine.predict(columns_of(1.0, 2.5), rows=2))
    assert scored.version == "v7"
    assert scored.outputs["y"].tolist() == [2.0, 5.0]
    assert scored.outputs["pair"].tolist() == [[1.0, -1.0], [2.5, -2.5]]
    assert servable.is_warm


def test_requests_that_wait_are_merged_and_get_their_own_rows(tmp_path):
    servable = FakeServable(gate=threading.Event())
    recorder = Recorder()

    async def ask(engine):
        first = await blocked(engine, servable)
        others = await asleep(tasks_of(engine, [1.0], [2.0, 3.0], [4.0, 5.0, 6.0]))
        servable.gate.set()
        return await asyncio.gather(first, *others)

    with running(tmp_path, servable, recorder, max_batch_rows=6) as engine:
        answers = asyncio.run(ask(engine))
    assert [a.outputs["y"].tolist() for a in answers] == [[14], [2], [4, 6], [8, 10, 12]]
    assert answers[3].outputs["pair"].tolist() == [[4, -4], [5, -5], [6, -6]]
    assert servable.calls == [1, 6]
    assert recorder.batches == [(1, 1), (3, 6)]


@pytest.mark.parametrize(("most", "calls"), [(3, [1, 3, 3]), (5, [1, 3, 3]), (2, [1, 1, 2, 2, 1])])
def test_a_batch_has_at_most_so_many_rows(tmp_path, most, calls):
    servable = FakeServable(gate=threading.Event())

    async def ask(engine):
        first = await blocked(engine, servable)
        others = await asleep(tasks_of(engine, [1.0], [2.0, 3.0], [4.0, 5.0, 6.0]))
        servable.gate.set()
        return await asyncio.gather(first, *others)

    with running(tmp_path, servable, max_batch_rows=most) as engine:
        answers = asyncio.run(ask(engine))
    assert [a.outputs["y"].tolist() for a in answers] == [[14], [2], [4, 6], [8, 10, 12]]
    assert servable.calls == calls


def test_columns_of_other_names_or_types_are_not_merged(tmp_path):
    servable = FakeServable(gate=threading.Event())
    requests = [
        columns_of(1.0),
        columns_of(2, kind=pa.int64()),
        columns_of(3, kind=pa.int64()),
        columns_of(4, kind=pa.int64()) | {"z": pa.array(["a"])},
    ]

    async def ask(engine):
        first = await blocked(engine, servable)
        others = await asleep(
            [asyncio.create_task(engine.predict(one, rows=1)) for one in requests]
        )
        servable.gate.set()
        return await asyncio.gather(first, *others)

    with running(tmp_path, servable) as engine:
        answers = asyncio.run(ask(engine))
    assert [a.outputs["y"].tolist() for a in answers] == [[14], [2], [4], [6], [8]]
    assert servable.calls == [1, 1, 2, 1]


def test_a_bad_request_fails_alone(tmp_path):
    servable = FakeServable(gate=threading.Event())

    async def ask(engine):
        first = await blocked(engine, servable)
        others = await asleep(tasks_of(engine, [1.0], [2.0, -3.0], [4.0]))
        servable.gate.set()
        return await asyncio.gather(first, *others, return_exceptions=True)

    with running(tmp_path, servable) as engine:
        answers = asyncio.run(ask(engine))
    assert isinstance(answers[2], DataError)
    assert str(answers[2]) == "row 1 is negative"  # its own row, not that of the batch
    assert [answers[i].outputs["y"].tolist() for i in (1, 3)] == [[2], [8]]
    assert servable.calls == [1, 4, 1, 2, 1]


def test_a_large_request_goes_in_slices_between_which_others_come(tmp_path):
    servable = FakeServable(gate=threading.Event())
    values = np.arange(10.0)

    async def ask(engine):
        large = asyncio.create_task(engine.predict({"x": pa.array(values)}, rows=10))
        await started(servable)
        small = await asleep(tasks_of(engine, [100.0]))
        servable.gate.set()
        return await large, await small[0]

    with running(tmp_path, servable, max_batch_rows=4) as engine:
        large, small = asyncio.run(ask(engine))
    np.testing.assert_array_equal(large.outputs["y"], values * 2)
    np.testing.assert_array_equal(large.outputs["pair"], np.stack([values, -values], 1))
    assert small.outputs["y"].tolist() == [200.0]
    assert servable.calls[0] == 4
    assert 1 in servable.calls[1:3]  # the small one did not wait for the end of the large one
    assert max(servable.calls) <= 4


def test_a_bad_row_of_a_large_request_says_in_which_slice_it_is(tmp_path):
    values = pa.array([1.0] * 9 + [-1.0])
    with (
        running(tmp_path, FakeServable(), max_batch_rows=4) as engine,
        pytest.raises(DataError, match="rows 8 to 9: row 1 is negative"),
    ):
        asyncio.run(engine.predict({"x": values}, rows=10))


def test_an_observer_that_fails_ends_no_thread(tmp_path, caplog):
    class Failing(Recorder):
        def on_batch(self, **_):
            raise OSError("no space left on device")

    with running(tmp_path, FakeServable(), Failing(), request_timeout=5) as engine:
        for _ in range(2):
            scored = asyncio.run(engine.predict(columns_of(1.0), rows=1))
            assert scored.outputs["y"].tolist() == [2.0]


class Scalar(FakeServable):
    """Also gives one number for all rows, as a loss would be."""

    def predict(self, columns):
        return super().predict(columns) | {"mean": np.array(columns["x"].to_numpy().mean())}


def test_a_model_without_one_entry_a_row_is_asked_request_by_request(tmp_path):
    servable = Scalar(gate=threading.Event())

    async def ask(engine):
        first = await blocked(engine, servable)
        others = await asleep(tasks_of(engine, [1.0], [2.0, 4.0], [5.0] * 7))
        servable.gate.set()
        return await asyncio.gather(first, *others)

    with running(tmp_path, servable, max_batch_rows=4) as engine:
        answers = asyncio.run(ask(engine))
    assert [float(a.outputs["mean"]) for a in answers] == [7, 1, 3, 5]
    assert [len(a.outputs["y"]) for a in answers] == [1, 1, 2, 7]


def test_waiting_for_company(tmp_path):
    """With a free thread a request waits only if it is told to."""

    async def ask(engine):
        first = asyncio.create_task(engine.predict(columns_of(1.0), rows=1))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(engine.predict(columns_of(2.0), rows=1))
        return await asyncio.gather(first, second)

    for wait, calls in ((0, [1, 1]), (2000, [2])):
        servable = FakeServable()
        began = time.monotonic()
        with running(tmp_path, servable, max_wait_ms=wait, max_batch_rows=2, threads=2) as engine:
            answers = asyncio.run(ask(engine))
        assert [a.outputs["y"].tolist() for a in answers] == [[2], [4]]
        assert servable.calls == calls
        assert time.monotonic() - began < 1.5  # a full batch does not wait any longer


def test_nobody_waits_longer_than_told(tmp_path):
    servable = FakeServable()
    with running(tmp_path, servable, max_wait_ms=100) as engine:
        began = time.monotonic()
        asyncio.run(engine.predict(columns_of(1.0), rows=1))
        waited = time.monotonic() - began
    assert 0.09 < waited < 0.6


def test_a_full_queue_refuses_at_once(tmp_path):
    servable = FakeServable(gate=threading.Event())
    recorder = Recorder()

    async def ask(engine):
        first = await blocked(engine, servable)
        fits = await asleep(tasks_of(engine, [1.0] * 5, [2.0] * 4))
        began = time.monotonic()
        with pytest.raises(Overloaded) as refused:
            await engine.predict(columns_of(1.0, 2.0), rows=2)
        assert time.monotonic() - began < 0.2
        assert engine.state().queued_rows == 9
        fits += await asleep(tasks_of(engine, [3.0]))
        servable.gate.set()
        answers = await asyncio.gather(first, *fits)
        return refused.value, answers

    with running(tmp_path, servable, recorder, max_queue_rows=10) as engine:
        refused, answers = asyncio.run(ask(engine))
        assert engine.state().queued_rows == 0
    assert "9 rows wait; at most 10 may" in str(refused)
    assert (refused.status, refused.code) == (429, "overloaded")
    assert refused.retry_after >= 1
    assert [len(a.outputs["y"]) for a in answers] == [1, 5, 4, 1]
    assert recorder.faults == ["overloaded"]


def test_a_request_larger_than_the_queue_is_taken_when_nothing_waits(tmp_path):
    with running(tmp_path, FakeServable(), max_queue_rows=2) as engine:
        scored = asyncio.run(engine.predict(columns_of(*range(5)), rows=5))
    assert scored.outputs["y"].tolist() == [0, 2, 4, 6, 8]


def test_what_cannot_be_in_time_is_refused_at_once(tmp_path):
    """Batches took 0.15 s a row, and so many rows wait that the next would come too late."""
    servable = FakeServable()
    slow = threading.Event()

    async def ask(engine):
        for _ in range(2):
            await engine.call(time.sleep, 0.15)
        blocker = asyncio.create_task(engine.call(slow.wait, 10))
        await asyncio.sleep(0.1)
        waiting = await asleep(tasks_of(engine, [1.0] * 20))
        with pytest.raises(Overloaded, match="rows that wait need") as refused:
            await engine.predict(columns_of(1.0), rows=1)
        slow.set()
        await asyncio.gather(blocker, *waiting)
        return refused.value

    with running(tmp_path, servable, request_timeout=1.5) as engine:
        refused = asyncio.run(ask(engine))
    assert 2 <= refused.retry_after <= 4


def test_a_deadline_while_the_model_runs_and_while_waiting(tmp_path):
    servable = FakeServable(gate=threading.Event())
    recorder = Recorder()

    async def ask(engine):
        began = time.monotonic()
        running_one = await blocked(engine, servable)
        waiting = tasks_of(engine, [1.0])
        answers = await asyncio.gather(running_one, *waiting, return_exceptions=True)
        assert 0.25 < time.monotonic() - began < 2
        servable.gate.set()
        late = await engine.predict(columns_of(5.0), rows=1)
        return answers, late

    with running(tmp_path, servable, recorder, request_timeout=0.3) as engine:
        answers, late = asyncio.run(ask(engine))
    assert [type(a) for a in answers] == [DeadlineExceeded, DeadlineExceeded]
    assert answers[0].status == 504
    assert late.outputs["y"].tolist() == [10.0]
    # What nobody waits for any more is not run.
    assert servable.calls == [1, 1]
    assert recorder.faults == ["deadline_exceeded"] * 2


def test_a_client_that_goes_costs_no_model_call(tmp_path):
    servable = FakeServable(gate=threading.Event())

    async def ask(engine):
        first = await blocked(engine, servable)
        gone = await asleep(tasks_of(engine, [1.0, 1.0]))
        gone[0].cancel()
        stays = await asleep(tasks_of(engine, [2.0]))
        servable.gate.set()
        await asyncio.gather(first, *stays)
        assert gone[0].cancelled()

    with running(tmp_path, servable) as engine:
        asyncio.run(ask(engine))
        assert engine.state().queued_rows == 0
    assert servable.calls == [1, 1]


def test_call_runs_on_a_model_thread(tmp_path):
    def where(prefix, number):
        return prefix, number, threading.current_thread().name

    with running(tmp_path, FakeServable()) as engine:
        assert asyncio.run(engine.call(where, "a", 3)) == ("a", 3, "model-0")
        with pytest.raises(ZeroDivisionError):
            asyncio.run(engine.call(lambda: 1 // 0))
        assert asyncio.run(engine.call(lambda: None)) is None


@pytest.mark.parametrize("threads", [1, 3])
def test_model_calls_at_a_time(tmp_path, threads):
    servable = FakeServable(gate=threading.Event())

    async def ask(engine):
        tasks = [
            asyncio.create_task(engine.call(servable.predict, columns_of(1.0))) for _ in range(4)
        ]
        for _ in range(threads):
            await started(servable)
        await asyncio.sleep(0.1)
        assert len(servable.calls) == threads
        servable.gate.set()
        await asyncio.gather(*tasks)

    with running(tmp_path, servable, threads=threads) as engine:
        asyncio.run(ask(engine))
    assert len(servable.calls) == 4


def test_a_stuck_call_makes_the_engine_not_ready(tmp_path):
    servable = FakeServable(gate=threading.Event())

    async def ask(engine):
        task = await blocked(engine, servable)
        assert engine.state().is_ready
        assert not engine.is_stuck
        await asyncio.sleep(0.4)
        assert engine.is_stuck
        state = engine.state()
        assert not state.is_ready
        assert "has been running for" in state.reason
        servable.gate.set()
        await task
        await asyncio.sleep(0.05)
        assert engine.state().is_ready

    with running(tmp_path, servable, watchdog_seconds=0.3) as engine:
        asyncio.run(ask(engine))


def test_not_ready_before_the_model_is_loaded(tmp_path):
    may_load = threading.Event()

    def load(directory, *, version):
        assert may_load.wait(10)
        return FakeServable()

    engine = Engine(tmp_path, ServeOptions(), load=load)
    engine.start()
    assert not engine.state().is_ready
    assert engine.state().reason == "the model is being loaded"
    assert engine.state().version == ""
    with pytest.raises(NotReady, match="being loaded"):
        asyncio.run(engine.predict(columns_of(1.0), rows=1))
    with pytest.raises(NotReady, match="not loaded within"):
        engine.wait(0.05)
    may_load.set()
    engine.wait(10)
    assert engine.state().is_ready
    assert engine.state().version == "v1"
    engine.close()


def test_a_model_that_cannot_be_loaded(tmp_path):
    def load(directory, *, version):
        raise DataError("the golden batch differs")

    engine = Engine(tmp_path, ServeOptions(), load=load)
    engine.start()
    with pytest.raises(DataError, match="golden batch differs"):
        engine.wait(10)
    assert not engine.state().is_ready
    engine.close()


def test_draining_and_closing(tmp_path):
    servable = FakeServable(gate=threading.Event())

    async def ask(engine):
        first = await blocked(engine, servable)
        engine.drain()
        assert engine.state().reason == "the server is going"
        late = await asleep(tasks_of(engine, [3.0]))  # still taken
        closing = asyncio.create_task(asyncio.to_thread(engine.close, 10))
        with pytest.raises(NotReady, match="going"):
            await late[0]
        with pytest.raises(NotReady, match="going"):
            await engine.predict(columns_of(1.0), rows=1)
        servable.gate.set()
        await closing
        return await first

    with running(tmp_path, servable) as engine:
        assert asyncio.run(ask(engine)).outputs["y"].tolist() == [14.0]


def test_many_requests_at_once_each_get_their_own_answer(tmp_path):
    """Random sizes and clients, several threads, faulty ones among them."""
    rng = np.random.default_rng(3)
    requests = [rng.integers(0, 1000, rng.integers(1, 30)).astype(float) for _ in range(400)]
    for i in range(0, 400, 40):
        requests[i][-1] = -1

    async def one(engine, values):
        await asyncio.sleep(float(rng.random()) / 50)
        return await engine.predict({"x": pa.array(values)}, rows=len(values))

    async def ask(engine):
        return await asyncio.gather(
            *(one(engine, values) for values in requests), return_exceptions=True
        )

    servable = FakeServable()
    with running(tmp_path, servable, threads=3, max_batch_rows=64) as engine:
        answers = asyncio.run(ask(engine))
    for values, answer in zip(requests, answers, strict=True):
        if values[-1] == -1:
            assert isinstance(answer, DataError)
        else:
            np.testing.assert_array_equal(answer.outputs["y"], values * 2)
    assert max(servable.calls) <= 64
    assert len(servable.calls) < 400  # some were merged


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"workers": 0}, "workers 0: must be at least 1"),
        ({"port": -1}, "port -1: must be at least 0"),
        ({"port": 70000}, "port 70000: must be at most 65535"),
        ({"max_wait_ms": -0.1}, "max_wait_ms -0.1: must be at least 0"),
        ({"request_timeout": 0}, "request_timeout 0: must be above 0"),
        ({"request_timeout": float("nan")}, "request_timeout nan: must be above 0"),
        ({"drain_seconds": float("inf")}, "drain_seconds inf: must be at most 1000000"),
        ({"reload_seconds": 1e7}, "reload_seconds 10000000.0: must be at most"),
        ({"watchdog_seconds": float("inf")}, "watchdog_seconds inf: must be at most"),
        ({"request_timeout": float("inf")}, "request_timeout inf: must be at most"),
        ({"max_wait_ms": float("inf")}, "max_wait_ms inf: must be a number of milliseconds"),
        ({"token": "a\nb"}, "no HTTP header"),
    ],
)
def test_options_that_cannot_be(wrong, message):
    with pytest.raises(ConfigError, match=message):
        ServeOptions(**wrong)


def test_a_request_of_two_calls_has_one_end(tmp_path):
    """The second call gets what the first one left of the time."""

    async def ask(engine):
        end = engine.end()
        began = time.monotonic()
        await engine.call(time.sleep, 0.3, end=end)
        with pytest.raises(DeadlineExceeded):
            await engine.call(time.sleep, 5, end=end)
        late = engine.predict(columns_of(1.0), rows=1, end=end)
        with pytest.raises(DeadlineExceeded):
            await late
        return time.monotonic() - began

    with running(tmp_path, FakeServable(), request_timeout=0.5, threads=2) as engine:
        assert 0.45 < asyncio.run(ask(engine)) < 2


def test_options_are_not_shown_with_the_token():
    assert "s3cret" not in repr(ServeOptions(token="s3cret"))


def test_threads_share_the_cores(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 12)
    assert [default_threads(workers) for workers in (1, 2, 5, 100)] == [8, 6, 2, 1]
