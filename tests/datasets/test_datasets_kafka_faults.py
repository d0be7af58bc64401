"""Brokers that are away, come back, move, forget: nothing lost, nothing twice, or it is said."""

import logging
import threading
import time

import pytest
from kafka_broker import Cluster, payload
from kafka_streams import T0, fill, ids, loader, read, rows

from tzrec.datasets.kafka import poller
from tzrec.datasets.kafka.client import Client, Message
from tzrec.datasets.kafka.partition import Range
from tzrec.datasets.kafka.poller import Nothing, Poller
from tzrec.datasets.kafka.ranges import find_ranges
from tzrec.datasets.position import DataPosition, StreamMark
from tzrec.errors import ConfigError, DataError

EARLIEST = {"auto_offset_reset": "earliest"}
WHOLE = {"end_offset": "latest", **EARLIEST}
COLUMNS = "id:BIGINT;price:FLOAT;label:BIGINT"
FAST = {"reconnect_backoff_max_ms": 200, "reconnect_backoff_ms": 50}


@pytest.fixture(scope="module")
def cluster():
    """Brokers that tests may end."""
    made = Cluster(3)
    yield made
    made.close()


@pytest.fixture
def quick(monkeypatch):
    """Looks at the brokers often."""
    monkeypatch.setattr(poller, "_LOOK_SECONDS", 0.3)


def test_no_broker_answers():
    began = time.monotonic()
    with pytest.raises(DataError) as caught:
        loader("kafka://127.0.0.1:1/t?group.id=g&wait.timeout.ms=1000")
    assert time.monotonic() - began < 10
    assert "kafka://127.0.0.1:1/t: no broker tells partitions within 1 s" in str(caught.value)
    assert "Connection refused" in caught.value.message


def test_an_unknown_topic_suggests_one(cluster):
    cluster.create("purchases", 1)
    with pytest.raises(DataError, match="there is no topic 'purchase'; did you mean 'purchases'"):
        loader(cluster.uri("purchase"))


@pytest.mark.parametrize("which", [(), (1,)])
def test_brokers_go_and_come_back(cluster, which, quick, caplog):
    """All of them, and one of three; the run waits and reads on."""
    name = f"restart.{len(which)}"
    cluster.create(name, 3)
    number = fill(cluster, name, [4] * 30, partitions=3)
    seen = []
    with caplog.at_level(logging.WARNING), loader(cluster.uri(name, **EARLIEST, **FAST)) as made:
        batches = iter(made)
        seen += ids(next(batches))
        cluster.set_down(*which)

        def restore():
            time.sleep(1.0)
            cluster.set_up(*which)
            fill(cluster, name, [4] * 6, partitions=3, first=number)

        thread = threading.Thread(target=restore)
        thread.start()
        while len(seen) < number + 24:
            seen += ids(next(batches))
        thread.join()
    assert sorted(seen) == list(range(number + 24))
    # What librdkafka says many times a second is told once.
    refused = [r for r in caplog.records if "Connection refused" in r.getMessage()]
    assert len(refused) <= 1


def test_brokers_that_stay_away_end_the_run(cluster, quick):
    name = "gone"
    cluster.create(name, 2)
    fill(cluster, name, [8] * 2, partitions=2)
    path = cluster.uri(name, **EARLIEST, **FAST, wait_timeout_ms=1500)
    try:
        with loader(path) as made:
            batches = iter(made)
            next(batches), next(batches)
            cluster.set_down()
            began = time.monotonic()
            with pytest.raises(DataError) as caught:
                next(batches)
        assert 1 < time.monotonic() - began < 20
        assert f"{name}:" in caught.value.message
        assert "no broker has sent anything for" in caught.value.message
        assert "--continue" in caught.value.hint
    finally:
        cluster.set_up()


def test_a_partition_moves_to_another_broker(cluster):
    name = "moves"
    cluster.create(name, 1)
    number = fill(cluster, name, [4] * 50)
    seen = []
    with loader(cluster.uri(name, **WHOLE, **FAST), batch_size=10) as made:
        for turn, batch in enumerate(made):
            seen += ids(batch)
            cluster.set_leader(name, 0, 1 + turn % 3)
    assert seen == list(range(number))


def test_other_members_of_the_group_change_nothing(cluster, caplog):
    """They rebalance among themselves; partitions of a run are its own."""
    name = "rebalance"
    cluster.create(name, 2)
    number = fill(cluster, name, [4] * 20, partitions=2)
    others = [cluster.consumer("shared", **{"auto.offset.reset": "earliest"}) for _ in range(2)]
    seen = []
    with loader(cluster.uri(name, group="shared", **WHOLE)) as made:
        for turn, batch in enumerate(made):
            seen += ids(batch)
            if turn < 2:
                others[turn].subscribe([name])
                others[turn].consume(2, 1.5)
    assert seen == list(range(number))
    for other in others:
        other.close()


