"""Facts of the two-tower models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tzrec.config.messages import which_field
from tzrec.config.model_facts.base import DEEP, STEPS, ModelFacts
from tzrec.config.model_facts.widths import group_width
from tzrec.config.problem import Problem, warning
from tzrec.errors import did_you_mean

if TYPE_CHECKING:
    from tzrec.config.validate.frame import Context

TOWERS = {"user_tower.input": DEEP, "item_tower.input": DEEP}


def match(context: Context) -> Iterator[Problem]:
    """What all two-tower models need."""
    yield from _two_groups(context)
    if context.for_serving:
        return
    yield from _negatives(context)
    yield from _item_id(context)
    if not context.config.data_config.label_fields and not context.is_broken("data_config"):
        yield Problem(
            "data_config.label_fields",
            f"is missing: {context.model_type} counts rows by a label column, whatever its values",
            "name any column of one number a row",
        )


def _two_groups(context: Context) -> Iterator[Problem]:
    model, path = context.model, context.model_path
    user, item = model.user_tower.input, model.item_tower.input
    if user and user == item:
        yield Problem(
            f"{path}.item_tower.input",
            f"both towers read group {item!r}",
            "one group holds the features of users, another one those of items",
        )


# They take no positives out where their probabilities count.
_DRAW_POSITIVES_WITH_LOGQ = ("negative_sampler", "hard_negative_sampler")


def sampler_of(context: Context) -> str | None:
    """Returns the field name of the sampler, None without one."""
    return which_field(context.config.data_config, "sampler")


def _negatives(context: Context) -> Iterator[Problem]:
    """There are negatives, of one source or of both."""
    model, path, sampler = context.model, context.model_path, sampler_of(context)
    mixed = model.negatives.in_batch_and_sampled
    if not sampler and not model.in_batch_negative:
        yield Problem(
            f"{path}.in_batch_negative",
            "is false, and there is no sampler: nothing tells a positive from other items",
            "add negative_sampler { ... } to data_config, or set in_batch_negative: true",
        )
    elif sampler and model.in_batch_negative:
        yield Problem(
            f"{path}.in_batch_negative",
            f"is true, and there is a {sampler}: which of them gives the negatives?",
            "remove one of them, or for both: in_batch_negative: false "
            "negatives { in_batch_and_sampled: true }",
        )
    if mixed and not sampler:
        yield warning(
            f"{path}.negatives.in_batch_and_sampled", "has no effect: there is no sampler"
        )
    negatives = model.negatives
    if (
        sampler in _DRAW_POSITIVES_WITH_LOGQ
        and negatives.logq_correction
        and not negatives.mask_accidental_hits
    ):
        yield warning(
            f"{path}.negatives.mask_accidental_hits",
            f"is false: with logq_correction the {sampler} draws the row's own item too, which "
            "then counts as a negative of it",
            "set mask_accidental_hits: true",
        )
    in_batch = mixed if sampler else model.in_batch_negative
    for field in ("frequency_entries", "frequency_decay"):
        if model.negatives.HasField(field) and not (model.negatives.logq_correction and in_batch):
            yield warning(
                f"{path}.negatives.{field}",
                "has no effect without logq_correction of in-batch negatives",
            )


def reads_item_ids(context: Context) -> bool:
    """Returns whether the model tells items apart by ``item_id_feature``."""
    negatives = context.model.negatives
    in_batch = negatives.in_batch_and_sampled if sampler_of(context) else True
    return negatives.mask_accidental_hits or (negatives.logq_correction and in_batch)


def _item_id(context: Context) -> Iterator[Problem]:
    """Items are told apart by an id feature of theirs."""
    negatives, where = context.model.negatives, f"{context.model_path}.negatives.item_id_feature"
    name, group = negatives.item_id_feature, context.model.item_tower.input
    if not reads_item_ids(context):
        if name:
            yield warning(
                where,
                "has no effect without mask_accidental_hits, or logq_correction of in-batch "
                "negatives",
            )
        return
    members = context.groups[group].feature_names if group in context.groups else []
    found = context.features_by_name
    ids = [member for member in members if member in found and found[member].is_sparse]
    if name in ids:
        yield from _samplers_id(context, where, name)
    elif not name:
        what = "mask_accidental_hits" if negatives.mask_accidental_hits else "logq_correction"
        yield Problem(
            where,
            f"is missing: {what} tells items apart by it",
            f"one of group {group!r}: {', '.join(ids[:4])}" if ids else "",
        )
    elif group in context.groups and context.knows_all_names:
        yield Problem(
            where,
            f"{name!r} is no id feature of the item group {group!r}{did_you_mean(name, ids)}",
        )


def _samplers_id(context: Context, where: str, name: str) -> Iterator[Problem]:
    """It is the id that the sampler's items have, where it reads one column only."""
    sampler = sampler_of(context)
    if not sampler:
        return
    wanted = getattr(getattr(context.config.data_config, sampler), "item_id_field", "")
    feature = context.features_by_name[name]
    columns = [name] if context.feature_columns else [column for _, column in feature.columns]
    if wanted and columns and wanted not in columns:
        yield warning(
            where,
            f"feature {name!r} reads {' and '.join(map(repr, columns))}, but the sampler tells "
            f"items apart by {wanted!r}",
        )


