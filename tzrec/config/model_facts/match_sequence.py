"""Facts of the two-tower model over histories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tzrec.config.model_facts.base import DEEP, ModelFacts
from tzrec.config.model_facts.match import (
    last_width,
    match,
    one_data_group,
    vector_sizes,
)
from tzrec.config.model_facts.widths import group_width
from tzrec.config.problem import Problem

if TYPE_CHECKING:
    from tzrec.config.validate.frame import Context

_HISTORIES = ("SEQUENCE", "JAGGED_SEQUENCE")


def _sequence_two_tower(context: Context) -> Iterator[Problem]:
    yield from match(context)
    model, groups = context.model, context.groups
    history, item = model.user_tower.history_input, model.item_tower.input
    if history in groups:
        yield from _history(context, groups[history])
    if item in groups and groups[item].sequence_groups:
        yield Problem(
            context.group_path(item),
            f"SequenceTwoTower looks up group {item!r} like steps, so it has no sequence_groups",
        )
    if history in groups and item in groups:
        yield from _tables(context, groups[history], groups[item])
        if model.all_positions:
            yield from _alike(context, groups[history], groups[item])
    if not context.for_serving:
        yield from one_data_group(context)


def _history(context: Context, group: Any) -> Iterator[Problem]:
    """It holds steps only, which the heads divide; vectors are of one size."""
    from tzrec.config.validate.encoders import sequence_widths

    known, tower = context.features_by_name, context.model.user_tower
    path = context.group_path(group.group_name)
    for index, name in enumerate(group.feature_names):
        if name in known and not known[name].is_sequence:
            yield Problem(
                f"{path}.feature_names[{index}]",
                f"{name!r} is no sequence, but group {group.group_name!r} is the history",
                "features of users stand in user_tower.input, those of items in item_tower.input",
            )
    _, width = sequence_widths(context, group.feature_names)
    if width and tower.num_heads and width % tower.num_heads:
        yield Problem(
            f"{context.model_path}.user_tower.num_heads",
            f"is {tower.num_heads}, it must divide the size of a step, {width}",
        )
    user = width
    if width and tower.input in context.groups:
        own = group_width(context, tower.input)
        user = None if own is None else width + own
    if tower.HasField("mlp"):
        user = last_width(context, tower)
    item = context.model.item_tower
    yield from vector_sizes(context, user, last_width(context, item, item.input))


def _tables(context: Context, history: Any, item: Any) -> Iterator[Problem]:
    if history.embedding_name_suffix != item.embedding_name_suffix:
        yield Problem(
            f"{context.group_path(item.group_name)}.embedding_name_suffix",
            f"is {item.embedding_name_suffix!r}, but that of the history is "
            f"{history.embedding_name_suffix!r}: items and steps are looked up together",
            "make them equal",
        )


def _alike(context: Context, history: Any, item: Any) -> Iterator[Problem]:
    """A step is an item: the same features in the same order, with the same tables."""
    path = f"{context.model_path}.all_positions"
    steps, items, known = history.feature_names, item.feature_names, context.features_by_name
    if len(steps) != len(items):
        yield Problem(
            path,
            f"learns steps as items, but group {history.group_name!r} has {len(steps)} features "
            f"and group {item.group_name!r} has {len(items)}",
            "give both groups the same features in the same order",
        )
        return
    for step, own in zip(steps, items, strict=True):
        if step in known and own in known and _kind(known[step]) != _kind(known[own]):
            yield Problem(
                path,
                f"learns steps as items, but {step!r} of group {history.group_name!r} and {own!r} "
                f"of group {item.group_name!r} differ in table or size",
                "give both the same embedding_name, embedding_dim and value_dim, and stand them "
                "at the same place in their groups",
            )


def _kind(feature: Any) -> tuple[Any, ...]:
    """Returns what two features have in common that are embedded alike."""
    if feature.is_sparse:
        return True, feature.embedding_name, feature.dim
    return False, feature.dim


MODELS: Mapping[str, ModelFacts] = {
    "SequenceTwoTower": ModelFacts(
        "tzrec.models.sequence_two_tower",
        group_fields={
            "user_tower.input": DEEP,
            "user_tower.history_input": _HISTORIES,
            "item_tower.input": DEEP,
        },
        is_match=True,
        check=_sequence_two_tower,
    ),
}
