"""The golden cases of ../shared/vectors through the feature classes."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from features_helpers import config, feature

from tzrec.features import feature as feature_module
from tzrec.features.defaults import generated_default
from tzrec.features.feature import BaseFeature, FgMode, create_features, create_fg_json

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fg"))
from fg_golden import VECTORS, arrow, cases, check, columns, farm_hash

pytestmark = pytest.mark.skipif(not VECTORS.exists(), reason="needs ../shared/vectors")


def short(case):
    return case["id"][-60:]


def rounded(value):
    """Returns JSON with floats as float32 says them."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(np.float32(value)) if isinstance(value, float) else value


@pytest.mark.parametrize("case", cases("fg_encoded_parse_fn"), ids=short)
def test_parse_functions(case):
    function = getattr(feature_module, case["function"])
    ((name, column),) = case["input"].items()
    check(function(name, arrow(column), **case["kwargs"]), case["expected"][name])


@pytest.mark.parametrize(
    "case", [case for case in cases("feature") if case["feature_config"]], ids=short
)
def test_features(case):
    mode = FgMode[case["fg_mode"]]
    build = {key: value for key, value in case["build"].items() if key != "fg_mode"}
    cls = BaseFeature.create_class(case["feature_class"])
    made = cls(
        config(case["feature_config"]),
        mode,
        fg_encoded_multival_sep="\x03" if mode is FgMode.FG_NONE else None,
        farm_hash=farm_hash(case),
        **build,
    )
    for name, value in (case.get("meta") or {}).items():
        assert getattr(made, name) == value, name
    if case["fg_json"] is not None:
        assert rounded(made.fg_json()) == rounded(case["fg_json"])
    parsed = made.parse(columns(case))
    if "output_kind" in case:
        assert type(parsed).__name__ == case["output_kind"]
    unordered = case.get("unordered_within_row", False)
    check(parsed, case["expected"][made.name], unordered=unordered)


@pytest.mark.parametrize("case", cases("fg_default_value"), ids=short)
def test_generated_defaults(case):
    row = case["expected"]["row"]
    expected = row if isinstance(row, list) else [] if row is None else [row]
    made = feature(case["feature_config"], farm_hash=farm_hash(case))
    assert (generated_default(made) or []) == expected


@pytest.mark.parametrize("case", cases("fg_json"), ids=short)
def test_fg_json(case, tmp_path):
    features = create_features([config(text) for text in case["feature_configs"]], FgMode.FG_DAG)
    asset_dir = str(tmp_path) if case["with_asset_dir"] else None
    made = create_fg_json(features, asset_dir=asset_dir, **case["kwargs"])
    assert made == case["expected"]
    if asset_dir:
        names = {entry["vocab_file"] for entry in made["features"] if "vocab_file" in entry}
        assert {path.name for path in tmp_path.iterdir()} == names
    assert json.loads(json.dumps(made)) == made
