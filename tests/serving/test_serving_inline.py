"""``--threads 0``: the model runs in the event loop."""

import asyncio
import threading
import time

import pytest
from serve_fakes import FakeServable, Recorder, asleep, columns_of, running, tasks_of

from tzrec.errors import DataError
from tzrec.serving.faults import DeadlineExceeded, NotReady, Overloaded


def test_the_model_runs_in_the_thread_of_the_loop(tmp_path):
    with running(tmp_path, FakeServable(), threads=0) as engine:
        found = asyncio.run(engine.call(threading.get_ident))
        scored = asyncio.run(engine.predict(columns_of(1.0, 2.5), rows=2))
    assert found == threading.get_ident()
    assert scored.outputs["y"].tolist() == [2.0, 5.0]


@pytest.mark.parametrize(("most", "calls"), [(6, [6]), (3, [3, 3]), (2, [1, 2, 2, 1])])
def test_what_comes_together_is_merged(tmp_path, most, calls):
    servable, recorder = FakeServable(), Recorder()

    async def ask(engine):
        return await asyncio.gather(*tasks_of(engine, [1.0], [2.0, 3.0], [4.0, 5.0, 6.0]))

    with running(tmp_path, servable, recorder, threads=0, max_batch_rows=most) as engine:
        answers = asyncio.run(ask(engine))
    assert [a.outputs["y"].tolist() for a in answers] == [[2], [4, 6], [8, 10, 12]]
    assert servable.calls == calls


def test_a_bad_request_fails_alone(tmp_path):
    async def ask(engine):
        tasks = tasks_of(engine, [1.0], [2.0, -3.0], [4.0])
        return await asyncio.gather(*tasks, return_exceptions=True)

    with running(tmp_path, FakeServable(), threads=0) as engine:
        answers = asyncio.run(ask(engine))
    assert isinstance(answers[1], DataError)
    assert [answers[i].outputs["y"].tolist() for i in (0, 2)] == [[2], [8]]


def test_waiting_for_company(tmp_path):
    servable = FakeServable()

    async def ask(engine):
        first = tasks_of(engine, [1.0])
        await asyncio.sleep(0.1)
        assert not first[0].done()
        return await asyncio.gather(*first, *tasks_of(engine, [2.0]))

    with running(tmp_path, servable, threads=0, max_wait_ms=400) as engine:
        started = time.monotonic()
        asyncio.run(ask(engine))
        assert 0.35 < time.monotonic() - started < 5
    assert servable.calls == [2]


def test_nobody_waits_for_an_answer_that_is_too_late(tmp_path):
    servable = FakeServable()

    async def ask(engine):
        slow = asyncio.create_task(engine.call(time.sleep, 0.3))
        late = await asleep(tasks_of(engine, [1.0]))
        return await asyncio.gather(slow, *late, return_exceptions=True)

    with running(tmp_path, servable, threads=0, request_timeout=0.1) as engine:
        answers = asyncio.run(ask(engine))
    assert isinstance(answers[1], DeadlineExceeded)
    assert servable.calls == []


def test_a_full_queue_refuses_at_once(tmp_path):
    async def ask(engine):
        tasks = tasks_of(engine, [1.0, 2.0], [3.0, 4.0], [5.0])
        return await asyncio.gather(*tasks, return_exceptions=True)

    with running(tmp_path, FakeServable(), threads=0, max_queue_rows=3) as engine:
        answers = asyncio.run(ask(engine))
    assert isinstance(answers[1], Overloaded)
    assert [answers[i].outputs["y"].tolist() for i in (0, 2)] == [[2, 4], [10]]


def test_closing_refuses_what_waits(tmp_path):
    async def ask(engine):
        tasks = await asleep(tasks_of(engine, [1.0]))
        engine.close()
        return await asyncio.gather(*tasks, return_exceptions=True)

    with running(tmp_path, FakeServable(), threads=0, max_wait_ms=60_000) as engine:
        answers = asyncio.run(ask(engine))
    assert isinstance(answers[0], NotReady)


def test_a_full_batch_does_not_wait_for_company(tmp_path):
    servable = FakeServable()

    async def ask(engine):
        return await asyncio.gather(*tasks_of(engine, [1.0], [2.0, 3.0]))

    with running(tmp_path, servable, threads=0, max_wait_ms=60_000, max_batch_rows=3) as engine:
        asyncio.run(asyncio.wait_for(ask(engine), 5))
    assert servable.calls == [3]


def test_a_loop_that_ended_does_not_hold_the_next_one(tmp_path):
    async def give_up(engine):
        (task,) = await asleep(tasks_of(engine, [1.0]))
        task.cancel()

    with running(tmp_path, FakeServable(), threads=0, max_wait_ms=100) as engine:
        asyncio.run(give_up(engine))
        scored = asyncio.run(asyncio.wait_for(engine.predict(columns_of(2.0), rows=1), 5))
    assert scored.outputs["y"].tolist() == [4.0]
