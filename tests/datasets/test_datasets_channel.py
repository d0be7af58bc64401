from __future__ import annotations

import threading
import time

import pytest

from tzrec.datasets.channel import Channel, Closed


def test_channel_is_bounded_in_items_and_bytes():
    channel: Channel[int] = Channel(max_items=3, max_bytes=10)
    state = []

    def produce() -> None:
        for item, size in [(0, 50), (1, 4), (2, 6), (3, 1), (4, 1)]:
            channel.put(item, size)
            state.append(item)
        channel.end()

    thread = threading.Thread(target=produce)
    thread.start()

    def settled() -> list[int]:
        time.sleep(0.05)
        return list(state)

    assert settled() == [0]  # larger than the limit, but alone
    assert channel.get() == 0
    assert settled() == [0, 1, 2]
    assert [channel.get() for _ in range(5)] == [1, 2, 3, 4, None]
    thread.join()


def test_channel_passes_errors_and_closing():
    channel: Channel[int] = Channel(2, 10)
    channel.put(1, 1)
    channel.end(ValueError("x"))
    assert channel.get() == 1
    with pytest.raises(ValueError, match="x"):
        channel.get()
    assert channel.get() is None
    channel.close()
    with pytest.raises(Closed):
        channel.put(2, 1)