def test_a_commit_that_fails_is_a_warning(cluster, caplog, quick):
    name = "no.commit"
    cluster.create(name, 1)
    fill(cluster, name, [8] * 3)
    with caplog.at_level(logging.WARNING), loader(cluster.uri(name, **WHOLE)) as made:
        kafka = made.reader.client._kafka
        error = kafka.KafkaError(kafka.KafkaError.UNKNOWN_MEMBER_ID)
        batches = iter(made)
        made.reader.client._committed(error, [])
        assert len(list(batches)) == 3
    (record,) = [r for r in caplog.records if "were not committed" in r.getMessage()]
    assert "The checkpoint has them" in record.getMessage()


@pytest.mark.parametrize(("reset", "expected"), [("earliest", [12, 16]), ("latest", None)])
def test_messages_dropped_before_a_run_goes_on(cluster, reset, expected):
    name = f"dropped.{reset}"
    cluster.create(name, 1)
    fill(cluster, name, [4] * 5)
    position = DataPosition.of_offsets({f"{name}:0": 0})
    cluster.delete_before(name, 0, 3)
    with pytest.raises(DataError) as caught:
        read(cluster.uri(name, end_offset="latest"), position=position)
    assert f"{name}:0: the run goes on at offset 1, but 3 … 5 are there" in caught.value.message
    assert "2 messages are lost" in caught.value.message
    more = read(
        cluster.uri(name, end_offset="latest", auto_offset_reset=reset),
        position=position,
        batch_size=4,
    )
    assert [batch[0] for batch in more] == (expected or [])


def test_a_topic_that_was_made_anew(cluster):
    cluster.create("anew", 1)
    fill(cluster, "anew", [4])
    position = DataPosition.of_offsets({"anew:0": 7})
    with pytest.raises(DataError, match="it was made anew"):
        read(cluster.uri("anew", end_offset="latest"), position=position)


def test_messages_dropped_while_they_are_read(cluster, monkeypatch):
    """The offset asked for is gone when the brokers are asked."""
    name = "dropped.meanwhile"
    cluster.create(name, 1)
    fill(cluster, name, [4] * 5)
    real = Client.bounds
    monkeypatch.setattr(Client, "bounds", lambda *a, **k: (0, real(*a, **k)[1]))
    cluster.delete_before(name, 0, 3)
    with pytest.raises(DataError, match=f"{name}:0: offset 0 is not there"):
        read(cluster.uri(name, **WHOLE), input_fields_str=COLUMNS)


def test_a_position_of_other_sources_is_told(cluster, caplog):
    cluster.create("mine", 1)
    fill(cluster, "mine", [4])
    position = DataPosition.of_offsets({"theirs:0": 7})
    with caplog.at_level(logging.WARNING):
        assert read(cluster.uri("mine", **WHOLE), position=position) == [[0, 1, 2, 3]]
    assert "knows 1 source(s) that are not in" in caplog.text


def test_a_setting_that_the_reader_makes_itself(cluster, caplog):
    cluster.create("auto", 1)
    fill(cluster, "auto", [4])
    with caplog.at_level(logging.WARNING):
        read(cluster.uri("auto", enable_auto_commit="true", **WHOLE))
    assert "enable.auto.commit=true has no effect" in caplog.text
    assert cluster.committed("auto") == [-1001]


def test_a_message_larger_than_the_buffers(cluster):
    name = "large"
    cluster.create(name, 1)
    number = fill(cluster, name, [30000, 3])
    found = read(cluster.uri(name, **WHOLE, fetch_message_max_bytes=1000), batch_size=20000)
    assert [row for batch in found for row in batch] == list(range(number))


class Script:
    """Stands for a client whose brokers do what a test says."""

    def __init__(self, uri, *turns, partitions=1):
        self.uri, self.partitions = uri, partitions
        self.turns = list(turns)
        self.calls = []
        self.last_error = "a broker said so"

    def take(self, limit, timeout):
        self.calls.append(("take", limit))
        time.sleep(0.01)
        return self.turns.pop(0) if self.turns else []

    def bounds(self, partition, *, patient=True):
        return 0, 10

    def current_partitions(self):
        return self.partitions

    def __getattr__(self, name):
        return lambda *arguments: self.calls.append((name, *arguments))


@pytest.fixture
def uri(cluster):
    from tzrec.config.kafka_uri import KafkaUri

    return KafkaUri.parse(cluster.uri("t", max_poll_interval_ms=250))


def polled(client, ranges, **more):
    made = Poller(client, ranges, **more)
    made.start(1)
    return made


