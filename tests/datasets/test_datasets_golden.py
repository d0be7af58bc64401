"""The parser with the real features: golden cases, and whole loaders."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf import text_format

from tzrec.constant import Mode
from tzrec.datasets.data_parser import DataParser
from tzrec.datasets.dataset import create_dataloader
from tzrec.datasets.locate import columns_of
from tzrec.deploy.debug_text import features_text
from tzrec.errors import DataError, FeatureError
from tzrec.features.feature import FgMode, create_features
from tzrec.features.mask import SAMPLE_MASK
from tzrec.protos.data_pb2 import DataConfig
from tzrec.protos.feature_pb2 import FeatureConfig

VECTORS = Path(__file__).parents[3] / "shared" / "vectors" / "fg_vectors.jsonl"


def golden_cases() -> list:
    if not VECTORS.exists():
        return []
    cases = map(json.loads, VECTORS.read_text().splitlines())
    return [
        pytest.param(case, id=case["id"].rsplit("::", 1)[1])
        for case in cases
        if case["kind"] == "data_parser"
    ]


def features_of(*texts: str, mode: FgMode = FgMode.FG_NONE) -> list:
    return create_features([text_format.Parse(text, FeatureConfig()) for text in texts], mode)


def arrow_type(name: str) -> pa.DataType:
    name = name.replace("item: ", "")
    if name.startswith("list<"):
        return pa.list_(arrow_type(name[5:-1]))
    if name.startswith("map"):
        key, item = name.removeprefix("map<").removesuffix(">").split(", ")
        return pa.map_(arrow_type(key), arrow_type(item))
    return pa.float32() if name == "float" else pa.type_for_alias(name)


def arrow_column(values: list, type: str) -> pa.Array:  # noqa: A002
    if type.startswith("map"):
        values = [row and [tuple(pair) for pair in row] for row in values]
    return pa.array(values, type=arrow_type(type))


@pytest.mark.skipif(not VECTORS.exists(), reason="golden vectors are not in this checkout")
@pytest.mark.parametrize("case", golden_cases())
def test_golden_data_parser(case):
    parser = DataParser(
        features_of(*case["feature_configs"], mode=FgMode[case["fg_mode"]]), labels=case["labels"]
    )
    columns = {name: arrow_column(**column) for name, column in case["input"].items()}
    parsed = parser.parse(columns)
    if "flat" not in case["expected"]:
        dump = features_text(parser.to_batch(parsed), parser.features).to_pylist()
        assert dump == case["expected"]["dump"]
        return
    expected = case["expected"]["flat"]
    if "f_cat_a.values" in expected:  # some cases state the labels only
        assert parsed.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_allclose(parsed[key].numpy(), values, rtol=1e-6, err_msg=key)
    batch = parser.to_batch(parsed)
    kjt = batch.sparse_features["__BASE__"]
    golden = case["expected"].get("kjt", {}).get("sparse_features[__BASE__]")
    if golden is None:
        return
    assert kjt.keys() == golden["keys"]
    assert kjt.values().tolist() == golden["values"]
    assert kjt.lengths().tolist() == golden["lengths"]
    weights = kjt.weights_or_none()
    assert (weights is None) == (golden["weights"] is None)
    if weights is not None:
        np.testing.assert_allclose(weights.numpy(), golden["weights"], rtol=1e-6)


EVERY_KIND = [
    'id_feature { feature_name: "one" num_buckets: 50 embedding_dim: 4 }',
    'id_feature { feature_name: "tags" num_buckets: 50 embedding_dim: 4 }',
    'id_feature { feature_name: "w" num_buckets: 50 embedding_dim: 4 weighted: true }',
    'raw_feature { feature_name: "price" fg_encoded_default_value: "-1" }',
    'raw_feature { feature_name: "pair" value_dim: 2 }',
    'sequence_feature { sequence_name: "clicks" sequence_length: 10 sequence_delim: "|" '
    'features { id_feature { feature_name: "item" num_buckets: 50 embedding_dim: 4 } } '
    'features { id_feature { feature_name: "cats" value_dim: 0 num_buckets: 50 '
    "embedding_dim: 4 } } "
    'features { raw_feature { feature_name: "price" } } }',
]

ROWS = 60


def every_kind_table() -> pa.Table:
    random = np.random.default_rng(0)
    rows = range(ROWS)
    lists = [random.integers(0, 50, size=random.integers(0, 4)).tolist() for _ in rows]
    return pa.table(
        {
            "one": pa.array([None if i % 7 == 0 else i % 50 for i in rows], pa.int32()),
            "tags": pa.array(["\x03".join(map(str, ids)) for ids in lists]).dictionary_encode(),
            "w": pa.array([[(i % 50, 0.5)] for i in rows], pa.map_(pa.int64(), pa.float64())),
            "price": pa.array([None if i % 5 == 0 else float(i) for i in rows], pa.float64()),
            "pair": pa.array([[i, i + 0.5] for i in rows], pa.large_list(pa.float64())),
            "clicks__item": pa.array(["|".join(map(str, ids)) for ids in lists]),
            "clicks__cats": pa.array([[[i, i + 1] for i in ids if i < 49] for ids in lists]),
            "clicks__price": pa.array([[float(i) for i in ids] for ids in lists]),
            "label": pa.array([i % 2 for i in rows]),
        }
    )


def loader_of(folder: Path, text: str = "", mode: Mode = Mode.TRAIN):
    base = 'dataset_type: ParquetDataset batch_size: 16 label_fields: "label" '
    config = text_format.Parse(base + text, DataConfig())
    return create_dataloader(config, features_of(*EVERY_KIND), str(folder), mode=mode)


def test_batches_of_every_kind_equal_the_table_parsed_at_once(tmp_path):
    table = every_kind_table()
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=7)
    with loader_of(tmp_path) as loader:
        flat = [batch.to_dict() for batch in loader]
    assert len(flat) == 4
    lists = [text.as_py().split("\x03") for text in table.column("tags")]
    ids = [int(token) for tokens in lists for token in tokens if token]
    joined = {key: np.concatenate([part[key].numpy() for part in flat]) for key in flat[0]}
    assert joined["tags.values"].tolist() == ids
    assert joined["clicks__item.values"].tolist() == ids
    assert joined["clicks__price.values"][:, 0].tolist() == ids
    assert joined["clicks__cats.values"].tolist() == [i + k for i in ids if i < 49 for k in (0, 1)]
    assert joined["one.lengths"].tolist() == [int(i % 7 != 0) for i in range(ROWS)]
    assert joined["w.weights"].tolist() == [0.5] * ROWS
    assert joined["price.values"][:, 0].tolist() == [-1 if i % 5 == 0 else i for i in range(ROWS)]
    assert joined["pair.values"].tolist() == [[i, i + 0.5] for i in range(ROWS)]
    assert joined["label"].tolist() == [i % 2 for i in range(ROWS)]


@pytest.mark.parametrize(
    ("column", "bad", "message"),
    [
        ("one", 50, "id 50"),
        ("one", -1, "id -1"),
        ("clicks__item", "1|x|2", "x"),
        ("clicks__item", "1|2\x033", "value_dim is 1"),
        ("pair", [1.0], "pair"),
        ("label", None, "label 'label' is null"),
    ],
)
def test_a_bad_row_of_a_real_feature_is_named(column, bad, message, tmp_path):
    table = every_kind_table()
    values = table.column(column).to_pylist()
    values[37] = bad
    changed = pa.array(values, type=table.schema.field(column).type)
    position = table.schema.get_field_index(column)
    pq.write_table(table.set_column(position, column, changed), tmp_path / "a.parquet")
    with loader_of(tmp_path) as loader, pytest.raises((DataError, FeatureError)) as caught:
        list(loader)
    assert "a.parquet: row group 0, row 37 (counted from 0): " in str(caught.value)
    assert message in str(caught.value)


def test_masked_rows_get_the_default():
    parser = DataParser(
        features_of(
            'id_feature { feature_name: "a" num_buckets: 9 embedding_dim: 4 use_mask: true '
            'fg_encoded_default_value: "8" }',
            'raw_feature { feature_name: "b" use_mask: true fg_encoded_default_value: "-1" }',
        ),
        is_training=True,
    )
    columns = {
        "a": pa.array([1, 2, 3]),
        "b": pa.array([1.0, 2.0, 3.0]),
        SAMPLE_MASK: pa.array([False, True, False]),
    }
    plain = DataParser(parser.features, is_training=False).parse(columns)
    assert plain["a.values"].tolist() == [1, 2, 3]
    parsed = parser.parse(columns)
    assert parsed["a.values"].tolist() == [1, 8, 3]
    assert parsed["b.values"].tolist() == [[1], [-1], [3]]


def test_a_parser_with_real_features_pickles(tmp_path):
    pq.write_table(every_kind_table(), tmp_path / "a.parquet")
    with loader_of(tmp_path) as loader:
        columns = columns_of(next(loader.reader.to_batches(32)))
        expected = loader.parser.parse(columns)
        again = pickle.loads(pickle.dumps(loader.parser)).parse(columns)
    assert again.keys() == expected.keys()
    assert all(again[key].equal(expected[key]) for key in expected)
