"""What the report shows of a model: its labels, and the predictions of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from tzrec.config import tasks as config_tasks
from tzrec.config.messages import which_field, which_msg
from tzrec.config.specs import LOSSES, LossKind
from tzrec.protos.pipeline_pb2 import EasyRecConfig

_SMALLER_IS_BETTER = ("mean_absolute_error", "mean_squared_error", "normalized_entropy")


@dataclasses.dataclass(frozen=True)
class Task:
    """A label that is learnt.

    Attributes:
        name: of the tower, "" for a model's only task.
        suffix: what predictions, losses and metrics of the task end with.
        label: its column.
        num_class: number of classes.
        kinds: what its losses predict, each once.
        domain: label column that says which of several towers scores a row, "" = there is one.
        among: label column: only rows above 0 there are asked, "" = all.
        only_with: label column: the label counts as 0 unless it is above 0 there, "" = always.
    """

    name: str
    suffix: str
    label: str
    num_class: int
    kinds: tuple[LossKind, ...]
    domain: str = ""
    among: str = ""
    only_with: str = ""


def tasks_of(config: EasyRecConfig) -> list[Task]:
    """Returns the tasks of a config, in its order."""
    tasks = [_task(task) for task in config_tasks.tasks_of(config)]
    return list(_as_the_model_sees(config, tasks))


def _task(task: config_tasks.Task) -> Task:
    kinds = tuple(
        dict.fromkeys(LOSSES[name].kind for name in task.chosen_losses() if name in LOSSES)
    )
    name = task.suffix.removeprefix("_")
    return Task(name, task.suffix, task.label, int(task.message.num_class), kinds)


def _as_the_model_sees(config: EasyRecConfig, tasks: list[Task]) -> Iterator[Task]:
    """Yields the tasks, with what some models do otherwise than most."""
    kind = which_msg(config.model_config, "model")
    model: Any = getattr(config.model_config, which_field(config.model_config, "model") or "", None)
    for task in tasks:
        if kind == "RocketLaunching":
            for name in ("light", "booster"):
                yield dataclasses.replace(task, name=name, suffix=f"_{name}")
        elif kind == "PEPNet":
            yield dataclasses.replace(task, domain=model.domain_input_name)
        elif kind == "ESMM" and task is tasks[-1]:
            click = tasks[0].label
            yield dataclasses.replace(task, among=click)
            yield dataclasses.replace(task, name="ctcvr", suffix="_ctcvr", only_with=click)
        else:
            yield task


def split_name(name: str, tasks: Sequence[Task]) -> tuple[str, str]:
    """Returns a metric's or loss's name without its task, and the task's name ("" = none)."""
    for task in sorted(tasks, key=lambda task: -len(task.suffix)):
        if task.suffix and name.endswith(task.suffix):
            return name.removesuffix(task.suffix), task.name
    return name, ""


def is_loss(name: str) -> bool:
    """Returns whether a value, named without its task, is the mean of a loss."""
    return name in LOSSES or name.endswith("loss")


def larger_is_better(metric: str) -> bool:
    """Returns the better direction of a metric or loss, named without its task."""
    return metric not in _SMALLER_IS_BETTER and not is_loss(metric)
