"""Rules of hashes, tokens, numbers, ids and weights on literal cases, on both back ends."""

import numpy as np
import pyarrow as pa
import pytest
from fg_rules import GS, NUMBER_MAP, STRING_MAP, check, h, ids, raw, run

from tzrec.fg.hashing import farm_fingerprint64
from tzrec.fg.kernels import use_backend


@pytest.fixture(params=["numba", "numpy"], autouse=True)
def backend(request):
    use_backend(request.param)
    yield
    use_backend(None)


# Hashes (§1)


def test_known_hashes():
    assert h("match_feat_1", "z") == [71, 54]
    assert [farm_fingerprint64(t) % 100 for t in (b"1", b"2", b"3")] == [49, 59, 21]


def test_hash_is_of_the_bare_text():
    check(ids(["abc", "é😀"]), h("abc", "é😀"), [1, 1])


def test_integers_hash_as_decimal_text():
    check(ids(pa.array([12, -3], pa.int32())), h("12", "-3"), [1, 1])
    check(ids(pa.array([[1, 2], []], pa.list_(pa.int64()))), h("1", "2"), [2, 0])


def test_unsigned_integers_beyond_63_bits_hash_as_decimal_text():
    check(ids(pa.array([2**64 - 1, None, 5], pa.uint64())), h(str(2**64 - 1), "5"), [1, 0, 1])


def test_floats_hash_as_shortest_text():
    check(ids([5.2, 5.0, 1e-7]), h("5.2", "5", "1e-07"), [1, 1, 1])
    check(ids(pa.array([0.1], pa.float32())), h("0.1"), [1])


def test_farm_hash():
    entry = {"feature_type": "id_feature", "expression": "user:c", "hash_bucket_size": 100}
    check(run(entry, {"c": ["1", "2", "3"]}, farm_hash=True), [49, 59, 21], [1, 1, 1])


def test_largest_table_gives_63_bits():
    found = ids(["a", "b"], hash_bucket_size=2**63 - 1)
    assert found.values.tolist() == h("a", "b", buckets=2**63 - 1)


def test_prefix_is_hashed_before_values_not_before_the_default():
    check(ids(["1", None], need_prefix=True, default_value="1"), h("f_1", "1"), [1, 1])


# Tokens (§4), defaults (§5)


def test_text_is_split_at_both_separators():
    check(ids([f"a{GS}b|c"], separator="|"), h("a", "b", "c"), [3])
    check(ids([f"a{GS}b|c"]), h("a", "b|c"), [2])


def test_empty_tokens_are_dropped():
    check(ids([f"a{GS}{GS}b", GS, f"{GS}c{GS}"]), h("a", "b", "c"), [2, 0, 1])


def test_elements_of_a_list_are_not_split():
    check(ids([[f"a{GS}b", "c", ""], []]), h(f"a{GS}b", "c"), [2, 0])


@pytest.mark.parametrize("missing", [None, "", GS])
def test_default_of_ids(missing):
    check(ids(["a", missing]), h("a"), [1, 0])
    check(ids(["a", missing], default_value="xyz"), h("a", "xyz"), [1, 1])


def test_default_is_one_token():
    check(ids([None], default_value=f"p{GS}q"), h(f"p{GS}q"), [1])
    check(ids([None], default_value="p|q", separator="|"), h("p|q"), [1])


def test_value_dim_keeps_the_first():
    check(ids([f"a{GS}b{GS}c", "d"], value_dim=2), h("a", "b", "d"), [2, 1])


def test_all_null_and_untyped_columns():
    check(ids(pa.nulls(2), default_value="x"), h("x", "x"), [1, 1])
    check(ids(pa.array([None, None], pa.string())), [], [0, 0])
    check(ids(pa.array([None, []], pa.list_(pa.null())), default_value="x"), h("x", "x"), [1, 1])
    check(raw(pa.nulls(2)), [0, 0])


def test_empty_batch():
    check(ids(pa.array([], pa.string())), [], [])
    check(raw(pa.array([], pa.float32())), [])


# Numbers


def test_raw_reads_text_numbers_and_lists():
    check(raw(["1.5", " -2e1 ", "+3"]), [1.5, -20, 3])
    check(raw([1, None, 3]), [1, 0, 3])
    check(raw([[1.5], None]), [1.5, 0])
    check(raw([True, False]), [1, 0])


def test_large_integers_lose_digits_as_float32():
    check(raw([25304793]), [25304792])


def test_value_dim_of_numbers():
    check(raw(["1|2", None], value_dim=2, separator="|", default_value="7"), [1, 2, 7, 7])
    check(raw([None], value_dim=2, separator="|", default_value="3|4"), [3, 4])
    check(raw([[1, 2]], value_dim=2), [1, 2])


