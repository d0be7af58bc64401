"""Fingerprints of bucketisers: equal if, and only if, every value gets the same id."""

import pytest
from test_features_bucketizer import of, of_boundaries

WORDS = ["a", "b", "c"]


def test_equal_configs_have_equal_fingerprints():
    assert of(vocab_list=WORDS).fingerprint == of(vocab_list=WORDS).fingerprint
    assert of(num_buckets=5).fingerprint == of(num_buckets=5).fingerprint
    one, other = {"a": 2, "b": 3, "x": 4}, {"x": 4, "b": 3, "a": 2}
    assert of(vocab_dict=one).fingerprint == of(vocab_dict=other).fingerprint


@pytest.mark.parametrize(
    "changed",
    [
        {"vocab_list": ["a", "b"]},
        {"vocab_list": ["a", "c", "b"]},
        {"vocab_list": ["ab", "c", ""]},
        {"vocab_list": WORDS, "default_value": "x"},
        {"vocab_list": WORDS, "default_bucketize_value": 0},
        {"vocab_list": WORDS, "num_buckets": 9},
        {"num_buckets": 5},
        {"hash_bucket_size": 5},
    ],
)
def test_another_config_has_another_fingerprint(changed):
    assert of(**changed).fingerprint != of(vocab_list=WORDS).fingerprint


def test_sizes_and_boundaries_count():
    assert of(hash_bucket_size=5).fingerprint != of(hash_bucket_size=6).fingerprint
    assert of(hash_bucket_size=5).fingerprint != of(num_buckets=5).fingerprint
    assert of_boundaries(1.0, 2.0).fingerprint != of_boundaries(1.0, 2.5).fingerprint
    # Values are compared as float32, so these are the same edges.
    assert of_boundaries(0.1).fingerprint == of_boundaries(0.1 + 1e-12).fingerprint


def test_the_words_of_a_file_count_not_its_name(tmp_path):
    for name, text in (("one", "a\nb\n"), ("same", "a\nb\n"), ("pairs", "b 1\na 0\n")):
        (tmp_path / name).write_text(text)
    prints = {
        name: of(vocab_file=str(tmp_path / name), default_bucketize_value=0).fingerprint
        for name in ("one", "same", "pairs")
    }
    assert len(set(prints.values())) == 1


def test_identity_says_what_a_person_asks_for():
    facts = of(vocab_list=WORDS).identity
    assert facts == {"kind": "vocab_list", "rows": 5, "oov_id": 1, "default_id": 0, "words": 3}
    assert of(hash_bucket_size=7).identity["hash"] == "murmur_hash64a"
    assert of_boundaries(1.0, 2.0).identity["boundaries"] == [1.0, 2.0]
