"""Rules for features: names, inputs, tables, values."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator

from tzrec.config.feature_facts import ID_BUCKETISERS, SIDES, FeatureFacts
from tzrec.config.init_text import read_init_fn
from tzrec.config.messages import is_required, which_field
from tzrec.config.problem import Problem, warning
from tzrec.config.validate.frame import Context, quoted
from tzrec.errors import ConfigError, did_you_mean
from tzrec.protos.data_pb2 import FG_DAG, FG_NORMAL


def names(context: Context) -> Iterator[Problem]:
    """Names are unique."""
    seen: dict[str, FeatureFacts] = {}
    for feature in context.features:
        name = feature.name
        if not feature.config.feature_name:
            if feature.config.HasField("feature_name"):
                yield Problem(f"{feature.path}.feature_name", "is empty")
            continue  # reported as missing
        if name in seen:
            yield Problem(
                f"{feature.path}.feature_name",
                f"feature {name!r} is configured twice, before at {seen[name].path}",
                "remove one of them or rename it",
            )
        seen.setdefault(name, feature)


def expressions(context: Context) -> Iterator[Problem]:
    """Inputs are ``side:column``, and features that are read exist."""
    for feature in context.features:
        inputs = feature.inputs
        if not any(text for _, text in inputs) and not context.feature_columns:
            where = feature.first_input
            yield Problem(where, "is missing: write side:column", f"sides: {', '.join(SIDES)}")
            continue
        for where, text in inputs:
            if text:
                yield from _input_problems(context, where, text)


def _input_problems(context: Context, where: str, text: str) -> Iterator[Problem]:
    side, colon, column = text.partition(":")
    if not colon or not column:
        yield Problem(
            where,
            f"is {text!r}, must be side:column",
            f"for example user:{text.strip(':') or 'age'}; sides: {', '.join(SIDES)}",
        )
    elif side not in SIDES:
        yield Problem(
            where,
            f"unknown side {side!r} in {text!r}{did_you_mean(side, SIDES)}",
            f"sides: {', '.join(SIDES)}",
        )
    elif side == "feature" and context.config.data_config.fg_mode == FG_NORMAL:
        yield Problem(
            where,
            f"reads the feature {column!r}, but in FG_NORMAL every feature is generated alone",
            "set data_config.fg_mode: FG_DAG",
        )
    elif side == "feature" and context.config.data_config.fg_mode == FG_DAG:
        names = [feature.config.feature_name for feature in context.features]
        if column not in names and column not in context.features_by_name:
            yield Problem(where, f"there is no feature {column!r}{did_you_mean(column, names)}")


def id_tables(context: Context) -> Iterator[Problem]:
    """An id feature says how many rows its table has, in one way."""
    for feature in context.features:
        needs_ids = feature.is_sparse and feature.kind != "tokenize_feature"
        if not needs_ids or context.is_broken(feature.path) or feature.config.stub_type:
            continue
        ways = feature.bucketisers
        if not ways:
            yield Problem(
                feature.path,
                f"feature {feature.name!r} does not say how many ids it has",
                "set one of hash_bucket_size, num_buckets, vocab_list, vocab_dict, vocab_file",
            )
        elif "num_buckets" in ways and feature.vocabulary_rows is not None:
            yield from _vocabulary_against_buckets(feature)
        elif len(ways) > 1:
            yield warning(
                feature.path,
                f"feature {feature.name!r} has {quoted(ways)}; {ways[0]} sets the table size",
                f"keep {ways[0]} only",
            )


def _vocabulary_against_buckets(feature: FeatureFacts) -> Iterator[Problem]:
    config, needed = feature.config, feature.vocabulary_rows or 0
    if config.num_buckets >= needed:
        return
    kept = not config.HasField("default_bucketize_value") and config.vocab_list
    words = f"{len(config.vocab_list)} words + 2 reserved ids" if kept else f"{needed} ids"
    yield Problem(
        f"{feature.path}.num_buckets",
        f"{config.num_buckets} is smaller than the vocabulary ({words})",
        f"drop num_buckets, or set it to at least {needed}",
    )


def vocabularies(context: Context) -> Iterator[Problem]:
    """Vocabularies have no duplicates, their files exist, their default id is a row."""
    for feature in context.features:
        if not set(ID_BUCKETISERS) & set(feature.bucketisers):
            continue
        config = feature.config
        if "vocab_list" in feature.bucketisers:
            twice = sorted(w for w, times in Counter(config.vocab_list).items() if times > 1)
            if twice:
                where = f"{feature.path}.vocab_list"
                yield Problem(where, f"holds {quoted(twice[:5])} more than once")
        if "vocab_file" in feature.bucketisers:
            where = f"{feature.path}.vocab_file"
            if isinstance(feature.file_words, ConfigError):
                yield Problem(where, feature.file_words.message, feature.file_words.hint)
            if not config.HasField("default_bucketize_value"):
                yield Problem(
                    where,
                    "needs default_bucketize_value, the id of words that are not in the file",
                    "add default_bucketize_value: 0",
                )
        rows = feature.rows
        known = config.DESCRIPTOR.fields_by_name
        if "default_bucketize_value" not in known:
            continue
        if config.HasField("default_bucketize_value") and rows is not None:
            default = config.default_bucketize_value
            if default >= rows:
                yield Problem(
                    f"{feature.path}.default_bucketize_value",
                    f"is {default}, but the table has {rows} rows (0 to {rows - 1})",
                )


def widths(context: Context) -> Iterator[Problem]:
    """Features that are embedded have a width, and only those use one."""
    for feature in context.features:
        config = feature.config
        embedded = feature.is_sparse or feature.has_dense_embedding
        where = f"{feature.path}.embedding_dim"
        if is_required(config.DESCRIPTOR.fields_by_name["embedding_dim"]):
            continue  # said by the schema
        ways = feature.bucketisers
        reason = ways[0] if ways else feature.dense_embedding or "ids"
        if embedded and not config.HasField("embedding_dim") and not config.stub_type:
            yield Problem(
                where,
                f"is missing: feature {feature.name!r} has {reason}, so it is embedded",
                "for example embedding_dim: 16",
            )
        elif config.embedding_dim and not embedded:
            yield warning(
                where,
                f"has no effect: feature {feature.name!r} enters the model as plain numbers",
                "boundaries, autodis {} or mlp {} would embed it",
            )


def dense_embeddings(context: Context) -> Iterator[Problem]:
    """Autodis and mlp embed plain numbers."""
    for feature in context.features:
        chosen = feature.dense_embedding
        if chosen is None:
            continue
        where = f"{feature.path}.{chosen}"
        if feature.is_sparse:
            makes = feature.bucketisers[0]
            yield Problem(where, f"{chosen} and {makes} exclude each other", "remove one")
        elif feature.is_sequence:
            yield warning(where, f"{chosen} has no effect on a sequence, which stays plain numbers")
        elif chosen == "autodis" and feature.value_dim > 1:
            yield Problem(
                where,
                f"autodis embeds one number, but value_dim is {feature.value_dim}",
                "use mlp {} instead",
            )


def boundaries(context: Context) -> Iterator[Problem]:
    """Bucket boundaries ascend."""
    for feature in context.features:
        values = list(getattr(feature.config, "boundaries", ()))
        if any(math.isnan(value) for value in values):
            yield Problem(f"{feature.path}.boundaries", "holds nan")
        for index, (left, right) in enumerate(itertools.pairwise(values)):
            if left >= right:
                yield Problem(
                    f"{feature.path}.boundaries[{index + 1}]",
                    f"boundaries must ascend, but {right:g} follows {left:g}",
                )
                break


def weights(context: Context) -> Iterator[Problem]:
    """Weighted ids are summed."""
    for feature in context.features:
        if feature.kind != "id_feature" or not feature.config.weighted:
            continue
        where = f"{feature.path}.weighted"
        if feature.is_sequence:
            yield Problem(where, "weights are not possible in a sequence", "remove weighted")
        elif feature.config.pooling.lower() != "sum":
            yield Problem(where, 'weighted ids need pooling: "sum"', "remove pooling or weighted")


def defaults(context: Context) -> Iterator[Problem]:
    """``fg_encoded_default_value`` is an id of the table, or as many numbers as the feature has."""
    separator = context.config.data_config.fg_encoded_multival_sep
    if not context.feature_columns:
        return
    for feature in context.features:
        text = feature.config.fg_encoded_default_value
        if not text:
            continue
        where = f"{feature.path}.fg_encoded_default_value"
        parts = text.split(separator) if separator else [text]
        try:
            numbers = [int(part) if feature.is_sparse else float(part) for part in parts]
        except ValueError:
            kind = "an id" if feature.is_sparse else "a number"
            yield Problem(
                where,
                f"is {text!r}, must be {kind} (several are separated by {separator!r})",
                "it stands for a value that is already an id or number, not for a raw one",
            )
            continue
        yield from _default_range(feature, numbers, where)


def _default_range(feature: FeatureFacts, numbers: list[float], where: str) -> Iterator[Problem]:
    rows = feature.rows
    if feature.is_sparse:
        bad = [number for number in numbers if number < 0 or (rows and number >= rows)]
        if bad:
            limit = f"0 to {rows - 1}" if rows else "not negative"
            yield Problem(where, f"id {bad[0]} is not in the table of {feature.name!r} ({limit})")
    elif not all(math.isfinite(number) for number in numbers):
        yield Problem(where, f"holds {numbers}, must be finite")
    elif len(numbers) != feature.value_dim:
        yield Problem(where, f"holds {len(numbers)} numbers, but value_dim is {feature.value_dim}")


def initialisers(context: Context) -> Iterator[Problem]:
    """``init_fn`` names a function of torch.nn.init and its arguments."""
    for feature in context.features:
        yield from init_fn_problems(f"{feature.path}.init_fn", feature.config.init_fn)


def init_fn_problems(where: str, text: str) -> Iterator[Problem]:
    """Yields what is wrong with an ``init_fn``; an empty one is the default."""
    if text.strip():
        try:
            read_init_fn(text)
        except ConfigError as error:
            yield Problem(where, error.message, error.hint)


def sequences(context: Context) -> Iterator[Problem]:
    """Grouped sequences have a name, a delimiter and features."""
    for number, wrapper in enumerate(context.config.feature_configs):
        if which_field(wrapper, "feature") != "sequence_feature":
            continue
        path = f"feature_configs[{number}].sequence_feature"
        sequence = wrapper.sequence_feature
        if not sequence.features and not context.is_broken(path):
            yield Problem(
                f"{path}.features", f"sequence {sequence.sequence_name!r} has no features"
            )
        if not sequence.sequence_delim:
            yield Problem(f"{path}.sequence_delim", "is empty")
        for index, sub in enumerate(sequence.features):
            here = f"{path}.features[{index}]"
            if which_field(sub, "feature") is None and not context.is_broken(here):
                yield Problem(here, "is empty: choose for example id_feature or raw_feature")


def steps(context: Context) -> Iterator[Problem]:
    """What a sequence is made of is said about sequences."""
    for feature in context.features:
        if feature.is_sequence:
            continue  # tokens_as_sequence counts as one
        written = {field.name for field, _ in feature.config.ListFields()}
        for name in ("sequence_length", "sequence_delim", "sequence_fields"):
            if name in written:
                yield warning(
                    f"{feature.path}.{name}",
                    f"has no effect: feature {feature.name!r} is no sequence",
                    f"sequence_{feature.kind} is one",
                )


def tokens(context: Context) -> Iterator[Problem]:
    """Tokens become a sequence where a row has one text, and some of them."""
    for feature in context.features:
        if feature.kind != "tokenize_feature" or not feature.config.tokens_as_sequence:
            continue
        where = f"{feature.path}.tokens_as_sequence"
        if feature.sequence is not None or ".sequence_" in feature.path:
            yield Problem(where, "is for a text per row, not for a sequence of texts")
        elif not feature.config.sequence_length:
            yield Problem(where, "needs sequence_length", "for example sequence_length: 20")


def stubs(context: Context) -> Iterator[Problem]:
    """A stub exists for feature generation only."""
    grouped = context.grouped_features
    mode = context.config.data_config.fg_mode
    for feature in context.features:
        if feature.config.stub_type and mode == FG_NORMAL:
            yield Problem(
                f"{feature.path}.stub_type",
                "stubs are read by other features, but in FG_NORMAL every feature is generated "
                "alone",
                "set data_config.fg_mode: FG_DAG",
            )
        elif feature.config.stub_type and feature.name in grouped:
            yield Problem(
                f"{feature.path}.stub_type",
                f"feature {feature.name!r} is only an intermediate result, but a group uses it",
                "remove stub_type, or the feature from the group",
            )


RULES = (
    names,
    expressions,
    id_tables,
    vocabularies,
    widths,
    dense_embeddings,
    boundaries,
    weights,
    defaults,
    initialisers,
    sequences,
    steps,
    tokens,
    stubs,
)