def test_value_dimension_is_another_name():
    check(raw([[1, 2]], value_dimension=2), [1, 2])


def test_boundaries_equal_goes_right():
    check(raw([0.5, 1.0, 2.0, 9.0], boundaries=[1.0, 2.0]), [0, 1, 2, 2], [1, 1, 1, 1])


def test_boundaries_are_float32():
    below = float(np.nextafter(np.float32(0.1), np.float32(0)))
    check(raw([0.1, below], boundaries=[0.1]), [1, 0], [1, 1])


def test_nan_falls_behind_all_boundaries():
    check(raw([float("nan")], boundaries=[1.0, 2.0]), [2], [1])


def test_boundaries_of_vectors():
    check(raw([[0, 5]], value_dim=2, boundaries=[1.0]), [0, 1], [2])


@pytest.mark.parametrize(
    ("column", "values"), [([1.5, None], [1, 0]), (["1.5", None], [1]), ([[1.5], None], [1])]
)
def test_empty_default_before_boundaries(column, values):
    """A null number is 0; in text and lists there is no value."""
    found = raw(column, boundaries=[1.0], normalizer="method=minmax,min=0,max=1")
    check(found, values, [1, len(values) - 1])


@pytest.mark.parametrize(
    ("normalizer", "values"),
    [
        ("method=log10,threshold=10,default=-5", [-5, -5, 2]),
        ("method=log10", [0, 1, 2]),
        ("method=zscore,mean=10,standard_deviation=45", [-0.2, 0, 2]),
        ("method=minmax,min=1,max=10", [0, 1, 11]),
        ("method=expression,expr=min(x, 2) + 1", [2, 3, 3]),
    ],
)
def test_normalizers(normalizer, values):
    column = [1.0, 10.0, 100.0]
    check(raw(column, normalizer=normalizer), values)
    check(raw(["1", "10", "100"], normalizer=normalizer), values)


def test_default_is_not_normalised_but_bucketised():
    options = {"normalizer": "method=log10", "default_value": "100"}
    check(raw(["1000", None], **options), [3, 100])
    check(raw(["1000", None], boundaries=[5.0, 50.0], **options), [0, 2], [1, 1])


# Bucketizers (§6)


def test_num_buckets():
    column = ["0", "4", "5", "-1", "+3", "003", str(2**70)]
    check(ids(column, hash_bucket_size=None, num_buckets=5), [0, 4, 0, 0, 3, 3, 0], [1] * 7)
    check(ids([0, 4, 5, -1], hash_bucket_size=None, num_buckets=5), [0, 4, 0, 0], [1] * 4)


def test_vocab_list_last_of_equal_words_wins():
    words = {"vocab_list": ["z", "<OOV>", "a", "b", "a"], "default_bucketize_value": 1}
    found = ids(["a", "b", "q", None], hash_bucket_size=None, default_value="z", **words)
    check(found, [4, 3, 1, 0], [1] * 4)


def test_vocab_dict_unknown_words_are_1():
    found = ids(["a", "q", None], hash_bucket_size=None, vocab_dict={"a": 7})
    check(found, [7, 1], [1, 1, 0])


def test_vocab_of_integers():
    check(ids([3, 4], hash_bucket_size=None, vocab_dict={"3": 2}), [2, 1], [1, 1])


@pytest.mark.parametrize(
    ("text", "words", "values"),
    [
        ("a\nb\nc\n", ["a", "c", "q"], [0, 2, 5]),
        ("a 7\nb\t8\n", ["a", "b", "q"], [7, 8, 5]),
    ],
)
def test_vocab_file(tmp_path, text, words, values):
    path = tmp_path / "words.txt"
    path.write_text(text)
    options = {"vocab_file": str(path), "default_bucketize_value": 5}
    check(ids(words, hash_bucket_size=None, **options), values, [1] * len(words))


# Weighted ids (§8)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([f"a:0.5{GS}b:2", None]),
        pa.array([["a:0.5", "b:2"], []]),
        pa.array([[("a", 0.5), ("b", 2.0)], None], NUMBER_MAP),
        pa.array([[("a", "0.5"), ("b", "2")], []], STRING_MAP),
    ],
    ids=["text", "list", "map", "text map"],
)
def test_weighted_ids(column):
    found = ids(column, weighted=True, default_value="x")
    check(found, h("a", "b", "x"), [2, 1])
    assert found.weights.tolist() == [0.5, 2.0, 1.0]
    assert found.weights.dtype == np.float32
