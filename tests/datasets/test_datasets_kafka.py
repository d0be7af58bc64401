"""Reading a topic: every row once, in one order, from where to where."""

import math
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from datasets_fakes import DenseFake, IdFake
from kafka_broker import bare, payload
from kafka_streams import SECOND, T0, fill, ids, loader, read, rows, stored

from tzrec.constant import Mode
from tzrec.datasets.formats import create_reader, create_writer
from tzrec.datasets.kafka import client, poller
from tzrec.datasets.position import DataPosition
from tzrec.errors import ConfigError, DataError, FeatureError, MissingDependencyError, Unsupported
from tzrec.options import KafkaLookup

WHOLE = {"end_offset": "latest", "auto_offset_reset": "earliest"}
SIZES = [5, 1, 30, 8, 2, 7, 3, 11, 4]


def flat(batches):
    return [row for batch in batches for row in batch]


def test_every_row_once_in_the_order_of_time(brokers, topic):
    name = topic(3)
    number = fill(brokers, name, SIZES * 3, partitions=3)
    batches = read(brokers.uri(name, **WHOLE))
    assert flat(batches) == list(range(number))
    assert [len(batch) for batch in batches[:-1]] == [8] * (len(batches) - 1)
    assert len(batches[-1]) == number - 8 * (len(batches) - 1)


def test_a_pass_goes_on_after_each_batch(brokers, topic):
    """Also in the middle of a message, with another batch size, and with a new partition."""
    name = topic(2)
    number = fill(brokers, name, SIZES, partitions=2)
    path = brokers.uri(name, **WHOLE)
    position, seen, positions = DataPosition(), [], []
    with loader(path) as made:
        for batch in made:
            position.add(batch.checkpoint_info)
            seen += ids(batch)
            positions.append((len(seen), stored(position)))
    assert any(position.to_json()["rows"] for _, position in positions)
    for count, position in positions:
        rest = list(range(count, number))
        if count % 3 == 0 or count == number:
            assert flat(read(path, position=position)) == rest
        if count == 24:
            assert flat(read(path, position=position, batch_size=5)) == rest


def test_a_position_tells_the_last_whole_message(brokers, topic):
    name = topic()
    fill(brokers, name, [6, 4, 9])
    position = DataPosition()
    with loader(brokers.uri(name, **WHOLE)) as made:
        batch = next(iter(made))
    position.add(batch.checkpoint_info)
    found = position.to_json()
    assert (found["offsets"], found["rows"]) == ({f"{name}:0": 0}, {f"{name}:0": 2})
    assert str(position) == f"{name}:0 before offset 1"
    # Where each row came from.
    assert [batch.locate(row) for row in (0, 5, 6)] == [
        f"{name}:0:0: row 0 (counted from 0)",
        f"{name}:0:0: row 5 (counted from 0)",
        f"{name}:0:1: row 0 (counted from 0)",
    ]


def test_partitions_without_rows_so_far_are_known_to_a_position(brokers, topic):
    """They must not be read from their oldest message after a restart."""
    name = topic(2)
    brokers.send(name, (1, payload(rows(900, 5)), T0))
    position = DataPosition()
    path = brokers.uri(name, group="late")
    with loader(path, batch_size=2) as made:
        made.wants_stop = lambda: False
        batches = iter(made)
        brokers.send(name, (0, payload(rows(0, 2)), T0))
        position.add(next(batches).checkpoint_info)
    assert position.marks == {f"{name}:0": (1, 0), f"{name}:1": (1, 0)}
    brokers.send(name, (1, payload(rows(10, 2)), T0))
    bounded = brokers.uri(name, group="late", end_offset="latest")
    assert read(bounded, position=position, batch_size=2) == [[10, 11]]


@pytest.mark.parametrize("declared", ["", "id:BIGINT;price:FLOAT;label:BIGINT;"])
def test_forms_of_messages(brokers, topic, declared):
    """Streams of several batches, batches without a schema, nothing at all."""
    name = topic()
    table = pa.concat_tables([rows(0, 3), rows(3, 2)])
    assert len(table.to_batches()) == 2
    messages = [(0, payload(table), T0), (0, None, T0), (0, payload(rows(5, 0)), T0)]
    if declared:
        messages.append((0, bare(rows(5, 4).to_batches()[0]), T0))
    messages.append((0, payload(rows(9 if declared else 5, 4)), T0))
    brokers.send(name, *messages)
    found = read(brokers.uri(name, **WHOLE), input_fields_str=declared, batch_size=100)
    assert flat(found) == list(range(13 if declared else 9))


