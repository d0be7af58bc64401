"""What every rule gets, and helpers that rules share."""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Callable, Iterator
from typing import Any

from tzrec.config.feature_facts import FeatureFacts, flatten
from tzrec.config.messages import which_field, which_msg
from tzrec.config.problem import Problem
from tzrec.config.tasks import Task, tasks_of
from tzrec.protos.data_pb2 import FG_BUCKETIZE, FG_NONE
from tzrec.protos.model_pb2 import FeatureGroupType
from tzrec.protos.pipeline_pb2 import EasyRecConfig


@dataclasses.dataclass(frozen=True)
class Context:
    """A config under check, with what is derived from it.

    Attributes:
        config: the config.
        for_serving: training sections and paths are not needed.
        broken: config paths whose schema problems are already known; rules that would only
            repeat them in other words stay quiet.
    """

    config: EasyRecConfig
    for_serving: bool = False
    broken: frozenset[str] = frozenset()

    @functools.cached_property
    def features(self) -> list[FeatureFacts]:
        """All features, grouped sequences flattened."""
        return list(flatten(self.config))

    @functools.cached_property
    def features_by_name(self) -> dict[str, FeatureFacts]:
        """Features by full name."""
        return {feature.name: feature for feature in self.features}

    @functools.cached_property
    def groups(self) -> dict[str, Any]:
        """Feature groups by name."""
        return {group.group_name: group for group in self.config.model_config.feature_groups}

    @property
    def has_twin_groups(self) -> bool:
        """Whether two groups have one name, so that names say nothing."""
        return len(self.groups) < len(self.config.model_config.feature_groups)

    @functools.cached_property
    def grouped_features(self) -> set[str]:
        """Names in any feature group or nested sequence group."""
        groups: list[Any] = list(self.config.model_config.feature_groups)
        groups += [sub for group in groups for sub in group.sequence_groups]
        return {name for group in groups for name in group.feature_names}

    @property
    def model_field(self) -> str | None:
        """Field name of the chosen model, ``deepfm``."""
        return which_field(self.config.model_config, "model")

    @property
    def model_type(self) -> str:
        """Message type of the chosen model, ``DeepFM``."""
        return which_msg(self.config.model_config, "model")

    @property
    def model(self) -> Any:
        """Message of the chosen model; call only when there is one."""
        return getattr(self.config.model_config, self.model_field or "")

    @property
    def model_path(self) -> str:
        """Config path of the chosen model."""
        return f"model_config.{self.model_field}"

    @functools.cached_property
    def tasks(self) -> list[Task]:
        """What the model learns: a task per tower, else one."""
        return tasks_of(self.config)

    @property
    def feature_columns(self) -> bool:
        """Whether each feature reads one column of its own name (FG_NONE, FG_BUCKETIZE)."""
        return self.config.data_config.fg_mode in (FG_NONE, FG_BUCKETIZE)

    def is_broken(self, prefix: str) -> bool:
        """Whether a schema problem lies at or below ``prefix``."""
        return any(
            path == prefix or path.startswith((f"{prefix}.", f"{prefix}[")) for path in self.broken
        )

    def is_misspelt(self, section: str) -> bool:
        """Whether an unknown field at the top was probably meant to be ``section``."""
        known = EasyRecConfig.DESCRIPTOR.fields_by_name
        unknown = [path for path in self.broken if path.isidentifier() and path not in known]
        return any(difflib.get_close_matches(u, known, n=1) == [section] for u in unknown)

    @functools.cached_property
    def knows_all_names(self) -> bool:
        """Whether the name of every feature could be read."""
        named = all(_is_named(feature) for feature in self.config.feature_configs)
        return named and not self.is_misspelt("feature_configs")

    @property
    def has_twin_models(self) -> bool:
        """Whether two models were written, so that the one that is kept says little."""
        members = self.config.model_config.DESCRIPTOR.oneofs_by_name["model"].fields
        return any(
            f"model_config.{member.name}" in self.broken and member.name != self.model_field
            for member in members
        )

    def group_path(self, name: str) -> str:
        """Returns the config path of a feature group."""
        names = [group.group_name for group in self.config.model_config.feature_groups]
        return f"model_config.feature_groups[{names.index(name)}]"

    def group_dims(self, name: str) -> dict[str, int | None]:
        """Returns the width of each feature of a group; unknown features are left out."""
        found = self.features_by_name
        return {n: found[n].dim for n in self.groups[name].feature_names if n in found}


Rule = Callable[[Context], Iterator[Problem]]
MessageRule = Callable[[Any, str, Context], Iterator[Problem]]


def _is_named(feature: Any) -> bool:
    """Whether a feature has a name, and each of its features if it is a grouped sequence."""
    kind = which_field(feature, "feature")
    if kind is None:
        return False
    message = getattr(feature, kind)
    if kind == "sequence_feature":
        return bool(message.sequence_name) and all(map(_is_named, message.features))
    return bool(message.feature_name)


def group_type_name(group: Any) -> str:
    """Returns the type of a feature group, ``DEEP``."""
    return FeatureGroupType.Name(group.group_type)


def quoted(names: Any) -> str:
    """Returns names for a message: ``'a', 'b'``."""
    return ", ".join(repr(str(name)) for name in names)
