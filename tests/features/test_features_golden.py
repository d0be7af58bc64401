"""The golden FG_NONE cases of ../shared/vectors, for the kinds that exist."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf import text_format

from tzrec.datasets.data_parser import DataParser
from tzrec.features import feature as feature_module
from tzrec.features.feature import create_features
from tzrec.protos.feature_pb2 import FeatureConfig

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "fg_vectors.jsonl"


def _cases(kind):
    if not VECTORS.exists():
        return []
    cases = [json.loads(line) for line in VECTORS.read_text().splitlines()]
    return [c for c in cases if c["kind"] == kind and c["fg_mode"] == "FG_NONE"]


def _array(column):
    text = column["type"].replace("item: ", "").replace("float", "float32")
    values = column["values"]
    if text.startswith("map"):
        key, value = text[4:-1].split(", ")
        rows = [None if row is None else [tuple(pair) for pair in row] for row in values]
        return pa.array(rows, pa.map_(_type(key), _type(value)))
    return pa.array(values, _type(text))


def _type(text):
    if text.startswith("list<"):
        return pa.list_(_type(text[5:-1]))
    return {"string": pa.string(), "float32": pa.float32()}.get(text) or pa.type_for_alias(text)


def _check(parsed, expected):
    np.testing.assert_allclose(parsed.values, np.array(expected["values"]), rtol=1e-6)
    lengths = expected.get("seq_lengths", expected.get("lengths"))
    if lengths is not None:
        assert parsed.lengths.tolist() == lengths
    if "key_lengths" in expected:
        found = parsed.key_lengths
        found = np.ones(len(parsed.values)) if found is None else found
        assert found.tolist() == expected["key_lengths"]
    if "weights" in expected:
        np.testing.assert_allclose(parsed.weights, expected["weights"], rtol=1e-6)


@pytest.mark.skipif(not VECTORS.exists(), reason="needs ../shared/vectors")
@pytest.mark.parametrize("case", _cases("fg_encoded_parse_fn"), ids=lambda c: c["id"][-40:])
def test_parse_functions(case):
    function = getattr(feature_module, case["function"])
    for name, column in case["input"].items():
        _check(function(name, _array(column), **case["kwargs"]), case["expected"][name])


@pytest.mark.skipif(not VECTORS.exists(), reason="needs ../shared/vectors")
@pytest.mark.parametrize("case", _cases("feature"), ids=lambda c: c["id"][-60:])
def test_features(case):
    text = case["feature_config"]
    kind = text.split(" ")[0]
    if kind not in ("id_feature", "raw_feature"):
        pytest.skip(f"{kind} comes with feature generation")
    ((column_name, column),) = case["input"].items()
    config = FeatureConfig()
    if "__" in column_name:
        sequence = column_name.split("__")[0]
        text = (
            f'sequence_feature {{ sequence_name: "{sequence}" sequence_length: 50 '
            f'sequence_delim: ";" features {{ {text} }} }}'
        )
    # The cases give no size to their table; any that holds the ids will do.
    if kind == "id_feature" and "bucket" not in text:
        text = text.replace("embedding_dim: 16", "embedding_dim: 16 num_buckets: 100")
    text_format.Merge(text, config)
    (feature,) = create_features([config])
    parsed = feature.parse({column_name: _array(column)})
    _check(parsed, case["expected"][column_name])


@pytest.mark.skipif(not VECTORS.exists(), reason="needs ../shared/vectors")
@pytest.mark.parametrize("case", _cases("data_parser"), ids=lambda c: c["id"][-40:])
def test_data_parser(case):
    configs = []
    for text in case["feature_configs"]:
        configs.append(FeatureConfig())
        text_format.Merge(text, configs[-1])
    parser = DataParser(create_features(configs), labels=case["labels"])
    parsed = parser.parse({name: _array(column) for name, column in case["input"].items()})
    expected = case["expected"]["flat"]
    assert set(expected) <= set(parsed)
    for key, values in expected.items():
        np.testing.assert_allclose(parsed[key].numpy(), np.array(values), rtol=1e-6, err_msg=key)
    batch = parser.to_batch(parsed)
    kjt, want = batch.sparse_features["__BASE__"], case["expected"]["kjt"]
    want = want["sparse_features[__BASE__]"]
    assert kjt.keys() == want["keys"]
    assert kjt.values().tolist() == want["values"]
    assert kjt.lengths().tolist() == want["lengths"]
    if want["weights"] is None:
        assert kjt.weights_or_none() is None
    else:
        np.testing.assert_allclose(kjt.weights().numpy(), want["weights"], rtol=1e-6)
    flat = batch.to_dict()
    for key, values in expected.items():
        if key.endswith("weights") and f"{key}" not in parsed:
            continue
        np.testing.assert_allclose(flat[key].numpy(), np.array(values), rtol=1e-6, err_msg=key)