def test_a_batch_without_schema_needs_declared_columns(brokers, topic):
    name = topic()
    brokers.send(name, (0, bare(rows(0, 2).to_batches()[0]), T0))
    with pytest.raises(DataError, match=f"{name}:0:0: the message holds a record batch without"):
        read(brokers.uri(name, **WHOLE))
    with pytest.raises(DataError, match=f"{name}:0:0: .* is not of data_config.input_fields"):
        read(brokers.uri(name, **WHOLE), input_fields_str="id:BIGINT;price:STRING;label:BIGINT")


def test_columns_are_taken_by_name_and_cast(brokers, topic):
    name = topic()
    one = pa.table({"label": pa.array([1, 0], pa.int8()), "other": ["x", "y"],
                    "price": pa.array([1.5, 2.5]), "id": pa.array([7, 8], pa.int32())})  # fmt: skip
    brokers.send(name, (0, payload(rows(0, 2)), T0), (0, payload(one), T0))
    with loader(brokers.uri(name, **WHOLE), batch_size=4) as made:
        (batch,) = made
    assert ids(batch) == [0, 1, 7, 8]
    prices = batch.dense_features["__BASE__"].values().flatten().tolist()
    assert prices == [0.0, 1.0, 1.5, 2.5]


def test_a_topic_without_messages_does_not_tell_its_columns(brokers, topic):
    with pytest.raises(ConfigError, match="has no message yet") as caught:
        read(brokers.uri(topic(), **WHOLE))
    assert "input_fields" in caught.value.hint


def test_bad_messages_name_their_place(brokers, topic):
    name = topic()
    no_price = rows(2, 3).drop_columns(["price"])
    wrong = pa.table({"id": ["5", "x"], "price": [1.0, 2.0], "label": [0, 0]})
    brokers.send(
        name,
        (0, payload(rows(0, 2)), T0),
        (0, b"junk", T0),
        *[(0, payload(table), T0) for table in (no_price, wrong, rows(9, 2))],
    )
    path = brokers.uri(name, **WHOLE)
    for allowed, place in [
        (0, rf"{name}:0:1: the message is no Arrow IPC stream"),
        (1, rf"max_bad_rows: 1 .*{name}:0:2: column 'price' is not in the message"),
        (2, rf"{name}:0:3: row 1 \(counted from 0\): column 'id'"),
    ]:
        with pytest.raises(DataError, match=place):
            read(path, max_bad_rows=allowed)
    with loader(path, max_bad_rows=3) as made:
        (batch,) = made
        assert made.num_bad_rows == 3
    assert ids(batch) == [0, 1, 5, 9, 10]
    assert batch.checkpoint_info == {f"{name}:0": (5, 0)}


def test_a_bad_value_names_its_place(brokers, topic):
    name = topic()
    broken = rows(0, 3).set_column(1, "price", pa.array([1.0, None, 2.0], pa.float32()))
    brokers.send(name, (0, payload(rows(5, 2)), T0), (0, payload(broken), T0))
    with pytest.raises(FeatureError, match=rf"{name}:0:1: row 1 \(counted from 0\)"):
        read(brokers.uri(name, **WHOLE))
    assert read(brokers.uri(name, **WHOLE), max_bad_rows=1) == [[5, 6, 0, 2]]


def test_messages_left_out_do_not_hide_rows_before_them(brokers, topic):
    """A batch ends within a message, and the next message has no rows."""
    name = topic()
    brokers.send(name, (0, payload(rows(0, 5)), T0), (0, None, T0), (0, payload(rows(5, 5)), T0))
    path = brokers.uri(name, **WHOLE)
    position, seen = DataPosition(), []
    with loader(path, batch_size=4) as made:
        for batch in made:
            position.add(batch.checkpoint_info)
            seen += ids(batch)
            rest = read(path, position=stored(position), batch_size=4)
            assert seen + flat(rest) == list(range(10))


