"""Columns as pandas, Polars, DuckDB and Spark write them, read by value."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf import text_format

from tzrec.datasets.dataset import create_dataloader
from tzrec.datasets.parquet_dataset import ParquetReader
from tzrec.errors import DataError, FeatureError
from tzrec.features.feature import FgMode, create_features
from tzrec.protos.data_pb2 import DataConfig
from tzrec.protos.feature_pb2 import FeatureConfig


class Case(NamedTuple):
    """The same values in the type of each writer; None where it has no such type."""

    values: list[Any]
    pandas: Callable[[list[Any]], Any] | None
    polars: Any
    duckdb: str | None
    spark: pa.DataType | None
    read: list[Any] | None = None  # where reading gives other Python values

    @property
    def expected(self) -> list[Any]:
        return self.values if self.read is None else self.read


def masked(kind: str) -> Callable[[list[Any]], Any]:
    return lambda values: pd.array(values, dtype=kind)


def arrow(kind: pa.DataType) -> Callable[[list[Any]], Any]:
    return lambda values: pd.Series(values, dtype=pd.ArrowDtype(kind))


def objects(values: list[Any]) -> pd.Series:
    return pd.Series(values, dtype=object)


def spark_list(of: pa.DataType, *, nullable: bool = False) -> pa.DataType:
    return pa.list_(pa.field("element", of, nullable=nullable))


def spark_map(key: pa.DataType, item: pa.DataType) -> pa.DataType:
    return pa.map_(key, pa.field("value", item, nullable=True))


PAIRS = [[("1", 0.5), ("2", 1.5)], [], None]
PAIR = pl.List(pl.Struct({"key": pl.String, "value": pl.Float32}))
TEXT, NUMBERS = ["a", "", None], [1, -2, None]

CASES = {
    "int8": Case(NUMBERS, masked("Int8"), pl.Int8, "TINYINT", pa.int8()),
    "int16": Case(NUMBERS, masked("Int16"), pl.Int16, "SMALLINT", pa.int16()),
    "int32": Case(NUMBERS, masked("Int32"), pl.Int32, "INTEGER", pa.int32()),
    "int64": Case(NUMBERS, masked("Int64"), pl.Int64, "BIGINT", pa.int64()),
    "uint8": Case([1, 255, None], masked("UInt8"), pl.UInt8, "UTINYINT", None),
    "uint16": Case([1, 65535, None], masked("UInt16"), pl.UInt16, "USMALLINT", None),
    "uint32": Case([1, 2**32 - 1, None], masked("UInt32"), pl.UInt32, "UINTEGER", None),
    "uint64": Case([1, 2**63 - 1, None], masked("UInt64"), pl.UInt64, "UBIGINT", None),
    "no nulls": Case([3, 4, 5], np.array, pl.Int64, "BIGINT NOT NULL", pa.int64()),
    "half": Case([0.5, -2.0, 1.0], lambda v: np.array(v, np.float16), pl.Float16, None, None),
    "float": Case([0.5, -2.0, None], masked("Float32"), pl.Float32, "FLOAT", pa.float32()),
    "double": Case([0.5, -2.0, None], masked("Float64"), pl.Float64, "DOUBLE", pa.float64()),
    "bool": Case(
        [True, False, None], masked("boolean"), pl.Boolean, "BOOLEAN", pa.bool_(), [1, 0, None]
    ),
    "decimal": Case(
        [Decimal("1.25"), Decimal("-2"), None],
        arrow(pa.decimal128(10, 2)), pl.Decimal(10, 2), "DECIMAL(10,2)", pa.decimal128(10, 2),
        [1.25, -2.0, None],
    ),
    "whole decimal": Case(
        [Decimal(7), Decimal(-2), None],
        arrow(pa.decimal128(20, 0)), pl.Decimal(20, 0), "DECIMAL(20,0)", pa.decimal128(20, 0),
        [7, -2, None],
    ),
    "huge": Case([1, 2, None], None, None, "HUGEINT", None, [1.0, 2.0, None]),
    "text": Case(TEXT, masked("string"), pl.String, "VARCHAR", pa.string()),
    "objects": Case(TEXT, objects, pl.String, "VARCHAR", pa.string()),
    "large text": Case(TEXT, arrow(pa.large_string()), pl.String, "VARCHAR", pa.large_string()),
    "category": Case(
        ["a", "b", None], pd.Categorical, pl.Categorical, "ENUM('b', 'a')", pa.string()
    ),
    "enum": Case(
        ["a", "b", None], pd.Categorical, pl.Enum(["b", "a"]), "ENUM('b', 'a')", pa.string()
    ),
    "nothing": Case([None, None, None], objects, pl.Null, None, None),
    "list<int>": Case(
        [[1, 2], [], None], objects, pl.List(pl.Int32), "INTEGER[]", spark_list(pa.int32())
    ),
    "list<double>": Case(
        [[1.5, None], [], None],
        objects, pl.List(pl.Float64), "DOUBLE[]", spark_list(pa.float64(), nullable=True),
    ),
    "list<text>": Case(
        [["a", "b"], [], None], objects, pl.List(pl.String), "VARCHAR[]", spark_list(pa.string())
    ),
    "list<category>": Case(
        [["a", "b"], [], None], None, pl.List(pl.Categorical), "ENUM('b', 'a')[]", None
    ),
    "array": Case(
        [[1.0, 2.0], [3.0, 4.0], None],
        objects, pl.Array(pl.Float32, 2), None, spark_list(pa.float32()),
    ),
    # pyarrow itself cannot read a null of DuckDB's arrays.
    "array without null": Case([[1.0, 2.0], [3.0, 4.0]], None, None, "FLOAT[2]", None),
    "list<list>": Case(
        [[[1, 2], []], [], None],
        objects, pl.List(pl.List(pl.Int64)), "BIGINT[][]", spark_list(spark_list(pa.int64())),
    ),
    "map": Case(
        PAIRS, arrow(pa.map_(pa.string(), pa.float32())), PAIR, "MAP(VARCHAR, FLOAT)",
        spark_map(pa.string(), pa.float32()),
    ),
    "int map": Case(
        [[(1, 2)], [], None], arrow(pa.map_(pa.int64(), pa.int32())), None,
        "MAP(BIGINT, INTEGER)", spark_map(pa.int64(), pa.int32()),
    ),
}  # fmt: skip


def write_pandas(case: Case, path: str) -> None:
    assert case.pandas is not None
    pd.DataFrame({"c": case.pandas(case.values)}).to_parquet(path, index=False)


def write_polars(case: Case, path: str) -> None:
    values = case.values
    if case.polars == PAIR:
        values = [v and [{"key": key, "value": item} for key, item in v] for v in values]
    pl.DataFrame({"c": pl.Series(values, dtype=case.polars)}).write_parquet(path)


def literal(value: Any, kind: str) -> str:
    if value is None:
        return "NULL"
    if kind.startswith("MAP"):
        return f"MAP({[key for key, _ in value]}, {[item for _, item in value]})"
    if isinstance(value, list):
        return str(value).replace("None", "NULL")
    return repr(value) if isinstance(value, str) else str(value)


def write_duckdb(case: Case, path: str) -> None:
    connection = duckdb.connect()
    connection.execute(f"CREATE TABLE t (c {case.duckdb})")
    for value in case.values:
        connection.execute(f"INSERT INTO t VALUES ({literal(value, str(case.duckdb))})")
    connection.execute(f"COPY t TO '{path}' (FORMAT parquet)")


def write_spark(case: Case, path: str) -> None:
    # pq's flavour writes what Spark does: INT96 times, its names for list elements.
    table = pa.table({"c": pa.array(case.values, case.spark)})
    pq.write_table(table, path, flavor="spark", use_compliant_nested_type=False)


WRITERS = {
    "pandas": write_pandas,
    "polars": write_polars,
    "duckdb": write_duckdb,
    "spark": write_spark,
}


@pytest.mark.parametrize(
    ("case", "writer"),
    [
        pytest.param(case, writer, id=f"{writer}: {name}")
        for name, case in CASES.items()
        for writer in WRITERS
        if getattr(case, writer) is not None
    ],
)
def test_a_column_is_read_by_its_meaning(case, writer, tmp_path):
    path = str(tmp_path / "a.parquet")
    WRITERS[writer](case, path)
    reader = ParquetReader(path, ["c"])
    piece = next(reader.to_batches())
    assert piece.column("c").to_pylist() == case.expected
    piece.validate(full=True)


OTHERS = {
    "time of day": pa.array([1], pa.time64("us")),
    "timestamp": pa.array([1], pa.timestamp("ms")),
    "date": pa.array([1], pa.date32()),
    "bytes": pa.array([b"x"]),
    "struct": pa.array([{"a": 1}]),
    "list of structs": pa.array([[{"a": 1}]]),
    "list of list of list": pa.array([[[[1]]]]),
    "map of lists": pa.array([[("a", [1])]], pa.map_(pa.string(), pa.list_(pa.int64()))),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_types_are_refused_before_a_row_is_read(name, tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"price": OTHERS[name]}), path)
    with pytest.raises(DataError) as caught:
        ParquetReader(str(path), ["price"])
    first, hint = str(caught.value).split("\n")
    found = pq.read_schema(path).field("price").type
    assert first.startswith(f"column 'price' of {path} has type {found}; readable are ")
    assert "CAST(" in hint
    assert "price" in hint


FEATURES = """
feature_configs { id_feature { feature_name: "id" num_buckets: 9 embedding_dim: 4 } }
feature_configs { id_feature { feature_name: "ids" num_buckets: 9 embedding_dim: 4 } }
feature_configs { id_feature { feature_name: "w" num_buckets: 9 embedding_dim: 4 weighted: true } }
feature_configs { raw_feature { feature_name: "x" fg_encoded_default_value: "-1" } }
feature_configs { raw_feature { feature_name: "v" value_dim: 2 } }
"""
FRAME = pl.DataFrame(
    {
        "id": pl.Series([1, None, 8], dtype=pl.UInt16),
        "ids": pl.Series([["1", "2"], [], None], dtype=pl.List(pl.Categorical)),
        "w": pl.Series(
            [[{"key": "3", "value": 0.5}], [], None],
            dtype=pl.List(pl.Struct({"key": pl.Categorical, "value": pl.Float64})),
        ),
        "x": pl.Series([Decimal("0.5"), None, Decimal(2)], dtype=pl.Decimal(9, 2)),
        "v": pl.Series([[1, 2], [3, 4], [5, 6]], dtype=pl.Array(pl.Int8, 2)),
        "label": [True, False, True],
        "id_as_text": ["a", "b", "c"],
    }
)


def loader_of(frame: pl.DataFrame, folder, text: str = FEATURES):
    frame.write_parquet(folder / "a.parquet")
    config = text_format.Parse(
        'dataset_type: ParquetDataset batch_size: 8 label_fields: "label"', DataConfig()
    )
    configs = [
        text_format.Parse(line.removeprefix("feature_configs {").removesuffix("}"), FeatureConfig())
        for line in text.strip().splitlines()
    ]
    features = create_features(configs, fg_mode=FgMode.FG_NONE)
    return create_dataloader(config, features, str(folder / "a.parquet"))


def test_features_read_what_polars_writes(tmp_path):
    with loader_of(FRAME, tmp_path) as loader:
        (batch,) = list(loader)
    found = {key: tensor.tolist() for key, tensor in batch.to_dict().items()}
    assert (found["id.values"], found["id.lengths"]) == ([1, 8], [1, 0, 1])
    assert (found["ids.values"], found["ids.lengths"]) == ([1, 2], [2, 0, 0])
    assert (found["w.values"], found["w.weights"]) == ([3], [0.5])
    assert found["x.values"] == [[0.5], [-1.0], [2.0]]
    assert found["v.values"] == [[1, 2], [3, 4], [5, 6]]
    assert found["label"] == [1, 0, 1]


def test_ids_as_words_name_row_column_and_value(tmp_path):
    text = FEATURES.replace('"id" ', '"id_as_text" ')
    with loader_of(FRAME, tmp_path, text) as loader, pytest.raises(FeatureError) as caught:
        list(loader)
    message = str(caught.value)
    assert "row group 0, row 0 (counted from 0): feature 'id_as_text' holds 'a'" in message
    assert "(column 'id_as_text' is 'a')" in message
