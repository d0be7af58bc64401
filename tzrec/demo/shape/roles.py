"""What the columns of a matching config are about: an item, a user, or what the user took."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tzrec.config.messages import which_field
from tzrec.demo.shape.columns import Column
from tzrec.demo.shape.domains import MOST_DISTINCT, Ids
from tzrec.protos.pipeline_pb2 import EasyRecConfig

if TYPE_CHECKING:
    from tzrec.features.feature import BaseFeature

TREE_LEVEL = "tree_level"


@dataclasses.dataclass(frozen=True)
class Roles:
    """What columns are about.

    Attributes:
        item_id: column that tells items apart.
        items: columns that follow from the item, `item_id` first.
        user_id: column that tells users apart, None where nothing does.
        users: columns that follow from the user, without `user_id`.
        past: column of a history → column of the items in it.
        sequence: grouped sequence whose steps are what the user took; "" where a row is one item.
            `items` are then names without it.
    """

    item_id: str
    items: tuple[str, ...]
    user_id: str | None
    users: tuple[str, ...]
    past: Mapping[str, str]
    sequence: str = ""

    def column(self, item: str) -> str:
        """Returns the column of the rows that holds what is taken."""
        return f"{self.sequence}__{item}" if self.sequence else item


def sampler_of(config: EasyRecConfig) -> Any:
    """Returns the message of the sampler, None without one."""
    name = which_field(config.data_config, "sampler")
    return getattr(config.data_config, name) if name else None


def id_columns(config: EasyRecConfig, columns: Sequence[Column]) -> list[Column]:
    """Returns the columns of ids that no feature reads, only the sampler."""
    sampler, known = sampler_of(config), {column.name for column in columns}
    names = [getattr(sampler, field, "") for field in ("item_id_field", "user_id_field")]
    return [Column(name, Ids(MOST_DISTINCT)) for name in names if name and name not in known]


def roles_of(
    config: EasyRecConfig, features: Sequence[BaseFeature], columns: Sequence[Column]
) -> Roles | None:
    """Returns what the columns of a config are about; None where its model does not match.

    A config is one of matching if it has a sampler, or a model with a tower of items.

    Args:
        config: a checked config.
        features: its features.
        columns: what they read.
    """
    known = {column.name: column for column in columns}
    sampler = sampler_of(config)
    item_id, items, sequence = _of_sampler(sampler, known) if sampler else ("", [], "")
    model_field = which_field(config.model_config, "model")
    model = getattr(config.model_config, model_field) if model_field else None
    if not item_id and model is not None and hasattr(model, "item_tower"):
        item_id, items = _of_tower(config, model, features, known)
    if not item_id:
        return None
    of_rows = [f"{sequence}__{name}" if sequence else name for name in items]
    past = _past(features, {n: i for n, i in zip(of_rows, items, strict=True) if n in known})
    past = {name: item for name, item in past.items() if name in known}
    others = [name for name in known if name not in {*of_rows, *past}]
    user_id = getattr(sampler, "user_id_field", "") or _user_id(features, others, known)
    context = {c for f in features if _is_of_context(f) for c in f.inputs}
    users = [
        name
        for name in others
        if name != user_id and known[name].steps is None and name not in context
    ]
    return Roles(item_id, tuple(items), user_id or None, tuple(users), past, sequence)


def _of_sampler(sampler: Any, known: Mapping[str, Column]) -> tuple[str, list[str], str]:
    """Returns the id, the columns of items, and the sequence that they are steps of."""
    item_id = str(sampler.item_id_field)
    sequence = ""
    if item_id in known and known[item_id].steps is not None and "__" in item_id:
        sequence, _, item_id = item_id.partition("__")
    names = [str(name) for name in sampler.attr_fields if name != TREE_LEVEL]
    in_rows = (f"{sequence}__" if sequence else "").__add__
    wanted = dict.fromkeys([item_id, *names])
    return item_id, [n for n in wanted if n == item_id or in_rows(n) in known], sequence


def _of_tower(
    config: EasyRecConfig, model: Any, features: Sequence[BaseFeature], known: Mapping[str, Column]
) -> tuple[str, list[str]]:
    """Returns the id and the columns of items, as the groups of the item tower say."""
    groups = {group.group_name: group for group in config.model_config.feature_groups}
    inputs = [
        str(getattr(model.item_tower, field))
        for field in ("input", "augment_input")
        if hasattr(model.item_tower, field)
    ]
    names = {n for group in inputs if group in groups for n in groups[group].feature_names}
    found = [feature for feature in features if feature.name in names]
    columns = list(dict.fromkeys(c for feature in found for c in feature.inputs if c in known))
    wanted = str(model.negatives.item_id_feature) if hasattr(model, "negatives") else ""
    item_id = next((f.inputs[0] for f in found if f.name == wanted), "")
    item_id = item_id or _largest(found, columns, known)
    return item_id, [item_id, *(c for c in columns if c != item_id)] if item_id else []


def _user_id(
    features: Sequence[BaseFeature], columns: Sequence[str], known: Mapping[str, Column]
) -> str:
    return _largest([f for f in features if not _is_of_context(f)], columns, known)


def _largest(
    features: Iterable[BaseFeature], columns: Sequence[str], known: Mapping[str, Column]
) -> str:
    """Returns the column whose feature has the most ids, one in a row; "" if there is none."""
    single = {
        feature.inputs[0]: feature.num_embeddings
        for feature in features
        if feature.is_sparse and len(feature.inputs) == 1 and feature.inputs[0] in columns
    }
    plain = [n for n in single if known[n].is_plain and known[n].steps is None]
    one = [n for n in plain if not known[n].many and known[n].dim == 1]
    return max(one, key=lambda name: single[name], default="")


def _is_of_context(feature: BaseFeature) -> bool:
    return str(getattr(feature.config, "expression", "")).startswith("context:")


def _past(features: Sequence[BaseFeature], items: Mapping[str, str]) -> dict[str, str]:
    """Returns columns of steps that hold what a column of items does.

    It is called ``{sequence}__`` and the column, or its feature shares a table with the one that
    reads the column.
    """
    tables = {
        feature.embedding_name: items[feature.inputs[0]]
        for feature in reversed(features)
        if feature.is_sparse and len(feature.inputs) == 1 and feature.inputs[0] in items
    }
    found: dict[str, str] = {}
    for feature in features:
        if not feature.is_sequence:
            continue
        for column in feature.inputs:
            _, grouped, base = column.partition("__")
            if column in items:
                continue
            if grouped and base in items.values():
                found[column] = base
            elif feature.is_sparse and len(feature.inputs) == 1:
                item = tables.get(feature.embedding_name)
                if item is not None:
                    found[column] = item
    return found
