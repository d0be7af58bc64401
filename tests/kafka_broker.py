"""Brokers in this process: librdkafka's mock cluster, by its C interface."""

from __future__ import annotations

import ctypes
from pathlib import Path

import confluent_kafka
import pyarrow as pa

_PRODUCER = 0
_POINTER = ctypes.c_void_p


def _library():
    folder = Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs"
    library = ctypes.CDLL(str(next(folder.glob("librdkafka-*.so*"))))
    text, number = ctypes.c_char_p, ctypes.c_int
    for name, result, *arguments in [
        ("conf_new", _POINTER),
        ("conf_set", number, _POINTER, text, text, text, ctypes.c_size_t),
        ("new", _POINTER, number, _POINTER, text, ctypes.c_size_t),
        ("destroy_flags", None, _POINTER, number),
        ("mock_cluster_new", _POINTER, _POINTER, number),
        ("mock_cluster_destroy", None, _POINTER),
        ("mock_cluster_bootstraps", text, _POINTER),
        ("mock_topic_create", number, _POINTER, text, number, number),
        ("mock_topic_delete", number, _POINTER, text),
        ("mock_broker_set_down", number, _POINTER, ctypes.c_int32),
        ("mock_broker_set_up", number, _POINTER, ctypes.c_int32),
        ("mock_partition_set_leader", number, _POINTER, text, ctypes.c_int32, ctypes.c_int32),
        ("mock_partition_delete_records", number, _POINTER, text, ctypes.c_int32, ctypes.c_int64),
    ]:
        function = getattr(library, f"rd_kafka_{name}")
        function.restype = result
        function.argtypes = arguments
    return library


class Cluster:
    """Some brokers whose topics live in memory.

    Args:
        num_brokers: how many; they are numbered from 1.
    """

    def __init__(self, num_brokers=2):
        self._library = _library()
        self.num_brokers = num_brokers
        reason = ctypes.create_string_buffer(512)
        settings = self._library.rd_kafka_conf_new()
        for name, value in [(b"bootstrap.servers", b"127.0.0.1:1"), (b"log_level", b"0")]:
            self._library.rd_kafka_conf_set(settings, name, value, reason, 512)
        self._owner = self._library.rd_kafka_new(_PRODUCER, settings, reason, 512)
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._owner, num_brokers)
        self.brokers = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        self._producer = confluent_kafka.Producer(
            {"bootstrap.servers": self.brokers, "log_level": 0, "linger.ms": 0}
        )

    def create(self, topic, num_partitions=1):
        """Creates a topic."""
        name = topic.encode()
        assert self._call("topic_create", name, num_partitions, 1) == 0

    def uri(self, topic, group="g", **parameters):
        """The input path of a topic; `_` in names stands for a dot."""
        parameters = {"fetch_wait_max_ms": 10, **parameters}  # half a second at each begin
        more = "".join(f"&{k.replace('_', '.')}={v}" for k, v in parameters.items())
        return f"kafka://{self.brokers}/{topic}?group.id={group}{more}"

    def send(self, topic, *messages):
        """Appends (partition, payload, milliseconds) to a topic."""
        for partition, payload, time_ms in messages:
            self._producer.produce(topic, payload, partition=partition, timestamp=time_ms)
        assert self._producer.flush(20) == 0

    def set_down(self, *brokers):
        """Ends brokers; their connections break."""
        for broker in brokers or range(1, self.num_brokers + 1):
            self._call("broker_set_down", broker)

    def set_up(self, *brokers):
        """Starts brokers again."""
        for broker in brokers or range(1, self.num_brokers + 1):
            self._call("broker_set_up", broker)

    def set_leader(self, topic, partition, broker):
        """Moves a partition to another broker."""
        self._call("partition_set_leader", topic.encode(), partition, broker)

    def delete_before(self, topic, partition, offset):
        """Drops old messages, as a broker does in time."""
        assert self._call("partition_delete_records", topic.encode(), partition, offset) == 0

    def delete(self, topic):
        """Drops a topic."""
        self._call("topic_delete", topic.encode())

    def committed(self, topic, group="g", num_partitions=1):
        """Offset of each partition that a group committed, -1001 = none."""
        consumer = self.consumer(group)
        places = [confluent_kafka.TopicPartition(topic, p) for p in range(num_partitions)]
        found = [place.offset for place in consumer.committed(places, timeout=10)]
        consumer.close()
        return found

    def consumer(self, group="g", **settings):
        """A consumer as any other program has it."""
        return confluent_kafka.Consumer(
            {"bootstrap.servers": self.brokers, "group.id": group, "log_level": 0, **settings}
        )

    def close(self):
        """Ends everything."""
        del self._producer
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy_flags(self._owner, 0)

    def _call(self, name, *arguments):
        return getattr(self._library, f"rd_kafka_mock_{name}")(self._cluster, *arguments)


def payload(table):
    """A table as a message."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    return sink.getvalue().to_pybytes()


def bare(batch):
    """A record batch as a message without its schema."""
    return batch.serialize().to_pybytes()
