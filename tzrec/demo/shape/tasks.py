"""What a config's model learns: its labels, and columns that its losses and metrics look at."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from tzrec.config.messages import which_field
from tzrec.protos.pipeline_pb2 import EasyRecConfig

BINARY, CLASSES, NUMBER = "binary", "classes", "number"
_BINARY = ("binary_cross_entropy", "binary_focal_loss", "jrc_loss")


@dataclasses.dataclass(frozen=True)
class Task:
    """One label.

    Attributes:
        label: column.
        kind: `BINARY`, `CLASSES` or `NUMBER`.
        classes: of `CLASSES`.
    """

    label: str
    kind: str = BINARY
    classes: int = 2


@dataclasses.dataclass(frozen=True)
class Tasks:
    """All labels of a config.

    Attributes:
        tasks: what is learnt, in the order of towers; a later binary label is only 1 where the
            first one is, as who buys has clicked.
        domain: label column that holds the domain of a row.
        num_domains: its values.
        sessions: features whose value neighbouring rows share.
    """

    tasks: tuple[Task, ...]
    domain: str | None = None
    num_domains: int = 1
    sessions: tuple[str, ...] = ()

    @property
    def binary(self) -> list[Task]:
        """The tasks with a probability."""
        return [task for task in self.tasks if task.kind == BINARY]


def tasks_of(config: EasyRecConfig) -> Tasks:
    """Returns what a config's model learns.

    Every message with a ``label_name`` below the model is a task; a model without such learns the
    first of ``label_fields``. Further labels, as those that say where a task counts, are binary.
    """
    model = config.model_config
    towers = [m for m in _messages(model) if "label_name" in m.DESCRIPTOR.fields_by_name]
    labels = list(config.data_config.label_fields)
    found: dict[str, Task] = {}
    for tower in towers:
        found.setdefault(tower.label_name, _task(tower.label_name, tower))
    if not towers and labels:
        found[labels[0]] = _task(labels[0], model)
    domain, num_domains = None, 1
    for message in _messages(model):
        if "domain_input_name" in message.DESCRIPTOR.fields_by_name and message.domain_input_name:
            domain, num_domains = message.domain_input_name, max(message.task_domain_num, 1)
    for label in labels:
        if label != domain:
            found.setdefault(label, Task(label))
    sessions = [
        getattr(message, name)
        for message in _messages(model)
        for name in ("session_name", "grouping_key")
        if name in message.DESCRIPTOR.fields_by_name
    ]
    tasks = tuple(task for label, task in found.items() if label)
    return Tasks(tasks, domain, int(num_domains), tuple(dict.fromkeys(filter(None, sessions))))


def _task(label: str, message: Any) -> Task:
    """Returns the task of a message with ``losses`` and ``num_class``."""
    losses = {which_field(loss, "loss") for loss in message.losses}
    if losses & set(_BINARY):
        return Task(label)
    if "softmax_cross_entropy" in losses and message.num_class > 2:
        return Task(label, CLASSES, int(message.num_class))
    return Task(label, NUMBER) if "l2_loss" in losses else Task(label)


def _messages(message: Any) -> Iterator[Any]:
    """Yields a message and those in it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        several = hasattr(value, "add") or not hasattr(value, "ListFields")
        for inner in value if several else [value]:
            if hasattr(inner, "ListFields"):
                yield from _messages(inner)
