"""Feature generation of a config: what the command line and the tools start from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tzrec.errors import ConfigError, DataError, did_you_mean
from tzrec.fg.handler import FgHandler

if TYPE_CHECKING:
    from tzrec.datasets.reader import BaseReader
    from tzrec.features.feature import BaseFeature
    from tzrec.protos.pipeline_pb2 import EasyRecConfig


@dataclasses.dataclass(frozen=True)
class FgSetup:
    """Feature generation of a config; can be sent to other processes.

    Attributes:
        fg_json: the features.
        threads: ``fg_threads``.
        bucketize_only: ``FG_BUCKETIZE``, columns hold values that were generated before.
        farm_hash: hash with FarmHash Fingerprint64.
    """

    fg_json: dict[str, Any]
    threads: int = 1
    bucketize_only: bool = False
    farm_hash: bool = False

    def handler(self, threads: int | None = None) -> FgHandler:
        """Makes the handler.

        Args:
            threads: features computed at once, None = as the config says.

        Raises:
            ConfigError: the features contradict each other.
        """
        return FgHandler(
            self.fg_json,
            self.threads if threads is None else threads,
            bucketize_only=self.bucketize_only,
            farm_hash=self.farm_hash,
        )


def load_config(
    path: str, edits: Sequence[str] = (), edit_config_json: str | None = None
) -> EasyRecConfig:
    """Loads a config of which only data and features must be right.

    Raises:
        ConfigError: the file cannot be read, or an edit is wrong.
    """
    from tzrec.config import edit_config, load_pipeline_config, set_config

    config = load_pipeline_config(path)
    if edit_config_json:
        edit_config(config, edit_config_json)
    set_config(config, list(edits))
    return config


def features_of(config: EasyRecConfig) -> list[BaseFeature]:
    """Returns the features of a config.

    Raises:
        ConfigError: there are none, one is wrong, or they are generated already (``FG_NONE``).
    """
    from tzrec.features.feature import FgMode, create_features

    if not config.feature_configs:
        raise ConfigError("the config has no feature_configs")
    mode = FgMode(config.data_config.fg_mode)
    if mode is FgMode.FG_NONE:
        raise ConfigError(
            "data_config.fg_mode is FG_NONE: columns hold ids and numbers already, there is "
            "nothing to generate",
            hint="say how raw columns are read: --set data_config.fg_mode=FG_DAG",
        )
    return create_features(config.feature_configs, mode)


def setup_of(config: EasyRecConfig) -> FgSetup:
    """Returns the feature generation of a config.

    Raises:
        ConfigError: as `features_of`, or features contradict each other.
    """
    from tzrec.features.feature import FgMode, create_fg_json

    features = features_of(config)
    setup = FgSetup(
        create_fg_json(features),
        threads=int(config.data_config.fg_threads),
        bucketize_only=features[0].fg_mode is FgMode.FG_BUCKETIZE,
        farm_hash=features[0].farm_hash,
    )
    setup.handler()
    return setup


def row_columns(
    config: EasyRecConfig, columns: Sequence[str], row: Mapping[str, Any]
) -> tuple[dict[str, pa.Array], list[str]]:
    """Makes columns of one row of Python values.

    Args:
        config: its ``input_fields`` say the types; other values have the type that JSON gives.
        columns: columns that are wanted.
        row: column → value; an object is a map.

    Returns:
        Column → array of one row, and the columns that the row lacks, which are null.

    Raises:
        ConfigError: the row has a column that nothing reads.
        DataError: a value has not the type of its column.
    """
    from tzrec.datasets.schema import input_fields

    unread = [name for name in row if name not in columns]
    if unread:
        raise ConfigError(
            f"no feature reads column {unread[0]!r}{did_you_mean(unread[0], columns)}",
            hint=f"columns: {', '.join(columns)}",
        )
    types = input_fields(config.data_config)
    arrays = {name: _array(name, row.get(name), types.get(name)) for name in columns}
    return arrays, [name for name in columns if name not in row]


def _array(name: str, value: Any, kind: pa.DataType | None) -> pa.Array:
    try:
        if isinstance(value, dict):
            kind = kind or pa.map_(pa.string(), pa.array(list(value.values())).type)
            value = list(value.items())
        return pa.array([value], kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        wanted = f"a value of type {kind}" if kind is not None else "a column's value"
        raise DataError(f"column {name!r}: {value!r} is not {wanted}: {error}") from error


def open_reader(
    config: EasyRecConfig,
    input_path: str,
    columns: Sequence[str],
    kept_columns: Sequence[str] | None = (),
) -> BaseReader:
    """Opens files for reading as the config describes them.

    Args:
        config: format, column types, how many bad rows may be left out.
        input_path: comma list of files, globs and directories.
        columns: columns that features read.
        kept_columns: columns that are passed on; None = all others.

    Raises:
        DataError: files or columns are missing, or of a type that cannot be read.
        ConfigError: the config does not describe the files.
    """
    from tzrec.datasets.bad_rows import BadRows
    from tzrec.datasets.csv_files import CsvFormat
    from tzrec.datasets.formats import create_reader
    from tzrec.protos.data_pb2 import DatasetType

    data = config.data_config
    kind = ""
    if data.HasField("dataset_type"):
        kind = DatasetType.Name(data.dataset_type).replace("Dataset", "Reader")
    first = input_path.split(",")[0].strip()
    bad_rows = BadRows(int(data.max_bad_rows))
    options: dict[str, Any] = {"kept_columns": kept_columns, "bad_rows": bad_rows}
    if first.endswith(".csv") or (kind == "CsvReader" and not first.endswith(".parquet")):
        options["csv_format"] = CsvFormat.of(data)
    return create_reader(input_path, columns, reader_type=kind or None, **options)
