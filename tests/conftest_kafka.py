"""Kafka brokers for tests: `kafka_broker.Cluster`."""

import itertools

import pytest

_numbers = itertools.count()


@pytest.fixture(scope="session")
def brokers():
    """Two brokers, for tests that leave them alone or put them back."""
    pytest.importorskip("confluent_kafka", reason="confluent-kafka is not installed")
    from kafka_broker import Cluster

    cluster = Cluster(2)
    yield cluster
    cluster.close()


@pytest.fixture
def topic(brokers):
    """Returns ``make(num_partitions) -> name`` of a new topic."""

    def make(num_partitions=1):
        name = f"clicks.{next(_numbers)}"
        brokers.create(name, num_partitions)
        return name

    return make
