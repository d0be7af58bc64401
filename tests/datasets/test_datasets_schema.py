from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from google.protobuf import text_format

from tzrec.datasets.schema import (
    accepted_type,
    cast_column,
    check_column_type,
    input_fields,
    parse_input_fields_str,
    parse_type,
    same_meaning,
    unify,
)
from tzrec.errors import ConfigError, DataError
from tzrec.protos.data_pb2 import DataConfig, FieldType


def array_of(values: list, found: pa.DataType) -> pa.Array:
    if pa.types.is_run_end_encoded(found):
        return pc.run_end_encode(pa.array(values, found.value_type), found.run_end_type)
    if isinstance(found, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(found, pa.array(values, found.storage_type))
    if pa.types.is_list(found) and pa.types.is_struct(found.value_type):
        pairs = [v and [{"key": key, "value": item} for key, item in v] for v in values]
        return pa.array(pairs, type=found)
    return pa.array(values, type=found)


def as_read(values: list) -> list:
    """The values with decimals as the numbers they are."""
    return [
        [float(x) for x in value]
        if isinstance(value, list) and value and isinstance(value[0], Decimal)
        else float(value)
        if isinstance(value, Decimal)
        else value
        for value in values
    ]


NOT_NULL = pa.list_(pa.field("element", pa.string(), nullable=False))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("INT32", pa.int32()),
        ("int", pa.int32()),
        ("BigInt", pa.int64()),
        (" string ", pa.string()),
        ("FLOAT", pa.float32()),
        ("double", pa.float64()),
        ("ARRAY<INT64>", pa.list_(pa.int64())),
        ("array < array < float > >", pa.list_(pa.list_(pa.float32()))),
        ("MAP<STRING, DOUBLE>", pa.map_(pa.string(), pa.float64())),
        ("map<bigint,int>", pa.map_(pa.int64(), pa.int32())),
    ],
)
def test_type_grammar(text, expected):
    assert parse_type(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "FLOT", "ARRAY<>", "ARRAY<ARRAY<ARRAY<INT>>>", "MAP<FLOAT,INT>", "MAP<INT>", "MAP<INT,X>",
     "ARRAY<MAP<INT,INT>>"],
)  # fmt: skip
def test_type_grammar_refuses(text):
    with pytest.raises(ConfigError, match="no type of a column"):
        parse_type(text)


def test_unknown_type_has_a_suggestion():
    with pytest.raises(ConfigError, match="did you mean 'FLOAT'"):
        parse_type("FLOT")


def test_input_fields_str():
    fields = parse_input_fields_str(" a : INT ;\n b:ARRAY<STRING>; Cd:double;")
    assert fields == {"a": pa.int32(), "b": pa.list_(pa.string()), "Cd": pa.float64()}


@pytest.mark.parametrize("text", ["a", "a:", ":INT", "a:INT;b", "a:INT;a:INT", "a:BAD"])
def test_input_fields_str_refuses(text):
    with pytest.raises(ConfigError):
        parse_input_fields_str(text)


def test_every_field_type_has_an_arrow_type_and_the_string_form_wins():
    config = DataConfig()
    for name, number in FieldType.items():
        config.input_fields.add(input_name=name, input_type=number)
    config.input_fields.add(input_name="untyped")
    fields = input_fields(config)
    assert fields["ARRAY_ARRAY_FLOAT"] == pa.list_(pa.list_(pa.float32()))
    assert fields["MAP_INT32_STRING"] == pa.map_(pa.int32(), pa.string())
    assert fields["untyped"] is None
    assert None not in [fields[name] for name in FieldType.keys()]  # noqa: SIM118
    config.input_fields_str = "x:INT"
    assert input_fields(config) == {"x": pa.int32()}


def test_repeated_input_field():
    text = 'input_fields { input_name: "a" } input_fields { input_name: "a" }'
    with pytest.raises(ConfigError, match="'a' is named twice"):
        input_fields(text_format.Parse(text + " dataset_type: CsvDataset", DataConfig()))