def test_where_training_begins(brokers, topic):
    name = topic(2)
    number = fill(brokers, name, [4] * 6, partitions=2)

    def begin(group, **more):
        with loader(brokers.uri(name, group=group, end_offset="latest", **more)) as made:
            return flat(ids(batch) for batch in made)

    # With an end and nothing committed: from the oldest. What was committed comes first.
    assert begin("new") == list(range(number))
    with loader(brokers.uri(name, group="some", end_offset="latest")) as made:
        batches = iter(made)
        made.commit(next(batches).checkpoint_info)
        batches.close()
    assert brokers.committed(name, "some", 2) == [1, 1]
    assert begin("some") == list(range(8, number))
    assert begin("some", auto_offset_reset="earliest") == list(range(8, number))
    with pytest.raises(DataError, match="has no row that can be used"):
        begin("none", auto_offset_reset="latest")
    with pytest.raises(DataError, match="the group 'none' has no offset to begin at"):
        begin("none", auto_offset_reset="error")
    # A further pass reads all again.
    assert flat(read(brokers.uri(name, group="some", end_offset="latest"), epoch=1)) == list(
        range(number)
    )


def test_evaluation_reads_what_is_there_whatever_was_committed(brokers, topic):
    name = topic()
    number = fill(brokers, name, [4] * 4)
    path = brokers.uri(name)
    consumer = brokers.consumer()
    from confluent_kafka import TopicPartition

    consumer.commit(offsets=[TopicPartition(name, 0, 2)], asynchronous=False)
    consumer.close()
    for mode in (Mode.EVAL, Mode.PREDICT):
        with loader(path, mode, eval_batch_size=5) as made:
            for _ in range(2):
                assert flat(ids(batch) for batch in made) == list(range(number))
            number += fill(brokers, name, [4], first=number)
            assert flat(ids(batch) for batch in made) == list(range(number))


class Times:
    """Stands for offsets_for_times, which the mock brokers do not have."""

    def __init__(self, monkeypatch, offsets, failures=0):
        self.asked, self.offsets, self.failures = [], offsets, failures
        real = client.kafka_module()

        class Consumer(real.Consumer):
            def offsets_for_times(consumer, places, timeout):
                return self.answer(real, places, timeout)

        class Module:
            def __getattr__(self, name):
                return Consumer if name == "Consumer" else getattr(real, name)

        monkeypatch.setattr(client, "kafka_module", Module)

    def answer(self, kafka, places, timeout):
        self.asked.append([(place.partition, place.offset, timeout) for place in places])
        if self.failures:
            self.failures -= 1
            raise kafka.KafkaException(kafka.KafkaError(kafka.KafkaError._TIMED_OUT))
        for place in places:
            place.offset = self.offsets[place.offset][place.partition]
        return places


def test_from_a_time_to_a_time(brokers, topic, monkeypatch):
    name = topic(2)
    fill(brokers, name, [4] * 10, partitions=2)
    start, end = T0 + 2 * SECOND, T0 + 6 * SECOND
    times = Times(monkeypatch, {start: [1, 1], end: [3, -1]})
    path = brokers.uri(name, start_timestamp_ms=start, end_timestamp_ms=end)
    assert flat(read(path)) == [*range(8, 24), *range(28, 32), *range(36, 40)]
    assert times.asked == [[(0, start, 30.0), (1, start, 30.0)], [(0, end, 30.0), (1, end, 30.0)]]
    # Nothing is that new: from the end on.
    Times(monkeypatch, {start: [-1, 4]})
    assert flat(read(brokers.uri(name, start_timestamp_ms=start, end_offset="latest"))) == [
        *range(36, 40)
    ]


