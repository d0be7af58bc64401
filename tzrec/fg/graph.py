"""The order of features: each after those that it reads (fg.md §12)."""

from __future__ import annotations

from collections.abc import Sequence

from tzrec.errors import ConfigError, did_you_mean
from tzrec.fg.operators.base import Operator


def stages(operators: Sequence[Operator]) -> list[list[Operator]]:
    """Returns the features in stages; a feature reads features of earlier stages only.

    Raises:
        ConfigError: a feature that is read does not exist, or features read each other.
    """
    by_name = {operator.spec.name: operator for operator in operators}
    depth: dict[str, int] = {}
    for operator in operators:
        _measure(operator, by_name, depth, [])
    ordered: list[list[Operator]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for operator in operators:
        ordered[depth[operator.spec.name]].append(operator)
    return ordered


def _measure(
    operator: Operator, by_name: dict[str, Operator], depth: dict[str, int], path: list[str]
) -> int:
    name = operator.spec.name
    if name in depth:
        return depth[name]
    if name in path:
        cycle = " → ".join([*path[path.index(name) :], name])
        raise ConfigError(f"features read each other in a circle: {cycle}")
    deepest = 0
    for source in sources(operator):
        if source not in by_name:
            raise ConfigError(
                f"feature {name!r} reads feature:{source}, which does not exist"
                f"{did_you_mean(source, by_name)}"
            )
        deepest = max(deepest, 1 + _measure(by_name[source], by_name, depth, [*path, name]))
    depth[name] = deepest
    return deepest


def sources(operator: Operator) -> list[str]:
    """Returns the features that a feature reads."""
    return [i.source for i in operator.inputs if i.side == "feature"]
