"""kafka:// paths: what they say, and what is wrong with others."""

import pytest

from tzrec.config.kafka_uri import KafkaUri, is_kafka
from tzrec.errors import ConfigError

BASE = "kafka://b1:9092,b2/my.topic-1_x?group.id=g"


def test_what_a_path_says():
    uri = KafkaUri.parse(
        f" {BASE}&start.timestamp.ms=1700000000000&auto.offset.reset=smallest"
        "&sasl.password=a%26b+c&security.protocol=SASL_SSL&max.poll.interval.ms=60000 "
    )
    assert (uri.brokers, uri.topic, uri.group) == ("b1:9092,b2", "my.topic-1_x", "g")
    assert uri.start_ms == 1_700_000_000_000
    assert uri.reset == "earliest"
    assert uri.poll_seconds == 60
    assert not uri.is_bounded
    assert uri.client == {"sasl.password": "a&b+c", "security.protocol": "SASL_SSL"}
    settings = uri.settings()
    assert settings["bootstrap.servers"] == "b1:9092,b2"
    assert settings["sasl.password"] == "a&b+c"
    assert settings["max.poll.interval.ms"] == "60000"
    assert settings["enable.auto.commit"] == "false"
    # Where reading starts is decided here, never by librdkafka in the middle of a run.
    assert settings["auto.offset.reset"] == "error"


def test_secrets_are_not_shown():
    uri = KafkaUri.parse(f"{BASE}&sasl.password=secret")
    assert "secret" not in str(uri)
    assert str(uri) == "kafka://b1:9092,b2/my.topic-1_x"


@pytest.mark.parametrize(
    ("more", "bounded", "latest", "end"),
    [
        ("", False, False, None),
        ("&end.offset=latest", True, True, None),
        ("&end.timestamp.ms=5", True, False, 5),
        ("&start.timestamp.ms=4&end.timestamp.ms=5", True, False, 5),
    ],
)
def test_where_it_ends(more, bounded, latest, end):
    uri = KafkaUri.parse(BASE + more)
    assert (uri.is_bounded, uri.end_latest, uri.end_ms) == (bounded, latest, end)


def test_waiting():
    assert KafkaUri.parse(BASE).wait_seconds == 300
    assert KafkaUri.parse(f"{BASE}&wait.timeout.ms=2500").wait_seconds == 2.5


@pytest.mark.parametrize("value", ["true", "TRUE"])
def test_what_the_reader_does_itself(value):
    uri = KafkaUri.parse(f"{BASE}&enable.auto.commit={value}")
    assert uri.without_effect == (f"enable.auto.commit={value}",)
    assert uri.settings()["enable.auto.commit"] == "false"
    assert KafkaUri.parse(f"{BASE}&enable.auto.commit=false").without_effect == ()


def test_addresses():
    uri = KafkaUri.parse("kafka://[::1]:9092,10.0.0.1:1/t/?group.id=g")
    assert (uri.brokers, uri.topic) == ("[::1]:9092,10.0.0.1:1", "t")
    assert is_kafka(" kafka://b/t")
    assert not is_kafka("data/kafka.parquet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kafka://b/t", "kafka://b/t has no group.id"),
        ("kafka://b/t?group.id=", "has no group.id"),
        ("kafka://b?group.id=g", "has no topic"),
        ("kafka:///t?group.id=g", "'' is no broker"),
        ("kafka://b,/t?group.id=g", "'' is no broker"),
        ("kafka://b:x/t?group.id=g", "'b:x' is no broker"),
        ("kafka://b:99999/t?group.id=g", "'b:99999' is no broker"),
        ("kafka://b/t/u?group.id=g", "has no topic"),
        ("kafka://b/a b?group.id=g", "has no topic"),
        ("data.parquet", "is no kafka:// path"),
        (f"{BASE}&start.timestamp.ms=soon", "start.timestamp.ms='soon' must be milliseconds"),
        (f"{BASE}&start.timestamp.ms=-1", "start.timestamp.ms='-1' must be milliseconds"),
        (f"{BASE}&wait.timeout.ms=5", "must be milliseconds, at least 1000"),
        (f"{BASE}&end.offset=newest", "end.offset='newest' must be one of latest"),
        (f"{BASE}&auto.offset.reset=earlyest", "did you mean 'earliest'"),
        (f"{BASE}&end.offset=latest&end.timestamp.ms=5", "give one"),
        (f"{BASE}&start.timestamp.ms=5&end.timestamp.ms=5", "is not after"),
        (f"{BASE}&group.id=h", "group.id is given twice"),
        (f"{BASE}&bootstrap.servers=c", "the brokers stand before the topic"),
        (f"{BASE}&debug", "'debug' should be name=value"),
        (f"{BASE},kafka://b/u?group.id=g", "names one topic, not several"),
    ],
)
def test_what_is_wrong(text, message):
    with pytest.raises(ConfigError) as caught:
        KafkaUri.parse(text)
    assert message in str(caught.value)
