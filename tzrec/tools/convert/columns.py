"""What a converted data set consists of, and how it is written down as a config."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tzrec.errors import DataError, did_you_mean


@dataclasses.dataclass(frozen=True)
class Id:
    """A column of ids (or lists of ids) from 0 to ``num_buckets - 1``.

    Attributes:
        name: column and feature name.
        side: user, item or context.
        num_buckets: rows of the embedding table.
        dim: width of the embedding.
        table: name of the table when it is shared with another feature.
        pooling: how several ids of a row become one vector.
        init_fn: how the table starts.
    """

    name: str
    side: str
    num_buckets: int
    dim: int = 16
    table: str = ""
    pooling: str = ""
    init_fn: str = ""

    def to_text(self) -> str:
        """Returns the feature as config text, without its ``feature_configs``."""
        lines = [
            f'feature_name: "{self.name}"',
            f'expression: "{self.side}:{self.name}"',
            f"num_buckets: {self.num_buckets}",
            f"embedding_dim: {self.dim}",
        ]
        optional = {"embedding_name": self.table, "pooling": self.pooling, "init_fn": self.init_fn}
        lines += [f'{field}: "{value}"' for field, value in optional.items() if value]
        return _block("id_feature", lines)

    @property
    def size(self) -> str:
        """Size for people."""
        return f"{self.num_buckets:,} ids"


@dataclasses.dataclass(frozen=True)
class Number:
    """A column of numbers."""

    name: str
    side: str

    def to_text(self) -> str:
        """Returns the feature as config text, without its ``feature_configs``."""
        lines = [f'feature_name: "{self.name}"', f'expression: "{self.side}:{self.name}"']
        return _block("raw_feature", lines)

    @property
    def size(self) -> str:
        """Size for people."""
        return "a number"


@dataclasses.dataclass(frozen=True)
class History:
    """Lists of equal length, one step each; the columns are named ``{name}__{step.name}``."""

    name: str
    length: int
    steps: tuple[Id, ...]

    def to_text(self) -> str:
        """Returns the sequence as config text, without its ``feature_configs``."""
        lines = [
            f'sequence_name: "{self.name}"',
            f"sequence_length: {self.length}",
            'sequence_delim: ";"',
        ]
        return _block(
            "sequence_feature", lines + [_block("features", [s.to_text()]) for s in self.steps]
        )

    @property
    def size(self) -> str:
        """Size for people."""
        return f"up to {self.length} steps of {', '.join(step.name for step in self.steps)}"


Feature = Id | Number | History


@dataclasses.dataclass(frozen=True)
class Converted:
    """A data set that is ready to be written.

    Attributes:
        parts: ``train``, ``valid`` and ``test``.
        features: features of the rows; other columns are labels or for information.
        labels: label columns, the one that the config trains on first.
        model: config text below the features: training, data and model.
    """

    parts: dict[str, pa.Table]
    features: tuple[Feature, ...]
    labels: tuple[str, ...]
    model: str

    def features_text(self) -> str:
        """Returns the ``feature_configs`` as config text."""
        blocks = [_block("feature_configs", [feature.to_text()]) for feature in self.features]
        return "\n".join(blocks) + "\n"

    def config_text(self, name: str, directory: Path) -> str:
        """Returns a config that trains on the files in ``directory``."""
        return (
            f"# {name}, made by: tzrec data convert {name} IN {directory}\n"
            f"# Command: tzrec train {directory / f'{name}.config'}\n\n"
            f'train_input_path: "{directory / "train.parquet"}"\n'
            f'eval_input_path: "{directory / "valid.parquet"}"\n'
            f'model_dir: "{directory / "model"}"\n\n'
            f"{self.model.strip()}\n\n{self.features_text()}"
        )

    def write(self, name: str, directory: Path) -> None:
        """Writes the parts, ``features.config`` and ``{name}.config``."""
        directory.mkdir(parents=True, exist_ok=True)
        for part, table in self.parts.items():
            pq.write_table(table, directory / f"{part}.parquet")
        (directory / "features.config").write_text(self.features_text())
        (directory / f"{name}.config").write_text(self.config_text(name, directory))


def read_columns(path: Path, names: list[str]) -> pa.Table:
    """Reads columns of a Parquet file.

    Raises:
        DataError: the file or a column is missing.
    """
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}") from None
    for name in names:
        if name not in schema.names:
            raise DataError(
                f"{path}: has no column {name!r}{did_you_mean(name, schema.names)}",
                hint=f"it has {', '.join(schema.names)}",
            )
    return pq.read_table(path, columns=names)


def encode_words(train: pa.ChunkedArray, *others: pa.ChunkedArray) -> tuple[list[np.ndarray], int]:
    """Numbers the words of a column by the train part: 1, 2, … in sorted order, 0 = not there.

    Args:
        train: words of the train part.
        *others: words of the other parts.

    Returns:
        The ids of each part, and how many ids there are (with 0).
    """
    as_text = [pc.cast(column, pa.string()) for column in (train, *others)]
    words = pa.array(sorted(word for word in pc.unique(as_text[0]).to_pylist() if word is not None))
    ids = [pc.fill_null(pc.index_in(column, words), -1).to_numpy() + 1 for column in as_text]
    return [part.astype(np.int64) for part in ids], len(words) + 1


def scale_numbers(train: pa.ChunkedArray, *others: pa.ChunkedArray) -> list[np.ndarray]:
    """Returns log(1 + x) of each part, less the mean and over the deviation of the train part."""
    logs = [np.log1p(column.to_numpy().astype(np.float64)) for column in (train, *others)]
    mean, deviation = logs[0].mean(), logs[0].std() or 1.0
    return [((log - mean) / deviation).astype(np.float32) for log in logs]


def wide_and_deep_groups(wide: Sequence[str], deep: Sequence[str]) -> str:
    """Returns the groups ``wide`` and ``deep`` of these features as config text."""
    groups = {"wide": ("WIDE", wide), "deep": ("DEEP", deep)}
    return "\n".join(
        _block(
            "feature_groups",
            [
                f'group_name: "{name}"',
                f"group_type: {kind}",
                *(f'feature_names: "{feature}"' for feature in features),
            ],
        )
        for name, (kind, features) in groups.items()
    )


def _block(name: str, lines: list[str]) -> str:
    body = "\n".join(lines).replace("\n", "\n  ")
    return f"{name} {{\n  {body}\n}}"
