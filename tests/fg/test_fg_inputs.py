"""Layouts of Arrow, hostile text, lengths of columns, threads, ``fg.json``; on both back ends."""

import json
import pickle
import random

import numpy as np
import pyarrow as pa
import pytest
from fg_layouts import chunked, sliced
from fg_property import WORDS, make
from hypothesis import given, settings
from hypothesis import strategies as st

from tzrec.errors import ConfigError, DataError, FeatureError
from tzrec.fg import FgHandler
from tzrec.fg.hashing import murmur_hash64a
from tzrec.fg.kernels import use_backend
from tzrec.protos.feature_pb2 import FeatureConfig, IdFeature

GS = "\x1d"
ID = {
    "feature_type": "id_feature",
    "feature_name": "f",
    "expression": "user:c",
    "hash_bucket_size": 1000,
    "default_value": "none",
}
SEQUENCE = {**ID, "feature_type": "sequence_id_feature", "sequence_delim": ";", "value_dim": 0}
RAW = {"feature_type": "raw_feature", "feature_name": "f", "expression": "user:c"}


@pytest.fixture(params=["numba", "numpy"], autouse=True)
def backend(request):
    use_backend(request.param)
    yield
    use_backend(None)


def run(entry, column):
    return FgHandler({"features": [entry]}).process_arrow({"c": column})["f"]


def equal(a, b):
    for key in ("values", "lengths", "key_lengths", "weights"):
        left, right = getattr(a, key), getattr(b, key)
        assert (left is None) == (right is None), key
        if left is not None:
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)


# Layouts

TEXTS = ["a", None, f"b{GS}cc", "", "a", "中文" * 9]
LISTS = [["a", None, "b"], None, [], ["", "cc"]]
NUMBERS = [1, None, 3, 100]


@pytest.mark.parametrize(
    "kind",
    [
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.int32(), pa.large_string()),
    ],
    ids=str,
)
@pytest.mark.parametrize("entry", [ID, SEQUENCE])
def test_layouts_of_text(entry, kind):
    expected = run(entry, pa.array(TEXTS))
    column = make(TEXTS, kind)
    equal(run(entry, column), expected)
    equal(run(entry, sliced(column, 2, 1, None)), expected)
    equal(run(entry, chunked(column, [1, 0, 2])), expected)


@pytest.mark.parametrize(
    "kind",
    [
        pa.large_list(pa.string()),
        pa.list_(pa.large_string()),
        pa.list_view(pa.string()),
        pa.large_list_view(pa.large_string()),
        pa.list_(pa.string_view()),
    ],
    ids=str,
)
@pytest.mark.parametrize("entry", [ID, SEQUENCE])
def test_layouts_of_lists(entry, kind):
    expected = run(entry, pa.array(LISTS))
    column = pa.array(LISTS, kind)
    equal(run(entry, column), expected)
    equal(run(entry, sliced(column, 1, 2, ["zz"])), expected)


def test_lists_of_dictionaries_and_of_a_fixed_size():
    words = pa.array(["a", "b", "a", "c"]).dictionary_encode()
    column = pa.ListArray.from_arrays([0, 1, 4], words)
    equal(run(ID, column), run(ID, pa.array([["a"], ["b", "a", "c"]])))
    rows = [["a", "b"], None, ["c", "d"]]
    fixed = pa.array(rows, pa.list_(pa.string(), 2))
    equal(run(ID, fixed), run(ID, pa.array(rows)))
    equal(run(SEQUENCE, fixed.slice(1)), run(SEQUENCE, pa.array(rows[1:])))


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.int8(), pa.int16(), pa.int32(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
        *(pa.float16(), pa.float32(), pa.float64(), pa.dictionary(pa.int8(), pa.int64())),
    ],
    ids=str,
)
def test_types_of_numbers(kind):
    column = make(NUMBERS, kind)
    assert run(RAW, column).values.ravel().tolist() == [1, 0, 3, 100]
    texts = ["1", None, "3", "100"]
    equal(run(ID, column), run(ID, pa.array(texts)))
    equal(run(ID, sliced(column, 1, 1, None)), run(ID, pa.array(texts)))


def test_maps_of_any_layout():
    entry = {
        "feature_type": "lookup_feature",
        "feature_name": "f",
        "map": "user:m",
        "key": "user:c",
        "combiner": "sum",
        "default_value": "-1",
    }
    rows = [[("a", 1.0)], None, [("b", 2.0), ("a", 3.0)], []]
    key = pa.array(["a", "a", "a", "a"])
    for kinds in [("string", "float"), ("large_string", "double"), ("string", "int32")]:
        table = pa.array(rows, pa.map_(*map(pa.type_for_alias, kinds)))
        for column in (table, sliced(table, 2, 1, None), chunked(table, [1, 2])):
            found = FgHandler({"features": [entry]}).process_arrow({"m": column, "c": key})["f"]
            assert found.values.ravel().tolist() == [1, -1, 3, -1]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([b"a"], pa.binary(1)),
        pa.array([{"a": 1}]),
        pa.array([1], pa.timestamp("s")),
        pa.array([[{"a": 1}]]),
    ],
    ids=["bytes", "struct", "time", "list of structs"],
)
def test_types_that_cannot_be_read(column):
    with pytest.raises(FeatureError, match=r"feature f of c: column 'c' cannot be read: .*type"):
        run(ID, column)


