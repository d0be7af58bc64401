"""`FgHandler` against the reference on random columns: features of one column."""

from fg_property import (
    BUCKETIZERS,
    DEFAULTS,
    NUMBER,
    SEEDS,
    SEPARATORS,
    SIZES,
    WORD,
    backends,
    check,
    columns_of,
    floats32,
    maps,
    nested_lists,
    number_lists,
    numbers,
    quick,
    shaped,
    single_texts,
    text_lists,
    texts,
)
from fg_reference import is_sequence
from hypothesis import given
from hypothesis import strategies as st


@backends
@quick
@given(st.data())
def test_id(backend, data):
    draw, size = data.draw, data.draw(SIZES)
    entry = {
        "feature_type": "id_feature",
        "feature_name": "f",
        "expression": "user:c",
        "default_value": draw(DEFAULTS),
        "separator": draw(SEPARATORS),
        "need_prefix": draw(st.booleans()),
        **draw(BUCKETIZERS),
    }
    entry, group = shaped(draw, entry)
    if draw(st.booleans()):
        entry["value_dim"] = draw(st.integers(0, 2))
    values = draw(columns_of(size, sequence=is_sequence(entry)))
    farm = draw(st.booleans())
    check(entry, {"c": values}, backend, draw(SEEDS), farm=farm, group=group)


@backends
@quick
@given(st.data())
def test_id_with_num_buckets(backend, data):
    draw, size = data.draw, data.draw(SIZES)
    entry = {
        "feature_type": "id_feature",
        "feature_name": "f",
        "expression": "item:c",
        "default_value": draw(st.sampled_from(["", "0", "3", "99"])),
        "num_buckets": draw(st.sampled_from([1, 4, 100])),
    }
    entry, group = shaped(draw, entry)
    words = st.sampled_from(["0", "3", "007", "+2", "-1", "99", str(2**70), " 5 "])
    words = st.one_of(words, st.just("abc")) if draw(st.integers(0, 3)) == 0 else words
    values = draw(columns_of(size, sequence=is_sequence(entry), words=words))
    check(entry, {"c": values}, backend, draw(SEEDS), group=group)


@backends
@quick
@given(st.data())
def test_weighted_id(backend, data):
    draw, size = data.draw, data.draw(SIZES)
    entry = {
        "feature_type": "id_feature",
        "feature_name": "f",
        "expression": "user:c",
        "weighted": True,
        "default_value": draw(DEFAULTS),
        **draw(BUCKETIZERS),
    }
    pair = st.tuples(st.sampled_from(["a", "b", "é", "1"]), NUMBER).map(":".join)
    values = draw(
        st.one_of(
            texts(size, pair, ("\x1d",)),
            text_lists(size, pair),
            maps(size, WORD, floats32(), ("text", "float")),
            maps(size, st.integers(-5, 5), NUMBER, ("int", "text")),
        )
    )
    check(entry, {"c": values}, backend, draw(SEEDS))


@backends
@quick
@given(st.data())
def test_raw(backend, data):
    draw, size = data.draw, data.draw(SIZES)
    dim = draw(st.sampled_from([1, 1, 2]))
    entry = {
        "feature_type": "raw_feature",
        "feature_name": "f",
        "expression": "item:c",
        "default_value": draw(st.sampled_from(["", "0", "2.5", "-1"])),
        "separator": "|",
        "value_dim": dim,
    }
    normalizer = draw(
        st.sampled_from(
            [
                "",
                "method=log10,threshold=0.05,default=-5",
                "method=log10",
                "method=zscore,mean=1,standard_deviation=2",
                "method=minmax,min=-1,max=3",
            ]
        )
    )
    if normalizer:
        entry["normalizer"] = normalizer
    elif draw(st.booleans()):
        entry["boundaries"] = [0.0, 1.0, 2.5, 100.0]
    entry, group = shaped(draw, entry)
    sequence = is_sequence(entry)
    cell = st.lists(NUMBER, min_size=dim, max_size=dim)
    joined = cell.map("|".join)
    kinds = [
        texts(size, joined, (";",)) if sequence else single_texts(size, joined),
        number_lists(size, draw(st.sampled_from(["int", "float", "double"]))),
        *(numbers(size, family) for family in ("int", "float", "double", "bool")),
    ]
    check(entry, {"c": draw(st.one_of(kinds))}, backend, draw(SEEDS), group=group)


@backends
@quick
@given(st.data())
def test_combine(backend, data):
    draw, size = data.draw, data.draw(SIZES)
    combiners = ["sum", "mean", "avg", "min", "max", "count", "gap_min", "gap_max"]
    entry = {
        "feature_type": "combine_feature",
        "feature_name": "f",
        "expression": "user:c",
        "default_value": draw(st.sampled_from(["", "0", "2"])),
        "combiner": draw(st.sampled_from(combiners)),
        "separator": draw(SEPARATORS),
        "value_dim": 1,
        **draw(st.sampled_from([{}, {"num_buckets": 4}, {"boundaries": [0.5, 2.0]}])),
    }
    entry, group = shaped(draw, entry)
    if draw(st.booleans()):
        entry["value_map"] = {"a": 1.5, "b": -2.0, "1": 4}
        words = st.sampled_from(["a", "b", "1", "zz"])
    else:
        words = st.sampled_from(["0", "1", "2.5", "-3", "1e2", "003"])
    separators = ("\x1d", entry["separator"])
    kinds = [texts(size, words, separators), text_lists(size, words), number_lists(size, "int")]
    kinds += [numbers(size, "int"), number_lists(size, "float")]
    if is_sequence(entry):
        kinds += [texts(size, words, (";", "\x1d")), nested_lists(size, words)]
    values = draw(st.one_of(kinds))
    check(entry, {"c": values}, backend, draw(SEEDS), group=group)


@backends
@quick
@given(st.data())
def test_regex_replace(backend, data):
    draw, size = data.draw, data.draw(SIZES)
    entry = {
        "feature_type": "regex_replace_feature",
        "feature_name": "f",
        "expression": "user:c",
        "default_value": draw(DEFAULTS),
        "regex_pattern": draw(st.sampled_from(["a", ["a", "b"], "[a-c]+", "x(.)"])),
        "replacement": draw(st.sampled_from(["", "Z", "\\0"])).replace("\\0", "<>"),
        "replace_all": draw(st.booleans()),
        "icase": draw(st.booleans()),
        "value_dim": draw(st.integers(0, 2)),
        **draw(BUCKETIZERS),
    }
    entry, group = shaped(draw, entry)
    words = st.text(alphabet="abABxyé😀", max_size=5)
    separators = ("\x1d", ";") if is_sequence(entry) else ("\x1d",)
    found = draw(st.one_of(texts(size, words, separators), text_lists(size, words)))
    check(entry, {"c": found}, backend, draw(SEEDS), group=group)
