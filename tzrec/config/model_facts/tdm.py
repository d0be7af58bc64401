"""Facts of the tree model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tzrec.config.model_facts.base import ModelFacts
from tzrec.config.problem import Problem, warning
from tzrec.config.sampler_facts import SamplerFacts, columns_of, sampler_of
from tzrec.protos.model_pb2 import DEEP, SEQUENCE, FeatureGroupType

if TYPE_CHECKING:
    from tzrec.config.validate.frame import Context


def _tdm(context: Context) -> Iterator[Problem]:
    yield from _groups(context)
    yield from _windows(context)
    if not context.for_serving:
        yield from _sampler(context)


def _groups(context: Context) -> Iterator[Problem]:
    """One SEQUENCE group, its query the node; others are DEEP."""
    if context.is_broken("model_config.feature_groups"):
        return
    histories = []
    for name, group in context.groups.items():
        if group.group_type == SEQUENCE:
            histories.append(name)
        elif group.group_type != DEEP:
            kind = FeatureGroupType.Name(group.group_type)
            yield Problem(
                context.group_path(name),
                f"group {name!r} is {kind}, but TDM reads SEQUENCE and DEEP groups",
            )
    if len(histories) != 1:
        yield Problem(
            context.model_path,
            f"TDM reads one SEQUENCE group, there are {len(histories)}",
            "it holds the user's history, and as query the features of the node",
        )
        return
    yield from _query(context, histories[0])


def _query(context: Context, name: str) -> Iterator[Problem]:
    """The query is not wider than the steps, and comes from the node."""
    from tzrec.config.validate.encoders import sequence_widths

    path = context.group_path(name)
    query, sequence = sequence_widths(context, context.groups[name].feature_names)
    if query == 0:
        yield Problem(
            path,
            f"group {name!r} has no query, the features of the node that is scored",
            "add the item's features to it, such as its id",
        )
    elif query is not None and sequence and query > sequence:
        yield Problem(
            path,
            f"the query is {query} wide, wider than the sequence with {sequence}",
            "the node's features must not be wider than those of a step",
        )


def _windows(context: Context) -> Iterator[Problem]:
    path = f"{context.model_path}.multiwindow_din"
    if not context.model.multiwindow_din.windows_len and not context.is_broken(path):
        yield Problem(
            f"{path}.windows_len",
            "is missing: how many steps of the history each window holds",
            "for example [1, 1, 2, 4, 8]",
        )


def _sampler(context: Context) -> Iterator[Problem]:
    """Rows become nodes by ``tdm_sampler``."""
    sampler = sampler_of(context.config.data_config)
    if sampler is None:
        yield warning(
            "data_config",
            "there is no tdm_sampler: the model learns the rows as they are, and no tree",
            "python -m tzrec.tools.tdm.init_tree makes a tree and shows the tdm_sampler for it",
        )
    elif sampler.is_tree:
        yield from _counts(sampler, context)
        yield from _node_columns(context, sampler)
        if sampler.config.HasField("num_eval_sample"):
            yield warning(
                f"{sampler.path}.num_eval_sample",
                "has no effect: evaluations draw as many nodes as training, layer_num_sample",
            )


def _counts(sampler: SamplerFacts, context: Context) -> Iterator[Problem]:
    """A number for each level, 0 for the root."""
    path, counts = f"{sampler.path}.layer_num_sample", sampler.config.layer_num_sample
    if not counts and not context.is_broken(sampler.path):
        yield Problem(
            path,
            "is missing: how many negatives are drawn on each level of the tree",
            "one number a level, the first one 0 for the root, for example [0, 1, 2, 3]",
        )
    elif counts and counts[0]:
        yield Problem(f"{path}[0]", f"is {counts[0]}, must be 0: the root is the only one there")
    elif counts and not sum(counts):
        yield Problem(path, "has only zeros: there would be no negatives")


def _node_columns(context: Context, sampler: SamplerFacts) -> Iterator[Problem]:
    """Features of the node read what the sampler brings."""
    by_name = context.feature_columns
    sampled = {sampler.config.item_id_field, *sampler.attr_fields}
    queries = {
        name
        for group in context.groups.values()
        if group.group_type == SEQUENCE
        for name in group.feature_names
    }
    for feature in context.features:
        if feature.is_sequence or feature.name not in context.grouped_features:
            continue
        columns = columns_of(feature, by_name=by_name)
        others = [name for name in columns if name not in sampled]
        sides = {text.partition(":")[0].strip() for _, text in feature.inputs}
        hint = f"take it into {sampler.path}.attr_fields and the tree's node table"
        if others and feature.name in queries:
            yield Problem(
                feature.path,
                f"feature {feature.name!r} is the node that is scored, but its column "
                f"{others[0]!r} is no attribute of the tree's nodes",
                hint,
            )
        elif others and sides == {"item"}:
            yield warning(
                feature.path,
                f"column {others[0]!r} of an item is no attribute of the tree's nodes: all nodes "
                f"of a row get that of its own item, which tells the model the answer",
                hint,
            )


MODELS: Mapping[str, ModelFacts] = {
    "TDM": ModelFacts("tzrec.models.tdm", reads_all_groups=True, check=_tdm),
}
