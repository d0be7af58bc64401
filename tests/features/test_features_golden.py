"""The golden FG_NONE cases of ../shared/vectors, for the kinds that exist."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from features_helpers import config, feature

from tzrec.features import feature as feature_module
from tzrec.features.defaults import generated_default
from tzrec.features.feature import BaseFeature

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "fg_vectors.jsonl"
KINDS = ("id_feature", "raw_feature")

pytestmark = pytest.mark.skipif(not VECTORS.exists(), reason="needs ../shared/vectors")


def cases(kind, fg_modes=("FG_NONE",)):
    if not VECTORS.exists():
        return []
    found = [json.loads(line) for line in VECTORS.read_text(encoding="utf-8").splitlines()]
    return [
        case
        for case in found
        if case["kind"] == kind
        and case["fg_mode"] in fg_modes
        and case.get("feature_config", KINDS[0]).startswith(KINDS)
    ]


def arrow_type(text):
    text = text.replace("item: ", "")
    if text.startswith("list<"):
        return pa.list_(arrow_type(text[5:-1]))
    if text.startswith("map<"):
        key, value = text[4:-1].split(", ")
        return pa.map_(arrow_type(key), arrow_type(value))
    return pa.float32() if text == "float" else pa.type_for_alias(text)


def arrow(column):
    rows = column["values"]
    if column["type"].startswith("map"):
        rows = [row and [tuple(pair) for pair in row] for row in rows]
    return pa.array(rows, arrow_type(column["type"]))


def check(parsed, expected):
    np.testing.assert_allclose(parsed.values, np.array(expected["values"]), rtol=1e-7)
    assert parsed.values.shape == np.array(expected["values"]).shape
    for key in ("lengths", "key_lengths", "seq_lengths"):
        if key in expected:
            assert getattr(parsed, key).tolist() == expected[key]
    if "weights" in expected:
        np.testing.assert_allclose(parsed.weights, expected["weights"], rtol=1e-7)


@pytest.mark.parametrize("case", cases("fg_encoded_parse_fn"), ids=lambda case: case["id"][-40:])
def test_parse_functions(case):
    function = getattr(feature_module, case["function"])
    ((name, column),) = case["input"].items()
    check(function(name, arrow(column), **case["kwargs"]), case["expected"][name])


@pytest.mark.parametrize("case", cases("feature"), ids=lambda case: case["id"][-60:])
def test_features(case):
    build = {key: value for key, value in case["build"].items() if key != "fg_mode"}
    cls = BaseFeature.create_class(case["feature_class"])
    made = cls(config(case["feature_config"]), fg_encoded_multival_sep="\x03", **build)
    for name, value in case["meta"].items():
        assert getattr(made, name) == value, name
    parsed = made.parse({name: arrow(column) for name, column in case["input"].items()})
    assert type(parsed).__name__ == case["output_kind"]
    check(parsed, case["expected"][made.name])


@pytest.mark.parametrize(
    "case", cases("fg_default_value", ("FG_NONE", "FG_NORMAL")), ids=lambda case: case["id"][-60:]
)
def test_generated_defaults(case):
    row = case["expected"]["row"]
    expected = row if isinstance(row, list) else [] if row is None else [row]
    assert (generated_default(feature(case["feature_config"])) or []) == expected
