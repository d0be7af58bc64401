"""The tasks of a config: where each label's losses and metrics stand."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from tzrec.config.messages import which_field, which_msg
from tzrec.config.model_facts import MODELS
from tzrec.config.specs import eval_metric_names
from tzrec.protos.pipeline_pb2 import EasyRecConfig


@dataclasses.dataclass(frozen=True)
class Task:
    """Something to learn.

    Attributes:
        path: config path of its message.
        message: a ``ModelConfig`` or a tower: has ``losses``, ``metrics``, ``train_metrics`` and
            ``num_class``.
        label: column of the label, "" = none is named.
        suffix: ends the names of its predictions, losses and metrics.
        is_tower: whether its message is a tower.
    """

    path: str
    message: Any
    label: str
    suffix: str = ""
    is_tower: bool = False

    def chosen_losses(self) -> list[str]:
        """Returns the names of its losses, as the config calls them."""
        names = (which_field(loss, "loss") for loss in self.message.losses)
        return [name for name in names if name]

    def metric_names(self, suffix: str | None = None) -> list[str]:
        """Returns the names of its evaluation metrics, without the means of its losses.

        Args:
            suffix: of the names, the task's by default.
        """
        chosen = []
        for wrapper in self.message.metrics:
            name = which_field(wrapper, "metric")
            if name:
                chosen.append((name, getattr(getattr(wrapper, name), "top_k", 0)))
        end = self.suffix if suffix is None else suffix
        return [f"{name}{end}" for name in eval_metric_names([], chosen)]

    def loss_names(self, suffix: str | None = None) -> list[str]:
        """Returns the names of the means of its losses, which are metrics too."""
        end = self.suffix if suffix is None else suffix
        return [f"{name}{end}" for name in self.chosen_losses()]


def tasks_of(config: EasyRecConfig) -> list[Task]:
    """Returns the tasks of a config in its order: those of its towers, else the model's one."""
    model = config.model_config
    facts = MODELS.get(which_msg(model, "model"))
    if facts is not None and facts.towers:
        field = which_field(model, "model")
        return list(_towers(f"model_config.{field}", getattr(model, str(field)), facts.towers))
    label = next(iter(config.data_config.label_fields), "")
    return [Task("model_config", model, label)]


def learns_labels(config: EasyRecConfig) -> bool:
    """Returns whether the model learns from labels; two-tower models only count rows by one."""
    facts = MODELS.get(which_msg(config.model_config, "model"))
    return facts is None or not facts.is_match


def _towers(path: str, model: Any, fields: Sequence[str]) -> Iterator[Task]:
    for field in fields:
        value = getattr(model, field)
        if hasattr(value, "DESCRIPTOR"):
            towers = [(f"{path}.{field}", value)] if model.HasField(field) else []
        else:
            towers = [(f"{path}.{field}[{index}]", tower) for index, tower in enumerate(value)]
        for where, tower in towers:
            yield Task(where, tower, tower.label_name, f"_{tower.tower_name}", is_tower=True)