# Hostile text


def raw_text(*texts):
    return pa.array(list(texts), pa.binary()).view(pa.string())


def of(*texts):
    return [murmur_hash64a(text) % 1000 for text in texts]


def test_bytes_that_are_no_utf8_hash_as_they_are():
    texts = (b"\xff\xfe", b"a\x00b", b"\xed\xa0\x80", "😀".encode(), b"\x00", b"\xc3")
    assert run(ID, raw_text(*texts)).values.tolist() == of(*texts)


def test_long_tokens():
    long = b"x" * (1 << 20)
    column = raw_text(b"a", long, long + b"\x1d" + long[1:], b"")
    found = run(ID, column)
    assert found.values.tolist() == of(b"a", long, long, long[1:], b"none")
    assert found.lengths.tolist() == [1, 1, 2, 1]


def test_very_many_separators():
    found = run(ID, raw_text(b"\x1d" * 10**6, b"a" + b"\x1d" * 10**6 + b"b"))
    assert found.values.tolist() == of(b"none", b"a", b"b")
    steps = run(SEQUENCE, raw_text(b";" * 10**5))
    assert steps.lengths.tolist() == [10**5 + 1]
    assert set(steps.values.tolist()) == set(of(b"none"))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=20))
def test_ids_are_rows_of_the_table(texts):
    """Every bucketizer, any bytes: 0 <= id < rows."""
    column = raw_text(*texts)
    for options, size in [
        ({"hash_bucket_size": 3}, 3),
        ({"hash_bucket_size": 2**63 - 1}, 2**63 - 1),
        ({"vocab_list": ["a", "\x00", ""], "default_bucketize_value": 1}, 3),
        ({"vocab_dict": {"a": 5}, "default_bucketize_value": 0}, 6),
    ]:
        entry = {**ID, "hash_bucket_size": None, **options}
        for kind in ("id_feature", "sequence_id_feature"):
            values = run({**entry, "feature_type": kind}, column).values
            assert ((values >= 0) & (values < size)).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats()), max_size=10))
def test_numbers_become_rows_of_the_table(values):
    column = pa.array(values, pa.float64())
    for options, size in [
        ({"boundaries": [-1.0, 0.0, 7.0]}, 4),
        ({"feature_type": "combine_feature", "combiner": "sum", "num_buckets": 5}, 5),
    ]:
        found = run({**RAW, **options}, column).values
        assert ((found >= 0) & (found < size)).all()
    ids = run({**ID, "hash_bucket_size": None, "num_buckets": 5, "default_value": ""}, column)
    assert ((ids.values >= 0) & (ids.values < 5)).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=10))
def test_integers_become_rows_of_the_table(values):
    entry = {**ID, "hash_bucket_size": None, "num_buckets": 5, "default_value": ""}
    found = run(entry, pa.array(values, pa.int64())).values
    assert found.tolist() == [value if 0 <= value < 5 else 0 for value in values]


# Lengths of columns

COMBO = {
    "feature_type": "combo_feature",
    "feature_name": "f",
    "expression": ["user:a", "item:b", "const:k"],
    "hash_bucket_size": 1000,
}


def test_columns_of_other_lengths():
    handler = FgHandler({"features": [COMBO]})
    with pytest.raises(FeatureError, match=r"input '[ab]' has [23] rows, another .* [23]"):
        handler.process_arrow({"a": pa.array(["x"] * 2), "b": pa.array(["y"] * 3)})
    found = handler.process_arrow({"a": pa.array(["x"]), "b": pa.array(["y", "z"])})["f"]
    assert found.values.tolist() == of(b"x_y_k", b"x_z_k")


def test_features_may_have_rows_of_their_own():
    """With sampled negatives the columns of items are longer than those of users."""
    other = {**ID, "feature_name": "g", "expression": "item:d"}
    handler = FgHandler({"features": [ID, other]})
    found = handler.process_arrow({"c": pa.array(["x"]), "d": pa.array(["y", "z"])})
    assert [len(found[name].lengths) for name in "fg"] == [1, 2]


def test_missing_column():
    with pytest.raises(DataError, match=r"feature f of a, b: column 'a' is missing.*'aa'"):
        FgHandler({"features": [COMBO]}).process_arrow({"aa": pa.array([1]), "b": pa.array([1])})


