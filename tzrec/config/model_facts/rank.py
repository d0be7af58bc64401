"""Facts of the single-task rankers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tzrec.config.messages import which_field
from tzrec.config.model_facts.base import DEEP, POOLED, STEPS, ModelFacts
from tzrec.config.problem import Problem, warning
from tzrec.protos.model_pb2 import SEQUENCE

if TYPE_CHECKING:
    from tzrec.config.validate.frame import Context


def _wide_and_deep(context: Context) -> Iterator[Problem]:
    """Without ``final`` one number is added to the logits of all classes."""
    classes = context.config.model_config.num_class
    if classes > 1 and not context.model.HasField("final"):
        parts = "wide part" if context.model_type == "WideAndDeep" else "wide and FM parts"
        yield warning(
            context.model_path,
            f"the {parts} add one number to the logits of all {classes} classes alike, which "
            "softmax ignores: they learn nothing",
            "add final { hidden_units: ... }, or use num_class: 1",
        )


def _deepfm(context: Context) -> Iterator[Problem]:
    """The rules of wide and deep, and those of FM."""
    yield from _wide_and_deep(context)
    yield from _fm_widths(context)


def _fm_widths(context: Context) -> Iterator[Problem]:
    """FM multiplies vectors of one width."""
    from tzrec.config.validate.encoders import output_width, sequence_widths

    name = "fm" if "fm" in context.groups else "deep"
    if name not in context.groups:
        return
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
    by_dim: dict[int, list[str]] = {}
    for feature, dim in dims.items():
        by_dim.setdefault(dim, []).append(feature)
    if len(by_dim) > 1:
        parts = [
            f"{dim} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for dim, names in sorted(by_dim.items(), key=lambda item: -len(item[1]))
        ]
        yield Problem(
            f"{context.group_path(name)}.feature_names",
            f"FM multiplies the features of group {name!r}, so they need one width, not "
            + " and ".join(parts),
            "make their embedding_dim equal"
            + ("" if name == "fm" else ", or name a group fm that holds features of one width"),
        )


def _multi_tower(context: Context) -> Iterator[Problem]:
    if not context.model.towers and not context.is_broken(context.model_path):
        yield Problem(
            f"{context.model_path}.towers",
            "is missing: the model has no tower",
            "one towers { input: GROUP mlp { ... } } per feature group",
        )


def _multi_tower_din(context: Context) -> Iterator[Problem]:
    """DIN towers compare a query with a sequence."""
    from tzrec.config.validate.encoders import query_fits, sequence_widths

    path = context.model_path
    if not context.model.towers and not context.model.din_towers and not context.is_broken(path):
        yield Problem(
            path,
            "the model has neither towers nor din_towers",
            "one towers { input: GROUP mlp { ... } } per DEEP group, "
            "one din_towers { input: GROUP attn_mlp { ... } } per SEQUENCE group",
        )
    for index, tower in enumerate(context.model.din_towers):
        group = context.groups.get(tower.input)
        if group is not None and group.group_type == SEQUENCE:
            widths = sequence_widths(context, group.feature_names)
            yield from query_fits(f"{path}.din_towers[{index}].input", "din_encoder", *widths)


MODELS: Mapping[str, ModelFacts] = {
    "WideAndDeep": ModelFacts(
        "tzrec.models.wide_and_deep",
        required_groups={"wide": ("WIDE",), "deep": DEEP},
        check=_wide_and_deep,
    ),
    "DeepFM": ModelFacts(
        "tzrec.models.deepfm",
        required_groups={"wide": ("WIDE",), "deep": DEEP},
        optional_groups={"fm": DEEP},
        check=_deepfm,
    ),
    "MultiTower": ModelFacts(
        "tzrec.models.multi_tower", inputs={"towers": POOLED}, check=_multi_tower
    ),
    "MultiTowerDIN": ModelFacts(
        "tzrec.models.multi_tower_din",
        inputs={"towers": POOLED, "din_towers": STEPS},
        check=_multi_tower_din,
    ),
}
