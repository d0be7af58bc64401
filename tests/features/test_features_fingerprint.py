"""Fingerprints of bucketisers: equal if, and only if, every value gets the same id."""

import pytest
from test_features_bucketizer import of, of_boundaries

from tzrec.features.bucketizer import create_bucketizer
from tzrec.features.feature import FgMode, create_features
from tzrec.protos.feature_pb2 import FeatureConfig, IdFeature, TokenizeFeature

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


def test_the_hash_counts():
    message = IdFeature(feature_name="a", expression="user:a", embedding_dim=4, hash_bucket_size=7)
    farm = create_bucketizer(message, farm_hash=True)
    assert farm.identity["hash"] == "farm_fingerprint64"
    assert farm.fingerprint != of(hash_bucket_size=7).fingerprint
    # Ids that are in the columns already do not depend on it, nor do those of other kinds.
    config = FeatureConfig(id_feature=message)
    encoded, generated = (
        create_features([config], mode, farm_hash=True)[0].bucketizer
        for mode in (FgMode.FG_NONE, FgMode.FG_DAG)
    )
    assert encoded.fingerprint == of(hash_bucket_size=7).fingerprint
    assert generated.fingerprint == farm.fingerprint
    message = IdFeature(feature_name="a", embedding_dim=4, num_buckets=7)
    assert create_bucketizer(message, farm_hash=True).fingerprint == of(num_buckets=7).fingerprint


def test_a_tokenizer_is_its_words_and_its_file(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")

    def tokens(name, words, lower=False):
        model = tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="a")
        tokenizer = tokenizers.Tokenizer(model)
        if lower:
            tokenizer.normalizer = tokenizers.normalizers.Lowercase()
        path = str(tmp_path / name)
        tokenizer.save(path)
        message = TokenizeFeature(
            feature_name="t", expression="item:t", embedding_dim=4, vocab_file=path
        )
        return create_features([FeatureConfig(tokenize_feature=message)])[0].bucketizer

    one, same = tokens("one", WORDS), tokens("same", WORDS)
    assert one.rows == 3
    assert one.vocabulary == {"a": 0, "b": 1, "c": 2}
    assert one.identity["words"] == 3
    assert one.fingerprint == same.fingerprint
    assert tokens("more", [*WORDS, "d"]).fingerprint != one.fingerprint
    # The same words, but texts are cut in another way.
    lower = tokens("lower", WORDS, lower=True)
    assert lower.vocabulary == one.vocabulary
    assert lower.fingerprint != one.fingerprint