def last_width(context: Context, tower: Any, *groups: str) -> int | None:
    """Returns the size of a tower's vector before ``output_dim``, None if it is not known."""
    if tower.HasField("mlp"):
        return tower.mlp.hidden_units[-1] if tower.mlp.hidden_units else None
    widths = [group_width(context, group) for group in groups if group in context.groups]
    return sum(width for width in widths if width) if all(widths) else None


def vector_sizes(context: Context, user: int | None, item: int | None) -> Iterator[Problem]:
    """Yields a problem if the vectors of the towers differ in size.

    Args:
        context: the config.
        user: size of a user's vector without ``output_dim``, None if it is not known.
        item: the same of an item's.
    """
    if not context.model.output_dim and user and item and user != item:
        yield Problem(
            f"{context.model_path}.output_dim",
            f"is 0, so the vectors are as wide as what comes before it: {user} of users, "
            f"{item} of items",
            "set output_dim, or end both towers with equal hidden_units",
        )


def _dssm(context: Context) -> Iterator[Problem]:
    yield from match(context)
    towers = (context.model.user_tower, context.model.item_tower)
    yield from vector_sizes(context, *(last_width(context, tower, tower.input) for tower in towers))


def one_data_group(context: Context) -> Iterator[Problem]:
    """Tables that the towers share are looked up for rows of one kind."""
    if sampler_of(context) and not context.config.data_config.force_base_data_group:
        yield Problem(
            "data_config.force_base_data_group",
            f"is false: the towers of {context.model_type} share their tables, so sampled items "
            "and users need rows of one kind",
            "set force_base_data_group: true",
        )


def _dssm_v2(context: Context) -> Iterator[Problem]:
    yield from _dssm(context)
    if not context.for_serving:
        yield from one_data_group(context)


def _dat(context: Context) -> Iterator[Problem]:
    """Augment groups are as wide as the vectors that they mimic."""
    yield from _dssm(context)
    model = context.model
    pairs = (("user_tower", model.item_tower), ("item_tower", model.user_tower))
    for field, other in pairs:
        name = getattr(model, field).augment_input
        width = group_width(context, name) if name in context.groups else None
        vector = model.output_dim or last_width(context, other)
        if width and vector and width != vector:
            yield Problem(
                f"{context.model_path}.{field}.augment_input",
                f"group {name!r} is {width} wide, but it mimics the vectors of the other tower, "
                f"of size {vector}",
                f"make embedding_dim of its id feature {vector}",
            )


def _mind(context: Context) -> Iterator[Problem]:
    """Interests are compared with items; one field does nothing."""
    yield from match(context)
    model = context.model
    units = model.user_tower.concat_mlp.hidden_units
    item = last_width(context, model.item_tower, model.item_tower.input)
    yield from vector_sizes(context, units[-1] if units else None, item)
    if model.user_tower.HasField("user_seq_combine"):
        yield warning(
            f"{context.model_path}.user_tower.user_seq_combine",
            "has no effect: concat_mlp reads the user's vector beside each capsule",
        )


MODELS: Mapping[str, ModelFacts] = {
    "DSSM": ModelFacts("tzrec.models.dssm", group_fields=TOWERS, is_match=True, check=_dssm),
    "DSSMV2": ModelFacts(
        "tzrec.models.dssm_v2", group_fields=TOWERS, is_match=True, check=_dssm_v2
    ),
    "DAT": ModelFacts(
        "tzrec.models.dat",
        group_fields={
            **TOWERS,
            "user_tower.augment_input": DEEP,
            "item_tower.augment_input": DEEP,
        },
        is_match=True,
        check=_dat,
    ),
    "MIND": ModelFacts(
        "tzrec.models.mind",
        group_fields={**TOWERS, "user_tower.history_input": STEPS},
        is_match=True,
        check=_mind,
    ),
}
