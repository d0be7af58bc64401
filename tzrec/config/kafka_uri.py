"""`KafkaUri`: which topic to read, from where to where (reference 02 §2.5)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from tzrec.errors import ConfigError, did_you_mean

SCHEME = "kafka://"

GROUP = "group.id"
START_TIME = "start.timestamp.ms"
END_TIME = "end.timestamp.ms"
END_OFFSET = "end.offset"
WAIT = "wait.timeout.ms"
RESET = "auto.offset.reset"
POLL_INTERVAL = "max.poll.interval.ms"

_OWN = (GROUP, START_TIME, END_TIME, END_OFFSET, WAIT, RESET, POLL_INTERVAL)
# What the reader sets itself, because positions are kept in checkpoints.
_OURS = ("enable.auto.commit", "enable.auto.offset.store", "enable.partition.eof")
_RESETS = {
    **dict.fromkeys(("earliest", "smallest", "beginning"), "earliest"),
    **dict.fromkeys(("latest", "largest", "end"), "latest"),
    "error": "error",
}
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_BROKER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:/@\s]+)(:[0-9]{1,5})?")
_WAIT_MS = 300_000
_POLL_INTERVAL_MS = 300_000
_EXAMPLE = "kafka://broker1:9092,broker2:9092/topic?group.id=NAME"


@dataclass(frozen=True)
class KafkaUri:
    """A topic, and what is to be read of it.

    Attributes:
        brokers: ``host[:port],…``.
        topic: its name.
        group: whose offsets are committed.
        start_ms: where reading starts, milliseconds since 1970; None = it is not said.
        end_ms: where it ends; None = it is not said.
        end_latest: it ends with what is there when a pass begins.
        wait_seconds: how long brokers may be away.
        reset: ``earliest``, ``latest`` or ``error``: where to start without a known offset; None =
            it is not said.
        poll_seconds: within this time the client must be asked for messages.
        client: further settings of librdkafka.
        without_effect: settings that the reader makes itself.
    """

    brokers: str
    topic: str
    group: str
    start_ms: int | None = None
    end_ms: int | None = None
    end_latest: bool = False
    wait_seconds: float = _WAIT_MS / 1000
    reset: str | None = None
    poll_seconds: float = _POLL_INTERVAL_MS / 1000
    client: Mapping[str, str] = field(default_factory=dict)
    without_effect: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Brokers and topic; settings may hold secrets."""
        return f"{SCHEME}{self.brokers}/{self.topic}"

    @property
    def is_bounded(self) -> bool:
        """True when it says where reading ends."""
        return self.end_latest or self.end_ms is not None

    @classmethod
    def parse(cls, text: str) -> KafkaUri:
        """Reads ``kafka://broker1,broker2/topic?param=value&…``.

        Values may be percent-encoded. Parameters that are not explained here go to librdkafka.

        Raises:
            ConfigError: it is not of this form, or a value cannot be what it should.
        """
        address, _, query = text.strip().removeprefix(SCHEME).partition("?")
        if not text.strip().startswith(SCHEME):
            raise ConfigError(f"{text!r} is no kafka:// path", hint=f"for example {_EXAMPLE}")
        brokers, _, topic = address.partition("/")
        _check_address(brokers, topic.rstrip("/"))
        given = _parameters(query)
        if not given.get(GROUP):
            raise ConfigError(
                f"{SCHEME}{address} has no {GROUP}",
                hint=f"append ?{GROUP}=NAME: its offsets are committed with each checkpoint",
            )
        if END_TIME in given and END_OFFSET in given:
            raise ConfigError(f"{SCHEME}{address} has {END_TIME} and {END_OFFSET}: give one")
        start, end = _integer(given, START_TIME, 0), _integer(given, END_TIME, 0)
        if start is not None and end is not None and end <= start:
            raise ConfigError(
                f"{END_TIME}={end} is not after {START_TIME}={start}: there is nothing to read"
            )
        return cls(
            ",".join(part.strip() for part in brokers.split(",")),
            topic.rstrip("/"),
            given[GROUP],
            start_ms=start,
            end_ms=end,
            end_latest=bool(_choice(given, END_OFFSET, {"latest": "latest"})),
            wait_seconds=(_integer(given, WAIT, 1000) or _WAIT_MS) / 1000,
            reset=_choice(given, RESET, _RESETS),
            poll_seconds=(_integer(given, POLL_INTERVAL, 1) or _POLL_INTERVAL_MS) / 1000,
            client={k: v for k, v in given.items() if k not in (*_OWN, *_OURS)},
            without_effect=tuple(
                f"{name}={given[name]}"
                for name in _OURS
                if given.get(name, "").lower() not in ("", _settings()[name])
            ),
        )

    def settings(self) -> dict[str, str]:
        """Returns the settings of a consumer."""
        poll_ms = str(round(self.poll_seconds * 1000))
        needed = {"bootstrap.servers": self.brokers, GROUP: self.group, POLL_INTERVAL: poll_ms}
        return {**self.client, **needed, **_settings(), RESET: "error"}


def is_kafka(path: str) -> bool:
    """Returns whether an input path is a topic."""
    return path.strip().startswith(SCHEME)


def _settings() -> dict[str, str]:
    return {
        "enable.auto.commit": "false",
        "enable.auto.offset.store": "false",
        "enable.partition.eof": "true",
    }


def _check_address(brokers: str, topic: str) -> None:
    if not topic or "/" in topic or not _TOPIC.fullmatch(topic):
        raise ConfigError(
            f"{SCHEME}{brokers}/{topic} has no topic of letters, digits, '.', '_' and '-'",
            hint=f"for example {_EXAMPLE}",
        )
    for broker in brokers.split(","):
        found = _BROKER.fullmatch(broker.strip())
        port = int(found[2][1:]) if found and found[2] else 9092
        if found is None or not 0 < port < 65536:
            raise ConfigError(
                f"{SCHEME}{brokers}/{topic}: {broker.strip()!r} is no broker host[:port]",
                hint=f"for example {_EXAMPLE}",
            )


def _parameters(query: str) -> dict[str, str]:
    given: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        name, equals, value = (unquote(piece) for piece in part.partition("="))
        if SCHEME in value:
            raise ConfigError(
                "an input path names one topic, not several",
                hint="send what belongs together to one topic",
            )
        if not equals or not name:
            raise ConfigError(f"kafka parameter {part!r} should be name=value")
        if name in given:
            raise ConfigError(f"kafka parameter {name} is given twice")
        if name == "bootstrap.servers":
            raise ConfigError("bootstrap.servers is given: the brokers stand before the topic")
        given[name] = value
    return given


def unknown_parameter(name: str) -> str:
    """Returns the suggestion for a parameter that librdkafka does not know."""
    return did_you_mean(name, [*_OWN, *_OURS])


def _integer(given: Mapping[str, str], name: str, least: int) -> int | None:
    text = given.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) < least:
        what = "milliseconds" if least == 0 else f"milliseconds, at least {least}"
        hint = "milliseconds since 1970, for example 1767225600000" if least == 0 else ""
        raise ConfigError(f"kafka parameter {name}={text!r} must be {what}", hint=hint)
    return int(text)


def _choice(given: Mapping[str, str], name: str, known: Mapping[str, str]) -> str | None:
    text = given.get(name)
    if text is None:
        return None
    if text.lower() not in known:
        raise ConfigError(
            f"kafka parameter {name}={text!r} must be one of {', '.join(known)}"
            f"{did_you_mean(text, known)}"
        )
    return known[text.lower()]
