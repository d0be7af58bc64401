"""What a row becomes, as text."""

import pyarrow as pa

from tzrec.fg import FgHandler
from tzrec.fg.explain import explain, show
from tzrec.fg.hashing import murmur_hash64a
from tzrec.fg.ragged import Ragged, Text


def lines(entry, columns, **others):
    handler = FgHandler({"features": [*others.get("before", []), entry]})
    arrays = {name: pa.array([value]) for name, value in columns.items()}
    return explain(handler, arrays, others.get("features", ()))


def entry(kind, **options):
    return {"feature_type": kind, "feature_name": "f", **options}


def test_an_id():
    feature = entry("id_feature", expression="user:x", hash_bucket_size=100)
    assert lines(feature, {"x": "abc\x1defg"}) == [
        "f  (id_feature, hash_bucket_size 100)",
        '  user:x  "abc\\u001defg"  → abc | efg',
        "  id                        33 | 44",
    ]


def test_a_cross_of_another_feature():
    bins = {
        "feature_type": "raw_feature",
        "feature_name": "bin",
        "expression": "user:age",
        "boundaries": [18, 30],
    }
    feature = entry("combo_feature", expression=["feature:bin", "item:x"], hash_bucket_size=10)
    found = lines(feature, {"age": 20.0, "x": "a"}, before=[bins], features=["f"])
    assert found == [
        "bin  (raw_feature, boundaries)",
        "  user:age  20.0  → 20.0",
        "  id                1",
        "",
        "f  (combo_feature, hash_bucket_size 10)",
        "  feature:bin         1",
        '  item:x       "a"  → a',
        "  result              1_a",
        f"  id                  {murmur_hash64a(b'1_a') % 10}",
    ]


def test_defaults_and_unknown_words_are_named():
    feature = entry(
        "sequence_id_feature",
        expression="user:x",
        vocab_list=["a", "b"],
        default_value="b",
        sequence_length=3,
        default_bucketize_value=0,
    )
    assert lines(feature, {"x": "q;;b;a"}) == [
        "f  (sequence of id_feature, vocab_list)",
        '  user:x   "q;;b;a"  → q ; (missing) ; b',
        '  default              "b"',
        "  id                   0 ; 1 ; 1  (1 unknown)",
    ]
    assert lines(feature, {"x": None})[1:] == [
        "  user:x   null  → (no steps)",
        '  default          "b"',
        "  id               1",
    ]


def test_what_is_hashed_is_shown_with_its_prefix():
    feature = entry("match_feature", user="user:m", category="item:p", item="item:s",
                    needDiscrete=True, value_type="string", hash_bucket_size=100)  # fmt: skip
    feature["feature_name"] = "match_feat"
    found = lines(feature, {"m": "p^s:1", "p": "p", "s": "s"})
    assert found[-2].split() == ["hashed", "match_feat_1"]
    assert found[-1].split() == ["id", "71"]


def test_a_number():
    feature = entry(
        "raw_feature", expression="user:x", normalizer="method=log10,threshold=0.05,default=-5"
    )
    assert lines(feature, {"x": "10"}) == [
        "f  (raw_feature)",
        '  user:x  "10"  → 10.0',
        "  result          1.0",
        "  number          1.0",
    ]


def test_columns_of_values_before_ids():
    handler = FgHandler(
        {"features": [entry("id_feature", expression="user:x", num_buckets=9)]},
        bucketize_only=True,
    )
    found = explain(handler, {"f": pa.array([["3", "12"]])})
    assert found[-1].endswith("3 | 0  (1 unknown)")


def test_long_values_are_cut():
    text = show(Ragged(Text.of(["x" * 200]), pa.array([1]).to_numpy().astype("int32")))
    assert len(text) == 60
    assert text.endswith("…")
    many = show(Ragged(Text.of(["y"] * 50), pa.array([50]).to_numpy().astype("int32")))
    assert many.endswith("… 50 values")
