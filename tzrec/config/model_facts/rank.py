"""Facts of the single-task rankers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tzrec.config.model_facts.base import DEEP, POOLED, STEPS, ModelFacts
from tzrec.config.model_facts.widths import group_widths, one_width
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
    name = "fm" if "fm" in context.groups else "deep"
    if name in context.groups:
        cure = "" if name == "fm" else "name a group fm that holds features of one width"
        yield from one_width(context, name, f"FM multiplies the features of group {name!r}", cure)


def _xdeepfm(context: Context) -> Iterator[Problem]:
    """CIN has layers."""
    path = f"{context.model_path}.cin"
    if not context.model.cin.cin_layer_size and not context.is_broken(path):
        yield Problem(
            f"{path}.cin_layer_size", "is missing: the CIN has no layers", "for example [64, 64]"
        )


def _dlrm(context: Context) -> Iterator[Problem]:
    """The rules of vectors, and at least one pair of them."""
    yield from _vectors(context)
    name = _sparse_group(context)
    if name and len(context.groups[name].feature_names) == 1 and not _reads_dense(context):
        yield Problem(
            f"{context.group_path(name)}.feature_names",
            f"DLRM multiplies pairs of features, but group {name!r} has only one",
            "add features, or a group dense with dense_mlp",
        )


def _wukong(context: Context) -> Iterator[Problem]:
    """The rules of vectors, and at least one layer."""
    yield from _vectors(context)
    if not context.model.wukong_layers and not context.is_broken(context.model_path):
        yield Problem(
            f"{context.model_path}.wukong_layers",
            "is missing: the model has no layer",
            "wukong_layers { lcb_feature_num: 16 fmb_feature_num: 16 "
            "feature_num_mlp { hidden_units: 512 } }",
        )


def _sparse_group(context: Context) -> str:
    """Returns the group whose features are vectors, "" if it is missing."""
    if len(context.groups) == 1:
        return next(iter(context.groups))
    return "sparse" if "sparse" in context.groups else ""


def _reads_dense(context: Context) -> bool:
    return "dense" in context.groups and _sparse_group(context) != "dense"


def _vectors(context: Context) -> Iterator[Problem]:
    """Features are vectors of one width, and ``dense_mlp`` makes one more of the numbers."""
    model, sparse = context.model_type, _sparse_group(context)
    names = [sparse] if sparse else []
    if _reads_dense(context):
        names.append("dense")
    for name in names:
        group = context.groups[name]
        if group.sequence_groups or group.sequence_encoders:
            part = "sequence_encoders" if group.sequence_encoders else "sequence_groups"
            yield Problem(
                f"{context.group_path(name)}.{part}",
                f"{model} takes no {part}, group {name!r} has some",
                "list the sequence's id features in feature_names: they are pooled",
            )
    if sparse:
        why = f"{model} multiplies the features of group {sparse!r}"
        yield from one_width(context, sparse, why)
    yield from _dense_mlp(context, sparse)


def _dense_mlp(context: Context, sparse: str) -> Iterator[Problem]:
    """``dense_mlp`` stands beside a group ``dense``, and ends with the width of the others."""
    path = f"{context.model_path}.dense_mlp"
    widths = set(group_widths(context, sparse).values()) if sparse else set()
    width = widths.pop() if len(widths) == 1 else None
    if not context.model.HasField("dense_mlp"):
        if _reads_dense(context) and not context.is_broken(context.model_path):
            yield Problem(
                path,
                "is missing: it makes a vector of the group 'dense'",
                f"dense_mlp {{ hidden_units: [64, {width or 16}] }}",
            )
    elif not _reads_dense(context):
        yield warning(path, "has no effect: there is no group 'dense' beside the sparse one")
    else:
        units = list(context.model.dense_mlp.hidden_units)
        if units and width is not None and units[-1] != width:
            yield Problem(
                f"{path}.hidden_units[{len(units) - 1}]",
                f"is {units[-1]}, but the features of group {sparse!r} are {width} wide, and "
                f"{context.model_type} multiplies them",
                f"end dense_mlp with {width}",
            )


def _multi_tower(context: Context) -> Iterator[Problem]:
    if not context.model.towers and not context.is_broken(context.model_path):
        yield Problem(
            f"{context.model_path}.towers",
            "is missing: the model has no tower",
            "one towers { input: GROUP mlp { ... } } per feature group",
        )
    yield from _twin_towers(context, "towers")


def _twin_towers(context: Context, field: str) -> Iterator[Problem]:
    """Every tower reads a group of its own."""
    seen = set()
    for index, tower in enumerate(getattr(context.model, field)):
        if tower.input and tower.input in seen:
            yield Problem(
                f"{context.model_path}.{field}[{index}].input",
                f"two {field} read the feature group {tower.input!r}",
                "merge them, or list its features in a second group",
            )
        seen.add(tower.input)


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
    yield from _twin_towers(context, "towers")
    yield from _twin_towers(context, "din_towers")
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
    "xDeepFM": ModelFacts(
        "tzrec.models.xdeepfm",
        required_groups={"wide": ("WIDE",), "deep": DEEP},
        check=_xdeepfm,
    ),
    "DLRM": ModelFacts(
        "tzrec.models.dlrm",
        required_groups={"sparse": DEEP},
        optional_groups={"dense": DEEP},
        lone_group="sparse",
        check=_dlrm,
    ),
    "WuKong": ModelFacts(
        "tzrec.models.wukong",
        required_groups={"sparse": DEEP},
        optional_groups={"dense": DEEP},
        lone_group="sparse",
        check=_wukong,
    ),
    "DCNV1": ModelFacts("tzrec.models.dcn_v1", first_group=DEEP),
    "DCNV2": ModelFacts("tzrec.models.dcn_v2", first_group=DEEP),
    "MultiTower": ModelFacts(
        "tzrec.models.multi_tower", inputs={"towers": POOLED}, check=_multi_tower
    ),
    "MultiTowerDIN": ModelFacts(
        "tzrec.models.multi_tower_din",
        inputs={"towers": POOLED, "din_towers": STEPS},
        check=_multi_tower_din,
    ),
}
