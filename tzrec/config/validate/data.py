"""Rules for paths, readers, labels and columns."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tzrec.config.kafka_uri import KafkaUri, is_kafka
from tzrec.config.model_facts import MODELS
from tzrec.config.problem import Problem, warning
from tzrec.config.sampler_facts import sampler_of
from tzrec.config.validate.frame import Context, quoted
from tzrec.errors import ConfigError, did_you_mean
from tzrec.protos.data_pb2 import DatasetType, FieldType

_BY_SUFFIX = {".csv": "CsvDataset", ".parquet": "ParquetDataset"}
_BY_SCHEME = {"odps://": "OdpsDataset", "kafka://": "KafkaDataset"}
_NESTED = ("ARRAY", "MAP")
LATER_READERS = ("OdpsDataset", "OdpsDatasetV1")
_SCALARS = ("INT32", "INT64", "STRING", "FLOAT", "DOUBLE", "INT", "BIGINT")


def dataset_type_of(path: str) -> str:
    """Returns the reader that a path asks for by scheme or ending, or ""."""
    for scheme, name in _BY_SCHEME.items():
        if path.startswith(scheme):
            return name
    return next((name for suffix, name in _BY_SUFFIX.items() if path.endswith(suffix)), "")


def readers(context: Context) -> Iterator[Problem]:
    """The reader is known and fits the paths."""
    config = context.config
    written = config.data_config.HasField("dataset_type")
    chosen = DatasetType.Name(config.data_config.dataset_type) if written else ""
    for name in ("train_input_path", "eval_input_path"):
        if is_kafka(getattr(config, name)):
            continue  # checked by itself
        found = {dataset_type_of(path.strip()) for path in getattr(config, name).split(",")}
        if found & set(LATER_READERS):
            continue  # reported as such
        if not getattr(config, name).strip() or context.for_serving:
            continue
        asked = sorted(found - {""})
        if chosen == "KafkaDataset" and not asked:
            yield Problem(
                name,
                f"is no topic, but dataset_type is KafkaDataset: {getattr(config, name)}",
                "a topic is kafka://broker/topic?group.id=NAME",
            )
            continue
        if len(asked) > 1:
            yield Problem(name, f"mixes {quoted(asked)} files", "give files of one kind")
        elif asked and chosen and asked[0] != chosen and chosen in _BY_SUFFIX.values():
            yield Problem(
                "data_config.dataset_type",
                f"is {chosen}, but {name} is read by {asked[0]}: {getattr(config, name)}",
                f"write dataset_type: {asked[0]} or remove it",
            )
            return
        elif not asked and not chosen:
            yield Problem(
                "data_config.dataset_type",
                f"is missing, and {name} does not end in .csv or .parquet: {getattr(config, name)}",
                "write dataset_type: ParquetDataset or CsvDataset",
            )


def streams(context: Context) -> Iterator[Problem]:
    """A stream has an address, and nothing is asked of it that only files can do."""
    config, data = context.config, context.config.data_config
    paths = {name: getattr(config, name) for name in ("train_input_path", "eval_input_path")}
    if context.for_serving:
        return
    for name, path in paths.items():
        if is_kafka(path):
            try:
                KafkaUri.parse(path)
            except ConfigError as error:
                yield Problem(name, error.message, error.hint)
    if not is_kafka(paths["train_input_path"]):
        return
    if data.shuffle:
        yield Problem(
            "data_config.shuffle",
            "is true, but a stream is read in its order",
            "write shuffle: false; send rows to Kafka in the order to learn from",
        )
    if not data.in_order:
        yield warning("data_config.in_order", "has no effect: a stream is read in its order")
    if config.train_config.save_checkpoints_epochs and not _ends(paths["train_input_path"]):
        yield Problem(
            "train_config.save_checkpoints_epochs",
            "is set, but a pass over the stream of train_input_path never ends",
            "use save_checkpoints_steps or save_checkpoints_timestamp_interval",
        )
    untyped = [f.input_name for f in data.input_fields if not f.HasField("input_type")]
    if untyped and not data.input_fields_str.strip():
        yield Problem(
            "data_config.input_fields",
            f"column {untyped[0]!r} has no input_type, which messages do not tell",
            "write its input_type, or leave input_fields out if messages hold their schema",
        )


def _ends(path: str) -> bool:
    try:
        return KafkaUri.parse(path).is_bounded
    except ConfigError:
        return True


def labels(context: Context) -> Iterator[Problem]:
    """There is a label, and it is no input."""
    data = context.config.data_config
    if not context.config.HasField("data_config") or context.is_broken("data_config"):
        return
    if not data.label_fields:
        if not context.for_serving:
            yield Problem(
                "data_config.label_fields",
                "is missing: no column is named to learn from",
                'for example label_fields: "clk"',
            )
        return
    for name in ("label_fields", "sample_weight_fields"):
        fields = list(getattr(data, name))
        for index, field in enumerate(fields):
            where = f"data_config.{name}[{index}]"
            if not field:
                yield Problem(where, "is empty")
            elif field in fields[:index]:
                yield Problem(where, f"{field!r} is given twice")
            if (
                name == "label_fields"
                and context.feature_columns
                and (field in context.features_by_name)
                and field not in _known_labels(context)
            ):
                yield warning(
                    where,
                    f"label {field!r} is also a feature: the model sees what it is to predict",
                    "remove the feature, unless the two mean different things",
                )


def _known_labels(context: Context) -> set[str]:
    """Returns label columns that say something about a row and are not predicted."""
    facts = MODELS.get(context.model_type)
    return {getattr(context.model, field) for field in facts.label_columns} if facts else set()


def csv(context: Context) -> Iterator[Problem]:
    """CSV has one delimiter and known columns."""
    data = context.config.data_config
    kind = dataset_type_of(context.config.train_input_path.split(",")[0].strip())
    if not kind and data.HasField("dataset_type"):
        kind = DatasetType.Name(data.dataset_type)
    if kind != "CsvDataset" or context.is_broken("data_config"):
        return
    if len(data.delimiter) != 1:
        yield Problem("data_config.delimiter", f"is {data.delimiter!r}, must be one character")
    if not data.with_header and not data.input_fields and not data.input_fields_str.strip():
        yield Problem(
            "data_config.with_header",
            "is false, and input_fields does not name the columns",
            "write with_header: true if the first line holds the names, else list input_fields",
        )
    for index, field in enumerate(data.input_fields):
        kind = FieldType.Name(field.input_type)
        if kind.startswith(_NESTED) and not data.input_fields_str.strip():
            yield _not_in_csv(f"data_config.input_fields[{index}]", field.input_name, kind)
    for part in data.input_fields_str.split(";"):
        name, _, kind = (piece.strip() for piece in part.partition(":"))
        if kind.upper().startswith(_NESTED):
            yield _not_in_csv("data_config.input_fields_str", name, kind)


def _not_in_csv(where: str, column: str, kind: str) -> Problem:
    return Problem(
        where,
        f"column {column!r} is {kind}, which a CSV file cannot hold",
        "declare it STRING and separate values by fg_encoded_multival_sep, or use Parquet",
    )


def separators(context: Context) -> Iterator[Problem]:
    """Values of a text column can be split."""
    if not context.config.data_config.fg_encoded_multival_sep:
        yield Problem("data_config.fg_encoded_multival_sep", "is empty")


def input_fields(context: Context) -> Iterator[Problem]:
    """The schema is readable and has every column that is read."""
    data = context.config.data_config
    names = [field.input_name for field in data.input_fields]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield Problem(f"data_config.input_fields[{index}]", f"column {name!r} is given twice")
    if data.input_fields_str.strip():
        names = []
        for part in data.input_fields_str.split(";"):
            if part.strip():
                name, _, type_text = part.partition(":")
                problem = _field_problem(name.strip(), type_text)
                if not problem and name.strip() in names:
                    problem = "is given twice"
                names.append(name.strip())
                if problem:
                    yield Problem("data_config.input_fields_str", f"{part.strip()!r} {problem}")
    if not names:
        return
    for column, where, what in [*needed_columns(context), *other_columns(context)]:
        if column not in names:
            yield Problem(
                where,
                f"{what} column {column!r} is not in the input_fields{did_you_mean(column, names)}",
            )


def _field_problem(name: str, type_text: str) -> str:
    text = re.sub(r"\s", "", type_text).upper()
    scalars = "|".join(_SCALARS)
    array = rf"ARRAY<(?:{scalars})>|ARRAY<ARRAY<(?:{scalars})>>"
    table = rf"MAP<(?:STRING|INT64|INT32|INT|BIGINT),(?:{scalars})>"
    if not name or not text:
        return "must be name:TYPE"
    if not re.fullmatch(rf"{scalars}|{array}|{table}", text):
        inner = re.split(r"[<>,]", text)
        options = (*_SCALARS, "ARRAY", "MAP")
        wrong = next((word for word in inner if word and word not in options), text)
        return f"has no known type{did_you_mean(wrong, options)}"
    return ""


def needed_columns(context: Context) -> Iterator[tuple[str, str, str]]:
    """Yields column, config path and kind of every column that training reads."""
    seen = set()
    for feature in context.features:
        if not context.feature_columns:
            for where, name in feature.columns:
                if name not in seen:
                    yield name, where, "input"
                seen.add(name)
        elif not feature.config.stub_type and feature.config.feature_name:
            yield feature.name, f"{feature.path}.feature_name", "feature"
    data = context.config.data_config
    for index, name in enumerate(data.label_fields):
        yield name, f"data_config.label_fields[{index}]", "label"
    for index, name in enumerate(data.sample_weight_fields):
        yield name, f"data_config.sample_weight_fields[{index}]", "sample weight"


def other_columns(context: Context) -> Iterator[tuple[str, str, str]]:
    """Yields column, config path and kind of what is read but not learnt from."""
    data = context.config.data_config
    if data.sample_cost_field and data.batch_cost_size:
        yield data.sample_cost_field, "data_config.sample_cost_field", "cost"
    if data.event_time_field and not context.for_serving:
        yield data.event_time_field, "data_config.event_time_field", "event time"
    sampler = None if context.for_serving else sampler_of(data)
    for where, name in sampler.id_columns() if sampler is not None else ():
        if name:
            yield name, where, "id"


def costs(context: Context) -> Iterator[Problem]:
    """Batches by cost know the costs."""
    data = context.config.data_config
    if data.batch_cost_size and not data.sample_cost_field:
        yield Problem(
            "data_config.sample_cost_field",
            "is missing: batch_cost_size adds up the costs of rows",
            'write sample_cost_field: "…", the column with the cost of a row, or remove '
            "batch_cost_size",
        )
    elif data.sample_cost_field and not data.batch_cost_size:
        yield warning("data_config.sample_cost_field", "has no effect without batch_cost_size")
    elif data.batch_cost_size and data.drop_remainder:
        yield warning(
            "data_config.drop_remainder",
            "has no effect with batch_cost_size: such batches are never full",
        )


def masks(context: Context) -> Iterator[Problem]:
    """Masks have something to mask."""
    data = context.config.data_config
    masked = any(feature.config.use_mask for feature in context.features)
    if data.sample_mask_prob > 0 and not masked:
        yield warning(
            "data_config.sample_mask_prob",
            "has no effect: no feature has use_mask: true",
        )
    if data.negative_sample_mask_prob > 0 and data.WhichOneof("sampler") is None:
        yield warning("data_config.negative_sample_mask_prob", "has no effect without a sampler")
    elif data.negative_sample_mask_prob > 0 and not masked:
        yield warning(
            "data_config.negative_sample_mask_prob",
            "has no effect: no feature has use_mask: true",
        )


RULES = (readers, streams, labels, csv, separators, input_fields, costs, masks)