def test_no_columns_are_changed():
    column = pa.array(["a;b", None, "c"])
    before = column.to_pylist()
    found = run(SEQUENCE, column)
    found.values[:] = 0
    found.lengths[:] = 0
    found.key_lengths[:] = 0
    assert column.to_pylist() == before
    assert run(SEQUENCE, column).lengths.tolist() == [2, 1, 1]


# Threads, fg.json


def many_features():
    sequence = {
        "sequence_name": "s",
        "sequence_delim": ";",
        "sequence_length": 3,
        "features": [
            {"feature_type": "id_feature", "feature_name": "i", "expression": "item:i"}
            | {"hash_bucket_size": 97, "default_value": "0"},
            {"feature_type": "raw_feature", "feature_name": "p", "expression": "item:p"}
            | {"default_value": "0", "normalizer": "method=log10,threshold=0.5,default=-1"},
        ],
    }
    lookup = {
        "feature_type": "lookup_feature",
        "feature_name": "l",
        "map": "user:m",
        "key": "feature:x",
        "combiner": "max",
        "default_value": "0",
    }
    stub = {
        "feature_type": "id_feature",
        "feature_name": "x",
        "expression": "user:c",
        "stub_type": True,
    }
    plain = [
        {**ID, "feature_name": f"f{i}", "hash_bucket_size": 10 + i, "value_dim": i % 3}
        for i in range(6)
    ]
    return {"features": [lookup, *plain, sequence, stub]}


def many_columns(rows, seed):
    rng = random.Random(seed)

    def some(make_one):
        return [None if rng.random() < 0.2 else make_one() for _ in range(rows)]

    def words(separator):
        valid = [word for word in WORDS if "\udcff" not in word]
        return lambda: separator.join(rng.choices(valid, k=rng.randrange(4)))

    return {
        "c": pa.array(some(words(GS)), pa.string()),
        "m": pa.array(some(lambda: f"a:{rng.random()}{GS}b:2"), pa.string()),
        "s__i": pa.array(some(words(";")), pa.string()),
        "s__p": pa.array(some(lambda: [rng.random() for _ in range(5)]), pa.list_(pa.float32())),
    }


@pytest.mark.parametrize("rows", [0, 1, 50])
def test_threads_do_not_change_results(rows):
    one, four = (FgHandler(many_features(), threads=n) for n in (1, 4))
    for seed in range(3):
        columns = many_columns(rows, seed)
        left, right = one.process_arrow(columns), four.process_arrow(columns)
        assert list(left) == list(right)
        for name, found in left.items():
            equal(found, right[name])


def test_errors_of_threads_are_those_of_one():
    entry = {**ID, "hash_bucket_size": None, "num_buckets": 5, "default_value": ""}
    for threads in (1, 4):
        handler = FgHandler({"features": [entry, {**RAW, "feature_name": "g"}]}, threads=threads)
        with pytest.raises(FeatureError, match=r"feature f of c: .*row 1 .*'x'"):
            handler.process_arrow({"c": pa.array(["1", "x"])})


def test_fg_json_survives_json():
    handler = FgHandler(many_features())
    again = FgHandler(json.loads(json.dumps(many_features())))
    columns = many_columns(20, 1)
    for name, found in handler.process_arrow(columns).items():
        equal(found, again.process_arrow(columns)[name])


def test_feature_configs_give_what_their_fg_json_gives():
    message = IdFeature(feature_name="f", expression="user:c", hash_bucket_size=1000)
    handler = FgHandler([FeatureConfig(id_feature=message)])
    column = pa.array(["a", None, f"b{GS}c"])
    found = handler.process_arrow({"c": column})["f"]
    equal(found, run({**ID, "default_value": ""}, column))
    with pytest.raises(ConfigError, match="must be an object"):
        FgHandler('{"features": []}')


def test_batches_do_not_touch_each_other():
    handler = FgHandler(many_features())
    columns = [many_columns(rows, rows) for rows in (7, 0, 20)]
    results = [handler.process_arrow(c) for c in columns]
    for own, c in zip(results, columns, strict=True):
        for name, found in FgHandler(many_features()).process_arrow(c).items():
            equal(own[name], found)


def test_results_can_be_sent_to_other_processes():
    found = FgHandler(many_features()).process_arrow(many_columns(5, 1))
    for name, copy in pickle.loads(pickle.dumps(found)).items():
        equal(copy, found[name])


@pytest.mark.parametrize("numbers", [[1, None, 30], [[1, 2], [], [30]]])
def test_numbers_that_nothing_buckets_are_text(numbers):
    entry = {
        "feature_type": "id_feature",
        "feature_name": "a",
        "expression": "user:a",
        "sequence_length": 5,
        "sequence_delim": ";",
    }
    found = FgHandler({"features": [entry]}).process_arrow({"a": pa.array(numbers)})["a"].values
    flat = [n for cell in numbers for n in (cell or [0] if isinstance(cell, list) else [cell or 0])]
    shown = [found.show(i) for i in range(len(found.starts))]
    assert shown == [str(n) for n in flat]
