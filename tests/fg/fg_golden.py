"""The golden cases of ../shared/vectors, as Arrow columns and expectations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "fg_vectors.jsonl"
ASSETS = VECTORS.parent / "assets"


def cases(*kinds):
    """Returns the cases of some kinds, with the paths of their files mended."""
    if not VECTORS.exists():
        return []
    text = VECTORS.read_text(encoding="utf-8").replace("data/test/", f"{ASSETS}/")
    return [case for case in map(json.loads, text.splitlines()) if case["kind"] in kinds]


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


def columns(case):
    return {name: arrow(column) for name, column in case["input"].items()}


def farm_hash(case):
    return (case.get("env") or {}).get("USE_FARM_HASH_TO_BUCKETIZE") == "true"


def check(parsed, expected, *, unordered=False):
    """Compares what a feature gave with what a case expects."""
    values, wanted = parsed.values, np.array(expected["values"])
    if unordered:
        values, wanted = np.sort(values), np.sort(wanted)
    assert values.size == wanted.size
    np.testing.assert_allclose(values.reshape(wanted.shape), wanted, rtol=1e-6)
    for key in ("lengths", "key_lengths", "seq_lengths"):
        if expected.get(key) is not None:
            found = parsed.lengths if key == "seq_lengths" else getattr(parsed, key)
            assert found.tolist() == expected[key]
    if expected.get("weights") is not None and not unordered:
        np.testing.assert_allclose(parsed.weights, expected["weights"], rtol=1e-7)
