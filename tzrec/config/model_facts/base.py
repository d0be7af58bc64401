"""`ModelFacts`: what is known about a model without importing it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from tzrec.config.names import parameter_name_problem
from tzrec.config.problem import Problem
from tzrec.errors import did_you_mean

if TYPE_CHECKING:
    from tzrec.config.validate.frame import Context

DEEP = ("DEEP",)
POOLED = ("DEEP", "WIDE")
STEPS = ("SEQUENCE",)


def _no_check(context: Context) -> Iterable[Problem]:
    del context
    return ()


@dataclasses.dataclass(frozen=True)
class ModelFacts:
    """What is known about a model without importing it.

    Attributes:
        module: module that defines the class; the class is named like the message.
        required_groups: group name → group types that it may have.
        optional_groups: the same for groups that may be left out.
        check: further rules.
        lone_group: required group that the only group of a config is, whatever its name.
        first_group: types that the first group of the config may have, for a model that reads
            that one whatever its name.
        reads_all_groups: the model may read any group; else only those that it names.
        inputs: repeated config fields below the model whose ``input`` names a group, with its
            types.
        group_fields: other config fields below the model that name a group
            (``user_tower.input``), with its types.
        towers: fields below the model that hold the towers of its tasks, with label, losses and
            metrics of each; empty for a model whose losses stand in ``model_config``.
        label_columns: fields below the model that name a label column, beside its towers.
        metric_names: names of the evaluation metrics, where they are not those of the tasks.
        needs_loss: at least one loss must be configured.
        is_match: a two-tower model, which learns from one softmax over candidates.
    """

    module: str
    required_groups: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    optional_groups: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    check: Callable[[Context], Iterable[Problem]] = _no_check
    lone_group: str = ""
    first_group: tuple[str, ...] = ()
    reads_all_groups: bool = False
    inputs: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    group_fields: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    towers: tuple[str, ...] = ()
    label_columns: tuple[str, ...] = ()
    metric_names: Callable[[Context], list[str]] | None = None
    needs_loss: bool = True
    is_match: bool = False

    @property
    def single_task(self) -> bool:
        """Whether losses and metrics stand in ``model_config``."""
        return not self.towers


def missing_group(name: str, kinds: tuple[str, ...], spare: Iterable[str]) -> tuple[str, str]:
    """Returns message and hint for a group that is not there."""
    what = f"the model needs a feature group named {name!r}{did_you_mean(name, spare)}"
    hint = f'feature_groups {{ group_name: "{name}" group_type: {kinds[0]} feature_names: ... }}'
    return what, hint


def name_of_parameters(where: str, name: str) -> Iterator[Problem]:
    """Yields a problem if ``name`` cannot be a part of parameter names."""
    problem = parameter_name_problem(name)
    if problem:
        yield Problem(where, f"is {name!r}: it becomes part of parameter names, so {problem}")
