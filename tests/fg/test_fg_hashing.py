"""MurmurHash64A with the seed of libstdc++."""

import json
from pathlib import Path

import pytest

from tzrec.fg.hashing import murmur_hash64a

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "fg_hash_vectors.jsonl"


@pytest.mark.parametrize(
    ("text", "bucket"),
    [
        *{"abc": 33, "efg": 44, "hij": 66, "xyz": 13, "x": 35, "y": 30, "z": 54, "0": 26}.items(),
        *{"1": 95, "2": 70, "3": 13, "4": 56, "ua_ia": 37, "match_feat_1": 71}.items(),
    ],
)
def test_published_buckets(text, bucket):
    assert murmur_hash64a(text.encode()) % 100 == bucket


@pytest.mark.parametrize(
    ("text", "value"),
    [("", 6142509188972423790), ("0", 2297668033614959926), ("1", 10159970873491820195)],
)
def test_whole_hash(text, value):
    assert murmur_hash64a(text.encode()) == value


@pytest.mark.skipif(not VECTORS.exists(), reason="needs ../shared/vectors")
def test_golden_vectors():
    for line in VECTORS.read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        assert murmur_hash64a(case["s"].encode()) == int(case["default_u64"]), case["s"]
