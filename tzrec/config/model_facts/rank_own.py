"""Facts of more single-task rankers: masks, distillation, and those beyond the interface."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tzrec.config.model_facts.base import DEEP, STEPS, ModelFacts
from tzrec.config.model_facts.widths import one_width
from tzrec.config.problem import Problem, warning
from tzrec.protos.model_pb2 import DEEP as DEEP_TYPE
from tzrec.protos.model_pb2 import SEQUENCE
from tzrec.protos.simi_pb2 import INNER_PRODUCT

if TYPE_CHECKING:
    from tzrec.config.validate.frame import Context


def _rocket_launching(context: Context) -> Iterator[Problem]:
    """Distillation between layers needs layers of one width."""
    model, path = context.model, context.model_path
    if not model.feature_based_distillation:
        if model.HasField("feature_distillation_function"):
            yield warning(
                f"{path}.feature_distillation_function",
                "has no effect without feature_based_distillation: true",
            )
        return
    light, booster = list(model.light_mlp.hidden_units), list(model.booster_mlp.hidden_units)
    if light and booster and not set(light) & set(booster):
        yield warning(
            f"{path}.feature_based_distillation",
            f"has no effect: no layer of light_mlp {light} is as wide as one of booster_mlp "
            f"{booster}",
            "give them layers of one width",
        )
    elif model.feature_distillation_function == INNER_PRODUCT:
        yield warning(
            f"{path}.feature_distillation_function",
            "INNER_PRODUCT is computed as EUCLID, the distance of the layers",
            "write COSINE or EUCLID",
        )


def _rocket_metrics(context: Context) -> list[str]:
    """Both nets have all metrics."""
    ends = ("_light", "_booster")
    names = [name for end in ends for task in context.tasks for name in task.metric_names(end)]
    return names + [n for end in ends for task in context.tasks for n in task.loss_names(end)]


def _final_mlp(context: Context) -> Iterator[Problem]:
    """Heads divide the streams, and gates read what they can."""
    model, path = context.model, context.model_path
    for name in ("mlp1", "mlp2"):
        units, heads = list(getattr(model, name).hidden_units), model.num_heads
        if units and heads and units[-1] % heads:
            yield Problem(
                f"{path}.num_heads",
                f"is {heads}, which does not divide the {units[-1]} units of the last layer of "
                f"{name}",
            )
    contexts = [name for name in ("fs1", "fs2") if name in context.groups]
    first = next(iter(context.groups), "")
    if first in contexts:
        yield Problem(
            context.group_path(first),
            f"the first group holds the features, but {first!r} is the context of a gate",
            "list the group of the features first",
        )
    if not model.HasField("feature_selection"):
        for name in contexts:
            yield warning(
                context.group_path(name),
                f"FinalMLP does not read group {name!r} without feature_selection",
                "add feature_selection { hidden_units: ... }, or remove the group",
            )
    elif len(contexts) < 2:
        yield from _constant_context(model.feature_selection, f"{path}.feature_selection")


def _constant_context(mlp: Any, path: str) -> Iterator[Problem]:
    """A context that is the same in all rows has no batch statistics."""
    for field, used in (("use_bn", mlp.use_bn), ("activation", mlp.activation == "Dice")):
        if used:
            yield Problem(
                f"{path}.{field}",
                "normalises over the batch, but a gate without a group of its own has the same "
                "context in all rows",
                "use_ln, or name groups fs1 and fs2",
            )


def _autoint(context: Context) -> Iterator[Problem]:
    """Attention compares vectors of one width."""
    first = next(iter(context.groups), "")
    if first:
        yield from one_width(
            context,
            first,
            f"AutoInt compares the features of group {first!r}",
            "a group deep may hold features of any width for the MLP",
        )
    if "deep" in context.groups and first != "deep" and not context.model.HasField("deep"):
        yield warning(
            context.group_path("deep"),
            "AutoInt does not read group 'deep' without the MLP deep",
            "add deep { hidden_units: ... }, or remove the group",
        )


def _gdcn(context: Context) -> Iterator[Problem]:
    """An MLP on top of the cross layers is given."""
    if context.model.stacked and not context.model.HasField("deep"):
        yield Problem(
            f"{context.model_path}.stacked",
            "puts the MLP deep on the cross layers, but there is no deep",
            "add deep { hidden_units: ... }, or remove stacked",
        )


def _transact(context: Context) -> Iterator[Problem]:
    """Towers compare a query with a sequence; every group is read."""
    model, path = context.model, context.model_path
    if not model.transact_towers and not context.is_broken(path):
        yield Problem(
            f"{path}.transact_towers",
            "is missing: the model reads no history",
            "one transact_towers { input: GROUP } per SEQUENCE group",
        )
    read = set()
    for index, tower in enumerate(model.transact_towers):
        here = f"{path}.transact_towers[{index}]"
        if tower.input and tower.input in read:
            yield Problem(
                f"{here}.input",
                f"two transact_towers read the feature group {tower.input!r}",
                "list its features in a second group",
            )
        read.add(tower.input)
        yield from _transact_tower(context, tower, here)
    for name, group in context.groups.items():
        if group.group_type != DEEP_TYPE and name not in read:
            yield warning(
                context.group_path(name),
                f"TransAct does not read group {name!r}",
                "it reads all DEEP groups, and the SEQUENCE groups that transact_towers name",
            )


def _transact_tower(context: Context, tower: Any, path: str) -> Iterator[Problem]:
    from tzrec.config.validate.encoders import query_fits, sequence_widths

    most = tower.max_seq_length
    if most and tower.num_latest > most:
        yield Problem(
            f"{path}.num_latest", f"is {tower.num_latest}, but max_seq_length keeps {most} steps"
        )
    group = context.groups.get(tower.input)
    if group is None or group.group_type != SEQUENCE:
        return
    query, sequence = sequence_widths(context, group.feature_names)
    if query == 0:
        yield from query_fits(f"{path}.input", "transact", query, sequence)
    elif query and sequence and tower.num_heads and (query + sequence) % tower.num_heads:
        yield Problem(
            f"{path}.num_heads",
            f"is {tower.num_heads}, which does not divide the width of query and sequence "
            f"together, {query} + {sequence} = {query + sequence}",
        )


MODELS: Mapping[str, ModelFacts] = {
    "MaskNet": ModelFacts("tzrec.models.mask_net", first_group=DEEP),
    "RocketLaunching": ModelFacts(
        "tzrec.models.rocket_launching",
        first_group=DEEP,
        check=_rocket_launching,
        metric_names=_rocket_metrics,
    ),
    "FinalMLP": ModelFacts(
        "tzrec.models.final_mlp",
        optional_groups={"fs1": DEEP, "fs2": DEEP},
        first_group=DEEP,
        check=_final_mlp,
    ),
    "AutoInt": ModelFacts(
        "tzrec.models.autoint",
        optional_groups={"deep": DEEP},
        first_group=DEEP,
        check=_autoint,
    ),
    "GDCN": ModelFacts("tzrec.models.gdcn", first_group=DEEP, check=_gdcn),
    "TransAct": ModelFacts(
        "tzrec.models.transact",
        reads_all_groups=True,
        inputs={"transact_towers": STEPS},
        check=_transact,
    ),
}
