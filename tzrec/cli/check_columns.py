"""What can be wrong with one column of a data file, without reading its rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import types

from tzrec.config.feature_facts import FeatureFacts
from tzrec.config.messages import which_field
from tzrec.config.model_facts import MODELS
from tzrec.config.problem import Problem, warning
from tzrec.config.tasks import Task
from tzrec.config.validate.data import needed_columns
from tzrec.config.validate.frame import Context
from tzrec.datasets.schema import accepted_type, check_column_type
from tzrec.errors import TzrecError
from tzrec.fg import encoded
from tzrec.protos.data_pb2 import FG_NONE

_BINARY = {"binary_cross_entropy", "binary_focal_loss"}
_ROWS_HINT = "leave those rows out when writing the file, or skip them: data_config.max_bad_rows"
# What columns of features are called: encoded, raw.
_INPUT_KINDS = ("feature", "input")
_MULTICLASS = {"softmax_cross_entropy", "jrc_loss"}


@dataclasses.dataclass
class Table:
    """What is known about one file without reading its rows.

    Attributes:
        path: the file.
        schema: its columns.
        rows: number of rows, None where it is not known (CSV).
        ranges: column → (smallest, largest value, number of nulls) where the file says; the
            values are None where all are null.
    """

    path: str
    schema: pa.Schema
    rows: int | None
    ranges: dict[str, tuple[Any, Any, int]]


def column_problems(
    context: Context, table: Table, column: str, where: str, what: str
) -> Iterator[Problem]:
    """Yields what is wrong with a column that is there.

    Args:
        context: the config.
        table: the file.
        column: name.
        where: config path that asks for it.
        what: ``feature``, ``label`` or ``sample weight``.
    """
    try:
        kind = check_column_type(column, table.schema.field(column).type, table.path)
    except TzrecError as error:
        yield Problem(where, f"{what} {error.message}", error.hint)
        return
    in_file = f"(file {table.path!r})"
    if what == "feature" and context.config.data_config.fg_mode == FG_NONE:
        feature = context.features_by_name[column]
        try:
            _parse_nothing(context, feature, kind)
        except TzrecError as error:
            yield Problem(where, f"{error.message} {in_file}", error.hint)
            return
        problems = _feature_values(feature, table)
    elif what == "label":
        problems = _label(context, column, kind, table)
    elif what == "sample weight":
        problems = _weight(column, kind, table)
    else:
        return
    skips = context.config.data_config.max_bad_rows > 0
    for problem in problems:
        severity = "warning" if problem.is_row and skips else problem.severity
        text = f"{what} column {column!r} {problem.text} {in_file}"
        yield (
            Problem(where, text, problem.hint)
            if severity == "error"
            else warning(where, text, problem.hint)
        )


def generation_problems(context: Context, table: Table) -> Iterator[Problem]:
    """Yields features that cannot be generated of columns with the types of a file.

    Columns that are not there, or of a type that no feature can read, are said elsewhere.
    """
    if context.config.data_config.fg_mode == FG_NONE:
        return
    # Here, because only raw columns need it.
    from tzrec.fg.check_config import column_problems as problems_of

    wanted = {column for column, _, what in needed_columns(context) if what in _INPUT_KINDS}
    found = {field.name: accepted_type(field.type) for field in table.schema}
    columns = {name: found.get(name) or pa.null() for name in wanted}
    for feature, error in problems_of(context, columns):
        places = [where for where, column in feature.columns if repr(column) in error.message]
        where = places[0] if places else feature.first_input
        if context.feature_columns:
            where = f"{feature.path}.feature_name"
        text = f"feature {feature.name!r}: {error.message} (file {table.path!r})"
        yield Problem(where, text, error.hint)


@dataclasses.dataclass(frozen=True)
class _Found:
    """Something about a column; ``is_row`` where ``max_bad_rows`` would leave the rows out."""

    text: str
    hint: str = ""
    is_row: bool = False
    severity: str = "error"


def _parse_nothing(context: Context, feature: FeatureFacts, kind: pa.DataType) -> None:
    """Parses no rows of a type, as training would; raises a FeatureError when it cannot."""
    if types.is_null(kind):
        return
    column, name = pa.array([], kind), feature.name
    separator = context.config.data_config.fg_encoded_multival_sep
    steps: dict[str, Any] = {}
    if feature.is_sequence:
        steps["sequence_delim"] = _delimiter(feature)
    if not feature.is_sparse:
        parse: Any = (
            encoded.parse_fg_encoded_sequence_dense_feature_impl
            if feature.is_sequence
            else encoded.parse_fg_encoded_dense_feature_impl
        )
        parse(name, column, multival_sep=separator, value_dim=feature.value_dim, **steps)
    elif feature.is_sequence:
        encoded.parse_fg_encoded_sequence_sparse_feature_impl(
            name, column, multival_sep=separator, **steps
        )
    else:
        weighted = feature.kind == "id_feature" and bool(feature.config.weighted)
        encoded.parse_fg_encoded_sparse_feature_impl(name, column, separator, None, weighted)


def _delimiter(feature: FeatureFacts) -> str:
    around = feature.sequence if feature.sequence is not None else feature.config
    return str(around.sequence_delim) or ";"


def _feature_values(feature: FeatureFacts, table: Table) -> Iterator[_Found]:
    low, high, nulls = table.ranges.get(feature.name, (None, None, 0))
    if not feature.is_sparse:
        has_default = feature.config.fg_encoded_default_value or feature.config.use_mask
        if nulls and not has_default and not feature.is_sequence:
            text = f"has {nulls:,} missing values; say what they mean with fg_encoded_default_value"
            yield _Found(text, is_row=True)
        return
    rows = feature.rows
    if not isinstance(low, int) or isinstance(low, bool):
        return
    if low < 0:
        yield _Found(f"holds the id {low}; ids must not be negative", is_row=True)
    elif rows is not None and high >= rows:
        yield _Found(
            f"holds the id {high}, but the table has {rows} rows (ids 0 to {rows - 1})",
            "raise num_buckets (hash_bucket_size, ...) of the feature, or correct the data",
            is_row=True,
        )


def _weight(column: str, kind: pa.DataType, table: Table) -> Iterator[_Found]:
    low, _, nulls = table.ranges.get(column, (None, None, 0))
    if not types.is_floating(kind):
        yield _Found(f"is {kind}, but weights must be float", _cast_hint(table, column, "FLOAT"))
    elif nulls:
        yield _Found(f"has {nulls:,} missing values", _ROWS_HINT, is_row=True)
    elif isinstance(low, float) and low < 0:
        yield _Found(f"holds the weight {low:g}: a negative one unlearns", severity="warning")


def _label(context: Context, column: str, kind: pa.DataType, table: Table) -> Iterator[_Found]:
    inner = kind.value_type if types.is_list(kind) else kind
    model = MODELS.get(context.model_type)
    if not (types.is_integer(inner) or types.is_floating(inner) or types.is_null(inner)):
        hint = _cast_hint(table, column, "BIGINT")
        yield _Found(f"is {kind}, but labels must be numbers", hint)
        return
    if types.is_list(kind) and model is not None and model.needs_loss:
        yield _Found(
            f"is {kind}, but {context.model_type} learns from one number per row", "write one"
        )
        return
    low, high, nulls = table.ranges.get(column, (None, None, 0))
    if nulls:
        yield _Found(f"has {nulls:,} missing values", _ROWS_HINT, is_row=True)
        return
    if not isinstance(low, (int, float)):
        return
    low, high = low + 0, high + 0  # False and True as numbers
    hint = "correct the column, or choose a loss (and num_class) that fits it"
    for task in _tasks_of_label(context, column):
        losses, classes = set(task.chosen_losses()), task.message.num_class
        of = f" of {task.path}" if task.is_tower else ""
        if losses & _BINARY and (low < 0 or high > 1):
            yield _Found(f"holds values from {low} to {high}, but the loss{of} takes 0 to 1", hint)
        elif losses & _MULTICLASS and (low < 0 or high >= classes):
            yield _Found(
                f"holds classes from {low} to {high}, but num_class{of} is {classes}", hint
            )


def _tasks_of_label(context: Context, column: str) -> list[Task]:
    """Returns the tasks that learn a label.

    Two-tower models only count rows by theirs, and of the nodes of a tree labels are made anew.
    """
    model = MODELS.get(context.model_type)
    has_tree = which_field(context.config.data_config, "sampler") == "tdm_sampler"
    if has_tree or (model is not None and model.is_match):
        return []
    return [task for task in context.tasks if task.label == column]


def constant_label(context: Context, tables: Sequence[Table], text: str) -> Iterator[Problem]:
    """Yields a warning where all rows have one class, as far as the files say.

    Args:
        context: the config.
        tables: all files of an input path.
        text: the input path.
    """
    filled = [table for table in tables if table.rows != 0]
    several_rows = sum(table.rows or 0 for table in filled) > 1
    for index, label in enumerate(context.config.data_config.label_fields):
        tasks = _tasks_of_label(context, label)
        losses = {name for task in tasks for name in task.chosen_losses()}
        if not losses & (_BINARY | _MULTICLASS):
            continue
        if not all(label in table.ranges for table in filled):
            continue
        values = {bound for table in filled for bound in table.ranges[label][:2]}
        value = values.pop() if len(values) == 1 else None
        if isinstance(value, (int, float)) and several_rows:
            yield warning(
                f"data_config.label_fields[{index}]",
                f"label column {label!r} is always {value + 0} in {text!r}: there is nothing to "
                "tell apart",
            )


def _cast_hint(table: Table, column: str, kind: str) -> str:
    if table.path.endswith(".parquet"):
        return f"cast it when writing the file, for example CAST({column} AS {kind})"
    return "for CSV, declare its type in data_config.input_fields"
