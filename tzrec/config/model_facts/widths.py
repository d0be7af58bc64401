"""Widths of feature groups, and the rule of models that compare features: they have one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tzrec.config.messages import which_field
from tzrec.config.problem import Problem

if TYPE_CHECKING:
    from tzrec.config.validate.frame import Context


def group_widths(context: Context, name: str) -> dict[str, int]:
    """Returns the width of each feature and sequence encoder of a group, as far as known."""
    from tzrec.config.validate.encoders import output_width, sequence_widths

    group = context.groups[name]
    dims = {n: d for n, d in context.group_dims(name).items() if d is not None}
    nested = {sub.group_name or name: sub for sub in group.sequence_groups}
    for index, wrapper in enumerate(group.sequence_encoders):
        kind = which_field(wrapper, "seq_module")
        if kind is None:
            continue
        encoder = getattr(wrapper, kind)
        source = nested.get(encoder.input or next(iter(nested), ""))
        if source is not None:
            _, width = sequence_widths(context, source.feature_names)
            dim = output_width(kind, encoder, width)
            if dim is not None:
                dims[f"sequence_encoders[{index}]"] = dim
    return dims


def group_width(context: Context, name: str) -> int | None:
    """Returns the number of columns of a DEEP group, None if the config leaves it open."""
    group, widths = context.groups[name], group_widths(context, name)
    known = len(widths) == len(group.feature_names) + len(group.sequence_encoders)
    return sum(widths.values()) if known else None


def one_width(context: Context, name: str, why: str, cure: str = "") -> Iterator[Problem]:
    """Yields a problem if the features of a group differ in width.

    Args:
        context: the config.
        name: the group, which exists.
        why: what needs one width, the first half of the message.
        cure: another way out than to make the widths equal.
    """
    by_dim: dict[int, list[str]] = {}
    for feature, dim in group_widths(context, name).items():
        by_dim.setdefault(dim, []).append(feature)
    if len(by_dim) > 1:
        parts = [
            f"{dim} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for dim, names in sorted(by_dim.items(), key=lambda item: -len(item[1]))
        ]
        yield Problem(
            f"{context.group_path(name)}.feature_names",
            f"{why}, so they need one width, not " + " and ".join(parts),
            "make their embedding_dim equal" + (f", or: {cure}" if cure else ""),
        )