def test_new_partitions_are_read_from_their_beginning(uri, quick):
    client = Script(uri, [Message(0, 4, 1, b"x"), Message(0, 5, error="_PARTITION_EOF")])
    adopted = []

    def adopt(known, number):
        adopted.append((known, number))
        return [2]

    made = polled(client, {0: Range(StreamMark(4))}, adopt=adopt)
    assert made.next(5).offset == 4
    assert made.next(0.2) is Nothing.IDLE
    client.partitions = 3
    end = time.monotonic() + 5
    while ("add", {2: 0}) not in client.calls and time.monotonic() < end:
        time.sleep(0.01)
    client.turns.append([Message(2, 0, 1, b"y")])
    assert made.next(5) == Message(2, 0, 1, b"y")
    assert made.new_partitions() == {2: StreamMark(0)}
    assert made.new_partitions() == {}
    assert adopted == [(1, 3)]
    made.close()


def test_brokers_hear_of_a_client_that_has_enough(uri, monkeypatch):
    """At 80 % of max.poll.interval.ms, one message at most."""
    monkeypatch.setattr(poller, "_HELD_BYTES", 4)
    client = Script(uri, [Message(0, 0, 1, b"12345678")])
    made = polled(client, {0: Range(StreamMark(0))})
    time.sleep(0.3)
    client.calls.clear()
    began, end = time.monotonic(), time.monotonic() + 20
    while client.calls.count(("take", 1)) < 4 and time.monotonic() < end:
        time.sleep(0.01)
    takes = [call for call in client.calls if call[0] == "take"]
    assert takes == [("take", 1)] * 4
    # Three pauses of 0.25 s · 0.8 at least, of max.poll.interval.ms.
    assert time.monotonic() - began > 0.6
    made.close()


@pytest.mark.parametrize("name", ["TOPIC_AUTHORIZATION_FAILED", "UNKNOWN_TOPIC_OR_PART"])
def test_answers_that_no_patience_mends(uri, name):
    made = polled(Script(uri, [Message(0, -1, error=name, text="no")]), {0: Range(StreamMark(0))})
    with pytest.raises(DataError, match=f"t:0: {name}: no"):
        made.next(5)
    made.close()


def test_a_fatal_client_and_other_events(uri, caplog):
    first = Message(-1, -1, error="_TRANSPORT", text="hm")
    last = Message(-1, -1, error="_X", fatal=True)
    made = polled(Script(uri, [first, last]), {0: Range(StreamMark(0))})
    with pytest.raises(DataError, match="_X"):
        made.next(5)
    assert "_TRANSPORT: hm" in caplog.text
    made.close()


def test_a_broker_that_answers_but_sends_nothing(uri, quick):
    import dataclasses

    uri = dataclasses.replace(uri, wait_seconds=1.0)
    made = polled(Script(uri), {0: Range(StreamMark(0))})
    with pytest.raises(DataError, match=r"no broker has sent anything for .* 10 messages are to"):
        made.next(20)
    made.close()


def test_messages_that_come_twice_are_taken_once(uri):
    """After a pause a fetch may begin earlier."""
    client = Script(uri, [Message(0, n, n, b"x") for n in (3, 4, 4, 3, 5)])
    made = polled(client, {0: Range(StreamMark(3), stop=6)})
    assert [made.next(5).offset for _ in range(3)] == [3, 4, 5]
    assert made.next(5) is Nothing.END
    made.close()


def test_an_end_where_a_message_is_missing(uri):
    """Transactions and compaction leave offsets without a message."""
    client = Script(uri, [Message(0, 3, 3, b"x"), Message(0, 9, error="_PARTITION_EOF")])
    made = polled(client, {0: Range(StreamMark(3), stop=9)})
    assert made.next(5).offset == 3
    assert made.next(5) is Nothing.END
    made.close()


def test_an_end_by_the_clock(uri, quick):
    client = Script(uri, [Message(0, 3, 3, b"x"), Message(0, 4, error="_PARTITION_EOF")])
    until = int(time.time() * 1000) + 2000
    made = polled(client, {0: Range(StreamMark(3), until_ms=until)})
    assert made.next(5).offset == 3
    assert made.next(0.05) is Nothing.IDLE
    end = time.monotonic() + 10
    while (found := made.next(0.1)) is Nothing.IDLE and time.monotonic() < end:
        pass
    assert found is Nothing.END
    assert time.time() * 1000 > until
    made.close()


def test_ranges_of_a_new_partition(cluster):
    name = "grown"
    cluster.create(name, 2)
    fill(cluster, name, [2] * 6, partitions=2)
    from tzrec.config.kafka_uri import KafkaUri

    client = Client(KafkaUri.parse(cluster.uri(name)))
    marks = {f"{name}:0": StreamMark(2, 1)}
    found = find_ranges(client, [0, 1], marks, learns=True)
    assert found == {0: Range(StreamMark(2, 1), high=3), 1: Range(StreamMark(0), high=3)}
    client.close()


def test_a_message_without_declared_types(cluster):
    from tzrec.datasets.kafka.reader import KafkaReader

    cluster.create("untyped", 1)
    cluster.send("untyped", (0, payload(rows(0, 2)), T0))
    with pytest.raises(ConfigError, match="column 'id' has no input_type"):
        KafkaReader(cluster.uri("untyped"), ["id"], fields={"id": None})