@pytest.mark.parametrize(
    ("values", "found", "read_as"),
    [
        ([1, None], pa.int32(), pa.int32()),
        ([1, None], pa.int64(), pa.int64()),
        ([1, None], pa.int8(), pa.int32()),
        ([1, None], pa.uint16(), pa.int32()),
        ([1, None], pa.uint32(), pa.int64()),
        ([1, None], pa.uint64(), pa.int64()),
        ([True, None], pa.bool_(), pa.int32()),
        ([1.5, None], pa.float16(), pa.float32()),
        ([1.5, None], pa.float64(), pa.float64()),
        (["a", None], pa.string(), pa.string()),
        (["a", None], pa.large_string(), pa.string()),
        (["a", None], pa.string_view(), pa.string()),
        (["a", None, "a"], pa.dictionary(pa.int8(), pa.string()), pa.string()),
        ([3, None], pa.dictionary(pa.int32(), pa.int64()), pa.int64()),
        ([Decimal(3), None], pa.decimal128(38, 0), pa.int64()),
        ([Decimal("1.5"), None], pa.decimal128(10, 2), pa.float64()),
        ([Decimal("1.5"), None], pa.decimal256(50, 2), pa.float64()),
        ([Decimal("1.5"), None], pa.decimal32(5, 1), pa.float64()),
        ([Decimal(7), None], pa.decimal64(12, 0), pa.int64()),
        ([[Decimal("1.5")], None, []], pa.list_(pa.decimal128(5, 2)), pa.list_(pa.float64())),
        ([1, 1, None], pa.run_end_encoded(pa.int16(), pa.int64()), pa.int64()),
        (["a", None], pa.json_(pa.string()), pa.string()),
        ([1, None], pa.bool8(), pa.int32()),
        ([[1.0, 2.0], None], pa.list_(pa.float64(), 2), pa.list_(pa.float64())),
        ([["a"], None, []], NOT_NULL, pa.list_(pa.string())),
        ([["a"], None, []], pa.large_list(pa.large_string()), pa.list_(pa.string())),
        ([["a", None], None, []], pa.list_view(pa.string()), pa.list_(pa.string())),
        ([["a"], None, []], pa.large_list_view(pa.string_view()), pa.list_(pa.string())),
        ([["a"], None, []], pa.list_(pa.dictionary(pa.int32(), pa.string())),
         pa.list_(pa.string())),
        ([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2), pa.list_(pa.float32())),
        ([[[1], []], None], pa.large_list(pa.list_(pa.int16())), pa.list_(pa.list_(pa.int32()))),
        ([[(1, 2.0)], None, []], pa.map_(pa.int64(), pa.float32()),
         pa.map_(pa.int64(), pa.float32())),
        ([[("a", 2)], None], pa.map_(pa.large_string(), pa.int8()),
         pa.map_(pa.string(), pa.int32())),
        ([[("a", 2), ("b", None)], None, []], pa.map_(pa.string_view(), pa.decimal128(9, 2)),
         pa.map_(pa.string(), pa.float64())),
        ([[("a", 2.0), ("b", None)], None, []],
         pa.list_(pa.struct({"key": pa.dictionary(pa.int8(), pa.string()), "value": pa.float16()})),
         pa.map_(pa.string(), pa.float32())),
    ],
)  # fmt: skip
def test_types_are_accepted_by_meaning(values, found, read_as):
    column = array_of(values, found)
    target = unify("c", [("f", check_column_type("c", found, "f"))])
    assert same_meaning(target, read_as)
    sliced = pa.concat_arrays([column, column]).slice(len(values))
    for array in (column, sliced):
        cast = cast_column(array, target, "c")
        assert cast.type == target
        assert cast.to_pylist() == as_read(values)
        cast.validate(full=True)


def test_a_column_of_the_right_type_is_not_copied():
    column = pa.array([1, 2, 3])
    assert cast_column(column, pa.int64(), "c") is column


@pytest.mark.parametrize(
    "found",
    [
        pa.timestamp("s"),
        pa.list_(pa.struct({"key": pa.list_(pa.int8()), "value": pa.int8()})),
        pa.date32(),
        pa.time64("us"),
        pa.duration("s"),
        pa.binary(),
        pa.binary(4),
        pa.month_day_nano_interval(),
        pa.struct([("a", pa.int32())]),
        pa.list_(pa.list_(pa.list_(pa.int32()))),
        pa.list_(pa.date32()),
        pa.map_(pa.float32(), pa.int32()),
        pa.map_(pa.string(), pa.list_(pa.int32())),
    ],
)
def test_other_types_are_refused_with_column_file_type_and_cure(found):
    assert accepted_type(found) is None
    with pytest.raises(DataError) as caught:
        check_column_type("price", found, "x.parquet")
    message = str(caught.value)
    assert "'price'" in message
    assert "x.parquet" in message
    assert str(found) in message
    assert "CAST" in message


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ([pa.int32(), pa.int64()], pa.int64()),
        ([pa.null(), pa.int32()], pa.int32()),
        ([pa.null(), pa.null()], pa.string()),
        ([pa.int64(), pa.float32()], pa.float64()),
        ([pa.float32(), pa.float64()], pa.float64()),
        ([pa.list_(pa.null()), pa.list_(pa.int64())], pa.list_(pa.int64())),
        ([pa.list_(pa.int32()), pa.list_(pa.int64())], pa.list_(pa.int64())),
        (
            [pa.map_(pa.int32(), pa.float32()), pa.map_(pa.int64(), pa.float64())],
            pa.map_(pa.int64(), pa.float64()),
        ),
    ],
)
def test_files_may_differ_where_one_type_holds_both(types, expected):
    typed = [(f"f{i}", t) for i, t in enumerate(types)]
    assert unify("c", typed) == expected
    assert unify("c", typed[::-1]) == expected


def test_files_that_differ_in_meaning_are_named():
    with pytest.raises(DataError, match=r"'c' is string in f0 but int64 in f1"):
        unify("c", [("f0", pa.string()), ("f1", pa.int64())])


def test_a_value_that_does_not_fit_is_an_error():
    with pytest.raises(DataError, match=r"'c' .uint64. cannot become int64"):
        cast_column(pa.array([2**63], type=pa.uint64()), pa.int64(), "c")
