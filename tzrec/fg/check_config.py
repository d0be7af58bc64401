"""Feature generation of a config under check: what is wrong with it, and with columns for it.

`generation` is a rule for `tzrec.config.prepare`; it needs neither torch nor numba.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from tzrec.config.feature_facts import FeatureFacts
from tzrec.config.problem import Problem
from tzrec.config.validate.frame import Context
from tzrec.errors import ConfigError, TzrecError
from tzrec.fg.config_json import Source, entries_of
from tzrec.fg.graph import stages
from tzrec.fg.handler import FgHandler
from tzrec.fg.kernels import backend
from tzrec.fg.operators.base import Operator, create_operator
from tzrec.fg.operators.tokenize_feature import vocabulary_size
from tzrec.fg.spec import parse_fg_json
from tzrec.protos.data_pb2 import FG_BUCKETIZE, FG_DAG, FG_NONE

Entry = dict[str, object]
# What errors call the fields of a config.
_FIELD_OF = {
    "tokenizer": "vocab_file",
    "operator": "operator_name",
    "formula": "operator_params",
    "value_type": "fg_value_type",
}
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


def generation(context: Context) -> Iterator[Problem]:
    """Features can be generated: options, expressions, files, and who reads whom.

    Features of which something is known to be wrong are left alone.

    Raises:
        MissingDependencyError: a tokenizer needs a package that is not installed.
    """
    mode = context.config.data_config.fg_mode
    good: list[Operator] = []
    all_good = True
    for feature in context.features:
        if mode == FG_NONE and feature.kind != "tokenize_feature":
            continue
        if context.is_broken(_root(feature)):
            all_good = False
            continue
        try:
            with backend("numpy"):
                if mode == FG_NONE:
                    _check_tokenizer(feature)
                    continue
                operators = _operators(feature)
                if mode not in (FG_DAG, FG_BUCKETIZE):
                    stages(operators)
                good += operators
        except ConfigError as error:
            all_good = False
            yield _problem(feature, error)
    if mode == FG_DAG and all_good:
        yield from _circles(context.features, good)


def column_problems(
    context: Context, columns: Mapping[str, pa.DataType]
) -> Iterator[tuple[FeatureFacts, TzrecError]]:
    """Yields features that cannot read columns of these types, and what they say.

    Args:
        context: a config without mistakes.
        columns: column → type, of all columns that features read.
    """
    features = {feature.name: feature for feature in context.features}
    entries = [entry for feature in context.features for entry in _entries(feature)]
    bucketize_only = context.config.data_config.fg_mode == FG_BUCKETIZE
    with backend("numpy"):
        handler = FgHandler({"features": entries}, bucketize_only=bucketize_only)
        nothing = {name: pa.array([], kind) for name, kind in columns.items()}
        for name, error in handler.failures(nothing):
            feature = features.get(name)
            if feature is not None and isinstance(error, TzrecError):
                yield feature, error


def _root(feature: FeatureFacts) -> str:
    """Returns the path of the feature, or of the group that it stands in."""
    return feature.path if feature.sequence is None else feature.path.partition(".features")[0]


def _entries(feature: FeatureFacts) -> list[Entry]:
    """Returns the entries of ``fg.json``, each in a group of its own where there is one."""
    group = feature.sequence
    steps = feature.is_sequence and not (
        feature.kind == "tokenize_feature" and feature.config.tokens_as_sequence
    )
    entries = entries_of(Source(feature.kind, feature.config, steps, group is not None))
    if group is None:
        return entries
    around = {
        "sequence_name": group.sequence_name,
        "sequence_length": group.sequence_length,
        "sequence_delim": group.sequence_delim,
    }
    return [{**around, "features": entries}]


def _operators(feature: FeatureFacts) -> list[Operator]:
    specs = parse_fg_json({"features": _entries(feature)})
    return [create_operator(spec) for spec in specs]


def _check_tokenizer(feature: FeatureFacts) -> None:
    entry = entries_of(Source(feature.kind, feature.config))[-1]
    vocabulary_size(str(entry["vocab_file"]), str(entry["tokenizer_type"]))


def _circles(features: Sequence[FeatureFacts], operators: Sequence[Operator]) -> Iterator[Problem]:
    try:
        stages(operators)
    except ConfigError as error:
        named = set(re.findall(r"[^\s:]+", error.message))
        first = next((f for f in features if f.name in named), features[0])
        yield Problem(first.inputs[0][0], error.message, error.hint)


def _problem(feature: FeatureFacts, error: ConfigError) -> Problem:
    """Returns the problem at the field that the error speaks of, where it names one."""
    words = re.findall(r"\w+", _QUOTED.sub("", error.message))
    written = [field.name for field, _ in feature.config.ListFields()]
    words = [_FIELD_OF.get(word, word) for word in words]
    field = next((word for word in words if word in written), None)
    where = f"{feature.path}.{field}" if field else feature.path
    return Problem(where, error.message, error.hint)
