"""Rules for samplers: which columns they sample, and who reads these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tzrec.config.feature_facts import FeatureFacts
from tzrec.config.model_facts import MODELS
from tzrec.config.problem import Problem, warning
from tzrec.config.sampler_facts import SamplerFacts, candidate_readers, columns_of, sampler_of
from tzrec.config.validate.frame import Context, quoted
from tzrec.errors import did_you_mean

_ITEM, _USER = "item_tower.", "user_tower."


def without(context: Context) -> Iterator[Problem]:
    """What only a sampler needs is not written without one."""
    data = context.config.data_config
    if data.force_base_data_group and not context.for_serving and _rows(context) is None:
        yield warning(
            "data_config.force_base_data_group",
            "has no effect: no sampler puts features on other rows than those of the batch",
        )


def model(context: Context) -> Iterator[Problem]:
    """The model learns from what the sampler gives."""
    sampler = _sampler(context)
    facts = MODELS.get(context.model_type)
    if sampler is None or facts is None or context.model_type == "CustomModel":
        return
    if sampler.is_tree != (context.model_type == "TDM") and (
        sampler.is_tree or facts.is_match or context.model_type == "TDM"
    ):
        wanted = "TDM" if sampler.is_tree else "a two-tower model"
        yield Problem(
            sampler.path,
            f"{sampler.field} is for {wanted}, not for {context.model_type}",
            "use tdm_sampler" if context.model_type == "TDM" else "",
        )
    elif not sampler.is_tree and not facts.is_match:
        models = [name for name, known in MODELS.items() if known.is_match]
        yield Problem(
            sampler.path,
            f"{context.model_type} learns from labels, not from sampled items",
            f"remove it, or use a two-tower model: {', '.join(models)}",
        )


def fields(context: Context) -> Iterator[Problem]:
    """Ids, attributes and delimiters are written and mean something."""
    sampler = _sampler(context)
    if sampler is None or context.is_broken(sampler.path):
        return
    for where, name in sampler.id_columns():
        if sampler.config.HasField(where.rpartition(".")[2]) and not name:
            yield Problem(where, "is empty")
    for name in sampler.table_fields:
        if sampler.config.HasField(name) and not getattr(sampler.config, name).strip():
            yield Problem(f"{sampler.path}.{name}", "is empty")
    yield from _attributes(context, sampler)
    yield from _unused(sampler)
    delimiters = (sampler.config.attr_delimiter, sampler.config.field_delimiter or "\t")
    if not delimiters[0]:
        yield Problem(f"{sampler.path}.attr_delimiter", "is empty", 'the default is ":"')
    elif delimiters[0] == delimiters[1]:
        yield Problem(
            f"{sampler.path}.attr_delimiter",
            f"is {delimiters[0]!r}, as the delimiter of columns is",
        )


def _unused(sampler: SamplerFacts) -> Iterator[Problem]:
    config = sampler.config
    where = f"{sampler.path}.num_eval_sample"
    if config.HasField("num_eval_sample") and sampler.is_tree:
        yield warning(where, "has no effect: layer_num_sample counts in evaluation too")
    elif config.HasField("num_eval_sample") and not config.num_eval_sample:
        yield Problem(where, "is 0, must be at least 1", "without it evaluation takes num_sample")
    if sampler.field == "negative_sampler" and config.HasField("item_id_delim"):
        yield warning(f"{sampler.path}.item_id_delim", "has no effect: a row has one id")
    if sampler.field.endswith("_v2") and config.weight_field:
        yield warning(
            f"{sampler.path}.weight_field",
            "has no effect: this sampler draws all items with a positive edge alike",
        )


def _attributes(context: Context, sampler: SamplerFacts) -> Iterator[Problem]:
    names, data = sampler.attr_fields, context.config.data_config
    if not names and not sampler.is_tree:
        yield Problem(
            f"{sampler.path}.attr_fields",
            "is missing: a sampled item has no columns",
            "the columns that features of the item group read, in the order of the item table",
        )
    learnt = {*data.label_fields, *data.sample_weight_fields}
    for index, name in enumerate(names):
        where = f"{sampler.path}.attr_fields[{index}]"
        if name in names[:index]:
            yield Problem(where, f"{name!r} is given twice")
        elif name in learnt:
            yield Problem(where, f"{name!r} is what a row is learnt from, no column of an item")


def columns(context: Context) -> Iterator[Problem]:
    """The sampler's columns are those that features read."""
    sampler = _sampler(context)
    if sampler is None or context.is_broken("feature_configs") or not context.features:
        return
    read = _all_columns(context)
    declared = [field.input_name for field in context.config.data_config.input_fields]
    declared += [context.config.data_config.input_fields_str]
    for where, name in sampler.id_columns():
        near = did_you_mean(name, read)
        if name and name not in read and near and not any(declared):
            yield Problem(where, f"no feature reads column {name!r}{near}")
    if not sampler.is_tree:
        yield from _sampled(context, sampler, read)


def _sampled(context: Context, sampler: SamplerFacts, read: Sequence[str]) -> Iterator[Problem]:
    config, names = sampler.config, sampler.attr_fields
    rows = _rows(context)
    if rows is None:  # candidates
        return
    if names and config.item_id_field in read and config.item_id_field not in names:
        yield Problem(
            f"{sampler.path}.attr_fields",
            f"lacks item_id_field {config.item_id_field!r}, which features read",
            "add it, in its place among the attributes of the item table",
        )
    for index, name in enumerate(names):
        if name not in read and name != config.item_id_field and names.count(name) == 1:
            yield warning(
                f"{sampler.path}.attr_fields[{index}]",
                f"no feature reads {name!r}, its values are left out{did_you_mean(name, read)}",
            )


