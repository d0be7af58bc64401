"""Facts of the multi-task rankers whose tasks know of each other, or of their domain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tzrec.config.model_facts.base import DEEP, ModelFacts, missing_group
from tzrec.config.model_facts.multi_task import TOWERS, lone_expert
from tzrec.config.model_facts.widths import group_width
from tzrec.config.problem import Problem, warning
from tzrec.errors import did_you_mean
from tzrec.protos.model_pb2 import DEEP as DEEP_TYPE

if TYPE_CHECKING:
    from tzrec.config.validate.frame import Context


def _gates_choose(context: Context) -> Iterator[Problem]:
    """Gates are there only with experts, and choose among several."""
    model, path = context.model, context.model_path
    for field in ("gate_mlp", "num_expert"):
        if model.HasField(field) and not model.HasField("expert_mlp"):
            yield warning(f"{path}.{field}", "has no effect without expert_mlp")
    if model.HasField("expert_mlp"):
        yield from lone_expert(context)


def _earlier_towers(context: Context, field: str) -> Iterator[Problem]:
    """Towers are read by those that stand after them, each once."""
    every = [tower.tower_name for tower in context.model.task_towers]
    for position, tower in enumerate(context.model.task_towers):
        names = list(getattr(tower, field))
        for index, name in enumerate(names):
            where = f"{context.model_path}.task_towers[{position}].{field}[{index}]"
            if name in every[:position]:
                if name in names[:index]:
                    yield Problem(where, f"tower {name!r} is given twice")
            elif name == tower.tower_name:
                yield Problem(where, f"{name!r} is the tower itself", "name towers before it")
            elif name in every:
                yield Problem(
                    where,
                    f"tower {name!r} stands after {tower.tower_name!r}",
                    f"move tower {name!r} up: a tower reads those that stand before it",
                )
            else:
                near = did_you_mean(name, every[:position])
                yield Problem(where, f"there is no tower {name!r}{near}")


def _dbmtl(context: Context) -> Iterator[Problem]:
    """Relations go up, and have the layers that read them."""
    yield from _gates_choose(context)
    yield from _earlier_towers(context, "relation_tower_names")
    for index, tower in enumerate(context.model.task_towers):
        if tower.relation_tower_names and not tower.HasField("relation_mlp"):
            yield warning(
                f"{context.model_path}.task_towers[{index}].relation_tower_names",
                "has no effect without relation_mlp",
                "add relation_mlp { hidden_units: ... }",
            )


def _dc2vr(context: Context) -> Iterator[Problem]:
    """Interventions go up, in a subspace of what they move and of what moves it."""
    yield from _gates_choose(context)
    yield from _earlier_towers(context, "intervention_tower_names")
    widths = _tower_widths(context)
    for index, tower in enumerate(context.model.task_towers):
        path = f"{context.model_path}.task_towers[{index}]"
        names = [name for name in tower.intervention_tower_names if name in widths]
        if not tower.intervention_tower_names:
            if tower.HasField("dropout_ratio"):
                yield warning(
                    f"{path}.dropout_ratio", "has no effect without intervention_tower_names"
                )
            continue
        base, source = widths[tower.tower_name], _sum([widths[name] for name in names])
        for what, width in ((f"tower {tower.tower_name!r}", base), (" and ".join(names), source)):
            if width and tower.low_rank_dim >= width:
                yield Problem(
                    f"{path}.low_rank_dim",
                    f"is {tower.low_rank_dim}, must be below {width}, the width of {what}",
                )
                break


def _tower_widths(context: Context) -> dict[str, int | None]:
    """Returns the width of each tower before its last layer, None where it is not known."""
    model = context.model
    width = None
    for mlp in (model.bottom_mlp, model.expert_mlp):
        width = mlp.hidden_units[-1] if mlp.hidden_units else width
    first = next(iter(context.groups), "")
    if first and not model.HasField("bottom_mlp") and not model.HasField("expert_mlp"):
        width = group_width(context, first)
    return {
        tower.tower_name: tower.mlp.hidden_units[-1] if tower.mlp.hidden_units else width
        for tower in model.task_towers
    }


def _sum(widths: Sequence[int | None]) -> int | None:
    known = [width for width in widths if width is not None]
    return sum(known) if len(known) == len(widths) else None


def _pepnet(context: Context) -> Iterator[Problem]:
    """Each group turns on its gates; several domains are told apart by a label."""
    model, path = context.model, context.model_path
    if model.task_domain_num > 1 and not model.domain_input_name:
        yield Problem(
            f"{path}.domain_input_name",
            f"is missing: task_domain_num is {model.task_domain_num}, and nothing says which "
            "domain a row is in",
            "name the label column that holds it, counted from 0",
        )
    elif model.task_domain_num == 1 and model.domain_input_name:
        yield warning(
            f"{path}.domain_input_name",
            "has no effect: task_domain_num is 1",
            "set task_domain_num to the number of domains",
        )
    if "domain" not in context.groups:
        for field in ("epnet_hidden_unit", "epnet_gamma"):
            if model.HasField(field):
                yield warning(f"{path}.{field}", "has no effect without a feature group 'domain'")
    yield from _ppnet(context)


def _ppnet(context: Context) -> Iterator[Problem]:
    from tzrec.config.validate.mlp import activation_problem

    model, path = context.model, context.model_path
    layers, ratios = len(model.ppnet_hidden_units), len(model.ppnet_dropout_ratio)
    if not layers:
        if "uia" in context.groups:
            yield warning(
                context.group_path("uia"),
                "PEPNet does not read group 'uia' without ppnet_hidden_units",
                "add ppnet_hidden_units: [256, 128], or remove the group",
            )
        return
    if "uia" not in context.groups:
        yield warning(
            f"{path}.ppnet_hidden_units",
            "PPNet's layers have no gates without a feature group 'uia'",
            'add feature_groups { group_name: "uia" feature_names: ... } with user and item ids',
        )
    if ratios not in (0, 1, layers):
        yield Problem(
            f"{path}.ppnet_dropout_ratio",
            f"has {ratios} values for {layers} layers, must be one for all or one per layer",
        )
    problem = activation_problem(model.ppnet_activation)
    if problem:
        yield Problem(
            f"{path}.ppnet_activation",
            problem,
            'for example "nn.ReLU", "nn.PReLU", "Dice", "" for none',
        )


def _stem(context: Context) -> Iterator[Problem]:
    """Each tower has a group of its name, with tables of its own."""
    names = [tower.tower_name for tower in context.model.task_towers]
    spare = [name for name in context.groups if name not in ("shared", *names)]
    for index, name in enumerate(names):
        where = f"{context.model_path}.task_towers[{index}].tower_name"
        if name == "shared":
            yield Problem(
                where, "is 'shared', the name of the group of all tasks", "rename the tower"
            )
        elif name in context.groups:
            if context.groups[name].group_type != DEEP_TYPE:
                yield Problem(
                    f"{context.group_path(name)}.group_type",
                    f"is not DEEP, but tower {name!r} reads group {name!r}",
                )
        elif name and context.groups:
            what, hint = missing_group(name, DEEP, spare)
            yield Problem(where, what, hint)
    for name in spare:
        near = did_you_mean(name, [n for n in names if n not in context.groups])
        yield warning(context.group_path(name), f"STEM does not read group {name!r}{near}")
    yield from _own_tables(context, [n for n in ("shared", *names) if n in context.groups])


def _own_tables(context: Context, names: Sequence[str]) -> Iterator[Problem]:
    """Groups that share a table say so: what STEM is about is that they do not."""
    owner: dict[tuple[bool, str, str], str] = {}
    for name in names:
        for table in _tables(context, context.groups[name]):
            other = owner.setdefault(table, name)
            if other != name:
                yield warning(
                    context.group_path(name),
                    f"shares table {table[1]!r} with group {other!r}, so the tasks do not have "
                    "embeddings of their own",
                    f'add embedding_name_suffix: "{name}" to the group',
                )
                break


def _tables(context: Context, group: Any) -> Iterator[tuple[bool, str, str]]:
    """Yields (whether looked up in steps, embedding name, suffix) of a group's tables."""
    outer = group.embedding_name_suffix
    parts = [(False, group.feature_names, outer)]
    parts += [
        (True, sub.feature_names, sub.embedding_name_suffix or outer)
        for sub in group.sequence_groups
    ]
    for stepwise, names, suffix in parts:
        for name in names:
            feature = context.features_by_name.get(name)
            if feature is not None and feature.is_sparse:
                yield stepwise, feature.embedding_name, suffix


MODELS: Mapping[str, ModelFacts] = {
    "DBMTL": ModelFacts("tzrec.models.dbmtl", first_group=DEEP, towers=TOWERS, check=_dbmtl),
    "DC2VR": ModelFacts("tzrec.models.dc2vr", first_group=DEEP, towers=TOWERS, check=_dc2vr),
    "PEPNet": ModelFacts(
        "tzrec.models.pepnet",
        required_groups={"all": DEEP},
        optional_groups={"domain": DEEP, "uia": DEEP},
        towers=TOWERS,
        label_columns=("domain_input_name",),
        check=_pepnet,
    ),
    "STEM": ModelFacts(
        "tzrec.models.stem",
        required_groups={"shared": DEEP},
        reads_all_groups=True,
        towers=TOWERS,
        check=_stem,
    ),
}