def test_a_time_that_is_to_come_ends_with_the_first_message_of_it(brokers, topic, monkeypatch):
    name = topic()
    fill(brokers, name, [4] * 2)
    end = T0 + 10**12
    Times(monkeypatch, {end: [-1]})
    with loader(brokers.uri(name, end_timestamp_ms=end), batch_size=4) as made:
        batches = iter(made)
        assert [ids(next(batches)) for _ in range(2)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
        brokers.send(name, (0, payload(rows(8, 4)), end - 1), (0, payload(rows(12, 4)), end))
        assert [ids(batch) for batch in batches] == [[8, 9, 10, 11]]


def test_lookups_by_time_are_repeated(brokers, topic, monkeypatch):
    name = topic(3)
    fill(brokers, name, [4] * 6, partitions=3)
    lookup = KafkaLookup(batch_size=2, timeout=7.0, retries=1)
    monkeypatch.setattr("tzrec.datasets.kafka.ranges.kafka_lookup", lambda: lookup)
    times = Times(monkeypatch, {T0: [1, 1, 1]}, failures=1)
    path = brokers.uri(name, start_timestamp_ms=T0, end_offset="latest")
    assert flat(read(path)) == list(range(12, 24))
    assert [[place[0] for place in asked] for asked in times.asked] == [[0, 1], [0, 1], [2]]
    assert times.asked[0][0][2] == 7.0
    Times(monkeypatch, {T0: [1, 1, 1]}, failures=2)
    with pytest.raises(DataError, match=f"the offsets of time {T0} cannot be found"):
        read(path)


def test_the_time_of_a_batch(brokers, topic):
    name = topic()
    fill(brokers, name, [4, 4, 4])
    with loader(brokers.uri(name, **WHOLE)) as made:
        assert [batch.data_timestamp for batch in made] == [T0 / 1000 + 1, T0 / 1000 + 2]
    timed = rows(0, 2, when=pa.array([50, 70], pa.int64()))
    other = topic()
    brokers.send(other, (0, payload(timed), T0))
    with loader(brokers.uri(other, **WHOLE), event_time_field="when") as made:
        assert [batch.data_timestamp for batch in made] == [70.0]


def test_an_endless_stream_waits_for_full_batches_and_ends_when_told(brokers, topic):
    name = topic()
    with loader(
        brokers.uri(name), batch_size=4, input_fields_str="id:BIGINT;price:FLOAT;label:BIGINT"
    ) as made:
        told, stopped = [], []
        made.wants_stop = lambda: bool(told)
        made.on_stopped = lambda: stopped.append(True)
        batches = iter(made)
        fill(brokers, name, [3, 3])
        assert ids(next(batches)) == [0, 1, 2, 3]
        fill(brokers, name, [5], first=6)
        assert ids(next(batches)) == [4, 5, 6, 7]
        told.append(True)
        assert list(batches) == []
        assert stopped == [True]
        told.clear()
        # The row left over is read again by a pass that goes on.
        position = DataPosition.of_offsets({f"{name}:0": 1})
        made.resume(position)
        assert ids(next(iter(made))) == [6, 7, 8, 9]
    assert (made.num_rows, made.num_batches) == (None, None)


def test_leaving_a_pass_ends_its_threads(brokers, topic, nothing_left):
    name = topic()
    fill(brokers, name, [40])
    with loader(brokers.uri(name, auto_offset_reset="earliest")) as made:
        first = iter(made)
        next(first)
        # A new pass ends the one before.
        assert ids(next(iter(made))) == list(range(8))
        assert list(first) == []


def test_masks_and_workers_are_the_same_after_a_restart(brokers, topic, workers_as_threads):
    name = topic(2)
    fill(brokers, name, SIZES, partitions=2)
    path = brokers.uri(name, **WHOLE)
    options = {
        "features": (IdFake("id", use_mask=True), DenseFake("price")),
        "sample_mask_prob": 0.4,
    }
    position = DataPosition()
    with loader(path, **options) as made:
        batches = list(made)
    masked = [ids(batch) for batch in batches]
    assert 0 < len(flat(masked)) < sum(SIZES)
    for batch in batches[:4]:
        position.add(batch.checkpoint_info)
    assert read(path, position=stored(position), **options) == masked[4:]
    assert read(path, num_workers=2, loader="PROCESS", **options) == masked
    assert read(path, epoch=1, **options) != masked


def test_batches_by_cost(brokers, topic):
    name = topic()
    costs = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    table = rows(0, 10, cost=pa.array(costs, pa.int64()))
    brokers.send(name, (0, payload(table.slice(0, 7)), T0), (0, payload(table.slice(7)), T0))
    found = read(
        brokers.uri(name, **WHOLE), batch_cost_size=9, sample_cost_field="cost", batch_size=3
    )
    # By hand: as many rows as cost 9 together, three at most, one at least.
    assert found == [[0, 1, 2], [3, 4], [5], [6, 7], [8, 9]]


def test_only_full_batches(brokers, topic):
    name = topic()
    fill(brokers, name, [5, 5, 3])
    found = read(brokers.uri(name, **WHOLE), batch_size=6, drop_remainder=True)
    assert [len(batch) for batch in found] == [6, 6]


def test_little_is_held_ahead_and_nothing_is_lost_by_that(brokers, topic, monkeypatch):
    """A partition far ahead in time waits, paused, for one with much to catch up."""
    monkeypatch.setattr(poller, "_HELD_BYTES", 1 << 15)
    monkeypatch.setattr(poller, "_LEAST_BYTES", 1 << 13)
    monkeypatch.setattr(poller, "_AT_ONCE", 4)
    paused = []
    pause = client.Client.pause
    monkeypatch.setattr(
        client.Client, "pause", lambda c, parts: paused.extend(parts) or pause(c, parts)
    )
    name = topic(2)
    number = fill(brokers, name, [20] * 60)
    later = [(1, payload(rows(number + 20 * i, 20)), T0 + 10**6 + i) for i in range(60)]
    brokers.send(name, *later)
    held = []
    with loader(brokers.uri(name, **WHOLE), batch_size=50) as made:
        seen = []
        for batch in made:
            seen += ids(batch)
            held.append(made._poller._held_bytes)
    assert seen == list(range(2 * number))
    assert 1 in paused
    assert max(held) < 60 * len(later[0][1])


def test_shuffling_and_files_are_refused(brokers, topic):
    name = topic()
    fill(brokers, name, [3])
    with pytest.raises(Unsupported, match="a stream is read in its order"):
        loader(brokers.uri(name, **WHOLE), shuffle=True)
    reader = create_reader(brokers.uri(name, **WHOLE))
    assert reader.schema.names == ["id", "price", "label"]
    with pytest.raises(Unsupported, match="cannot be read by row number"):
        next(reader.to_batches())
    reader.client.close()
    with pytest.raises(ConfigError, match=r"'data/x' is no topic"):
        create_reader("data/x", reader_type="KafkaReader")
    with pytest.raises(Unsupported, match="KafkaWriter"):
        create_writer("out", "KafkaWriter")


def test_unknown_settings_are_named(brokers, topic):
    name = topic()
    fill(brokers, name, [3])
    with pytest.raises(ConfigError, match=r"did you mean 'start\.timestamp\.ms'"):
        loader(brokers.uri(name, start_timestamp="5"))
    with pytest.raises(ConfigError, match=r"session\.timeout\.ms"):
        loader(brokers.uri(name, session_timeout_ms="soon"))


def test_a_reserved_column_travels_with_a_prediction(brokers, topic):
    name = topic()
    brokers.send(name, (0, payload(rows(0, 3, more=pa.array(["a", "b", "c"]))), T0))
    from tzrec.datasets.dataset import create_dataloader
    from tzrec.protos.data_pb2 import DataConfig

    config = DataConfig(dataset_type="KafkaDataset", num_workers=0)
    everything = ["id", "price", "label", "more"]
    for reserved, names in [(["more"], ["more"]), (["ALL_COLUMNS"], everything)]:
        with create_dataloader(
            config, [IdFake("id")], brokers.uri(name), reserved, Mode.PREDICT
        ) as made:
            (batch,) = made
        kept = batch.reserves.get()
        assert kept.schema.names == names
        assert kept.column("more").to_pylist() == ["a", "b", "c"]


def test_lag(brokers, topic):
    name = topic(2)
    fill(brokers, name, [4] * 10, partitions=2)
    with loader(brokers.uri(name, **WHOLE)) as made:
        position = DataPosition()
        lags = []
        for batch in made:
            position.add(batch.checkpoint_info)
            lags.append(sum(made.lag(position.marks).values()))
    assert lags == [8, 6, 4, 2, 0]
    assert math.isfinite(np.mean(lags))


def test_the_producer_of_the_documentation(brokers):
    page = (Path(__file__).parents[2] / "docs" / "streaming.md").read_text()
    script = page.partition("```python\n")[2].partition("```")[0]
    brokers.create("clicks", 1)
    exec(compile(script.replace("broker1:9092", brokers.brokers), "streaming.md", "exec"), {})
    reader = create_reader(brokers.uri("clicks"))
    assert reader.schema.names == ["user_id", "item_id", "clk"]
    reader.client.close()
    with loader(
        brokers.uri("clicks", **WHOLE), features=[IdFake("user_id")], label_fields=["clk"]
    ) as made:
        (batch,) = made
    assert ids(batch) == [7, 8]


def test_without_the_client(monkeypatch):
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(MissingDependencyError) as caught:
        loader("kafka://b/t?group.id=g")
    assert caught.value.hint == "pip install confluent-kafka"