def candidates(context: Context) -> Iterator[Problem]:
    """Rows with several items are steps of a grouped sequence, long enough for sampled ones."""
    sampler = _sampler(context)
    if sampler is None or sampler.is_tree or not sampler.config.item_id_field:
        return
    where, name = f"{sampler.path}.item_id_field", sampler.config.item_id_field
    for reader in _candidate_readers(context, sampler):
        if reader.sequence is None:
            yield Problem(
                where,
                f"{name!r} is read by the sequence {reader.name!r}",
                "candidates are the steps of a sequence_feature { ... }",
            )
            return
        facts = MODELS.get(context.model_type)
        if facts is not None and facts.is_match:
            yield Problem(
                where,
                f"{name!r} is a step of {reader.sequence.sequence_name!r}: rows with several "
                f"items, and {context.model_type} learns one item a row",
            )
        length = reader.sequence.sequence_length
        if 0 < length <= sampler.config.num_sample:
            yield Problem(
                f"{reader.path.partition('.features')[0]}.sequence_length",
                f"is {length}, but the last row of a batch gets the {sampler.config.num_sample} "
                "sampled items too",
                "raise it to the longest row and num_sample together",
            )
        return


def mixed(context: Context) -> Iterator[Problem]:
    """No feature reads sampled and other columns: it would have no number of rows."""
    rows = _rows(context)
    if rows is None:
        return
    for feature in context.features:
        if rows.are_mixed(feature) and not any(map(rows.are_mixed, rows.sources(feature))):
            found = rows.columns(feature)
            own, others = sorted(found & rows.sampled), sorted(found - rows.sampled)
            yield Problem(
                feature.path,
                f"feature {feature.name!r} reads {quoted(own)}, which the sampler adds rows to, "
                f"and {quoted(others)}, which it does not",
                "a sampled item belongs to no row of the batch. Take the other columns into "
                f"{rows.sampler.path}.attr_fields where they are the item's, or remove the feature",
            )


def groups(context: Context) -> Iterator[Problem]:
    """A feature group lives on the rows of the batch, or on these and the sampled ones."""
    rows = _rows(context)
    if rows is None:
        return
    facts, towers = MODELS.get(context.model_type), {}
    for field in facts.group_fields if facts is not None and facts.is_match else ():
        message, _, name = field.partition(".")
        group = getattr(getattr(context.model, message), name, "")
        towers[group] = f"{message}."
    forced = context.config.data_config.force_base_data_group
    for name, group in context.groups.items():
        names = [*group.feature_names, *(n for s in group.sequence_groups for n in s.feature_names)]
        known = [context.features_by_name[n] for n in names if n in context.features_by_name]
        sampled = [f.name for f in known if rows.columns(f) & rows.sampled]
        others = [f.name for f in known if f.name not in sampled]
        where = f"{context.group_path(name)}.feature_names"
        tower = towers.get(name)
        if tower == _ITEM and others:
            yield Problem(
                where,
                f"group {name!r} of the item tower has {quoted(others)}, which sampled items lack",
                f"take what they read into {rows.sampler.path}.attr_fields",
            )
        elif tower == _USER and sampled:
            yield Problem(
                where,
                f"group {name!r} of the user tower has {quoted(sampled)}, which "
                f"{rows.sampler.field} samples with the items",
                f"remove them from the group, or from {rows.sampler.path}.attr_fields",
            )
        elif sampled and others and not forced:
            yield Problem(
                where,
                f"group {name!r} has features of sampled columns, {quoted(sampled)}, and others, "
                f"{quoted(others)}: their rows differ",
                "make two groups of it, or set data_config.force_base_data_group: true",
            )


class _Rows:
    """Which columns a sampler adds rows to, and which of all columns a feature depends on."""

    def __init__(self, context: Context, sampler: SamplerFacts) -> None:
        self.sampler = sampler
        self.sampled = set(sampler.attr_fields)
        self._context = context

    def columns(self, feature: FeatureFacts, seen: frozenset[str] = frozenset()) -> set[str]:
        """Returns the columns that a feature reads, itself or through other features."""
        found = set(columns_of(feature, by_name=self._context.feature_columns))
        for other in self.sources(feature):
            if other.name not in seen:
                found |= self.columns(other, seen | {feature.name})
        return found

    def sources(self, feature: FeatureFacts) -> list[FeatureFacts]:
        """Returns the features that a feature reads itself."""
        if self._context.feature_columns:
            return []
        read = [text.partition(":")[::2] for _, text in feature.inputs]
        names = [name.strip() for side, name in read if side.strip() == "feature"]
        known = self._context.features_by_name
        return [known[name] for name in names if name in known and name != feature.name]

    def are_mixed(self, feature: FeatureFacts) -> bool:
        """Returns whether a feature reads sampled columns and others."""
        found = self.columns(feature)
        return bool(found & self.sampled and found - self.sampled)


def _rows(context: Context) -> _Rows | None:
    """Returns the rows of a sampler that adds some; one of a tree, or of candidates, does not."""
    sampler = _sampler(context)
    if sampler is None or sampler.is_tree or _candidate_readers(context, sampler):
        return None
    return _Rows(context, sampler)


def _sampler(context: Context) -> SamplerFacts | None:
    """Returns the sampler; prediction has none."""
    return None if context.for_serving else sampler_of(context.config.data_config)


def _candidate_readers(context: Context, sampler: SamplerFacts) -> list[FeatureFacts]:
    name = sampler.config.item_id_field
    return candidate_readers(name, context.features, by_name=context.feature_columns)


def _all_columns(context: Context) -> list[str]:
    by_name = context.feature_columns
    found = [name for f in context.features for name in columns_of(f, by_name=by_name)]
    return list(dict.fromkeys(found))


RULES = (without, model, fields, columns, candidates, mixed, groups)
