"""Parsing through features: defaults, separators, masks, missing columns."""

import numpy as np
import pyarrow as pa
import pytest
from features_helpers import config, feature, id_feature, raw_feature

from tzrec.errors import ConfigError, DataError, FeatureError
from tzrec.features.feature import FgMode, create_features
from tzrec.features.mask import SAMPLE_MASK, hide_masked_rows

SEQUENCE = (
    'sequence_feature {{ sequence_name: "s" sequence_length: 2 sequence_delim: "|" '
    "features {{ {} }} }}"
)
SUB_ID = (
    'id_feature { feature_name: "cat" expression: "item:cat" embedding_dim: 4 num_buckets: 10 %s }'
)
SUB_RAW = 'raw_feature { feature_name: "p" expression: "item:p" %s }'


def ids(parsed):
    return parsed.values.tolist(), parsed.lengths.tolist()


def test_kinds():
    assert ids(id_feature().parse({"cat": pa.array(["1\x032", None])})) == ([1, 2], [2, 0])
    weighted = id_feature("weighted: true").parse({"cat": pa.array(["1:2"])})
    assert weighted.weights.tolist() == [2]
    raw = raw_feature("value_dim: 2").parse({"price": pa.array(["1\x032"])})
    assert raw.values.tolist() == [[1, 2]]
    assert raw.lengths is None
    buckets = raw_feature("boundaries: [1, 2] embedding_dim: 4").parse(
        {"price": pa.array(["1", None])}
    )
    assert ids(buckets) == ([1], [1, 0])


def test_grouped_sequences_read_their_own_column_and_delimiter():
    # All steps are kept in FG_NONE, whatever sequence_length says.
    made = feature(SEQUENCE.format(SUB_ID % "value_dim: 0"))
    parsed = made.parse({"s__cat": pa.array(["1|2\x033|4", ""])})
    assert ids(parsed) == ([1, 2, 3, 4], [3, 0])
    assert parsed.key_lengths.tolist() == [1, 2, 1]
    made = feature(SEQUENCE.format(SUB_RAW % "value_dim: 2"))
    parsed = made.parse({"s__p": pa.array(["1\x032|3\x034", None])})
    assert parsed.values.tolist() == [[1, 2], [3, 4]]
    assert parsed.lengths.tolist() == [2, 0]


def test_sequence_of_buckets():
    made = feature(SEQUENCE.format(SUB_RAW % "boundaries: [1, 2] embedding_dim: 4"))
    assert ids(made.parse({"s__p": pa.array([[0, 2], []])})) == ([0, 2], [2, 0])


def test_separator():
    text = (
        'id_feature { feature_name: "cat" embedding_dim: 4 num_buckets: 10 expression: "item:cat"'
    )
    made = feature(text + ' fg_encoded_default_value: "3,4" }', fg_encoded_multival_sep=",")
    assert ids(made.parse({"cat": pa.array(["1,2", ""])})) == ([1, 2, 3, 4], [2, 2])


@pytest.mark.parametrize(
    ("made", "column", "expected"),
    [
        (id_feature('fg_encoded_default_value: "0"'), pa.array([None, 2]), [0, 2]),
        (id_feature('fg_encoded_default_value: "3\\0034"'), pa.array([None, 2]), [3, 4, 2]),
        (id_feature('fg_encoded_default_value: ""'), pa.array([None, 2]), [2]),
        (id_feature('default_value: "5"'), pa.array([None, 2]), [2]),
        (raw_feature('fg_encoded_default_value: "0.5"'), pa.array([None, 2.0]), [[0.5], [2]]),
    ],
    ids=str,
)
def test_encoded_default(made, column, expected):
    assert made.parse({made.name: column}).values.tolist() == expected


@pytest.mark.parametrize(
    ("make", "text", "message"),
    [
        (id_feature, "x", "must be an id"),
        (id_feature, "1,2", "must be an id"),
        (id_feature, "10", r"holds id 10, which is not in the table \(0 to 9\)"),
        (id_feature, "-1", "holds id -1"),
        (raw_feature, "x", "must be a number"),
        (raw_feature, "1\\0032", "holds 2 numbers, but value_dim is 1"),
        (raw_feature, "nan", "must be finite"),
    ],
)
def test_encoded_default_that_cannot_be(make, text, message):
    with pytest.raises(ConfigError, match=message):
        make(f'fg_encoded_default_value: "{text}"')


def test_missing_number_without_default():
    with pytest.raises(FeatureError, match=r"'price': row 1 .* null or empty"):
        raw_feature().parse({"price": pa.array([1.0, None])})


def test_missing_column():
    with pytest.raises(DataError, match="'cat': its column 'cat' is missing; did you mean 'cats'"):
        id_feature().parse({"cats": pa.array([1])})


class TestMask:
    MASK = pa.array([True, False, None])

    @pytest.mark.parametrize(
        ("text", "buckets", "expected"),
        [
            ("", "num_buckets: 10", None),
            ('default_value: "7"', "num_buckets: 10", [7]),
            ('default_value: "77"', "num_buckets: 10", [0]),
            ('default_value: "xyz"', "hash_bucket_size: 100", [13]),
            ('default_value: "p\\035q"', "vocab_list: ['p']", [0]),  # one word, never split
            ('default_value: "abc"', "vocab_list: ['abc', 'efg']", [2]),
            ('default_value: "xyz"', "vocab_list: ['abc'] default_bucketize_value: 0", [0]),
            ('default_value: "a"', "vocab_dict { key: 'a' value: 4 }", [0]),
            ('fg_encoded_default_value: ""', "num_buckets: 10", None),
            ('default_value: "7" fg_encoded_default_value: "5"', "num_buckets: 10", [5]),
        ],
    )
    def test_ids(self, text, buckets, expected):
        made = id_feature(f"use_mask: true {text}", buckets=buckets)
        assert made.fg_encoded_default == expected
        columns = {"cat": pa.array([1, 0, 1]), "__SAMPLE_MASK__": self.MASK}
        first = expected or []
        assert made.parse(columns, is_training=True).values.tolist() == [*first, 0, 1]
        assert made.parse(columns).values.tolist() == [1, 0, 1]

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("", [0.0]),
            ('default_value: ""', [0.0]),
            ('default_value: "0.5"', [0.5]),
            ('default_value: "0.5" value_dim: 2', [0.5, 0.5]),
            ('default_value: "1\\0352" value_dim: 2', [1.0, 2.0]),
            ('default_value: "1,2" separator: "," value_dim: 2', [1.0, 2.0]),
            ('normalizer: "method=log10" default_value: "100"', [100.0]),
            ('boundaries: [0.05, 0.15, 0.25] embedding_dim: 4 default_value: "0.1"', [1]),
            ('boundaries: [0.05, 0.15, 0.25] embedding_dim: 4 default_value: ""', None),
            (
                "boundaries: [0.05, 0.15, 0.25] embedding_dim: 4 value_dim: 2 "
                'default_value: "0.1\\0350.4"',
                [1, 3],
            ),
        ],
    )
    def test_numbers(self, text, expected):
        assert raw_feature(f"use_mask: true {text}").fg_encoded_default == expected
        assert raw_feature(text).fg_encoded_default is None

    def test_sequences_never_stay_empty(self):
        made = feature(SEQUENCE.format(SUB_ID % "use_mask: true"))
        assert made.fg_encoded_default == [0]
        columns = {"s__cat": pa.array(["1|2", "3", ""]), "__SAMPLE_MASK__": self.MASK}
        assert ids(made.parse(columns, is_training=True)) == ([0, 3, 0], [1, 1, 1])
        made = feature(SEQUENCE.format(SUB_RAW % 'use_mask: true value_dim: 2 default_value: ""'))
        assert made.fg_encoded_default == [0, 0]

    def test_without_use_mask_nothing_is_hidden(self):
        columns = {"cat": pa.array([1, 0, 1]), "__SAMPLE_MASK__": self.MASK}
        assert id_feature().parse(columns, is_training=True).values.tolist() == [1, 0, 1]

    def test_without_mask_column_nothing_is_hidden(self):
        made = id_feature("use_mask: true")
        assert made.parse({"cat": pa.array([1])}, is_training=True).values.tolist() == [1]

    def test_columns_stay_as_they_are(self):
        column = pa.array([1, 0, 1])
        columns = {"cat": column, "__SAMPLE_MASK__": self.MASK}
        id_feature("use_mask: true").parse(columns, is_training=True)
        assert columns["cat"] is column
        assert column.to_pylist() == [1, 0, 1]

    @pytest.mark.parametrize(
        "column",
        [
            pa.array(["1", "2", "3"]),
            pa.array(["1", "2", "3"]).dictionary_encode(),
            pa.array(["1", "2", "3"], pa.string_view()),
            pa.array([[1], [2], [3]]),
            pa.array([[1], [2], [3]], pa.large_list(pa.int32())),
            pa.array([["1"], ["2"], ["3"]], pa.list_view(pa.string())),
            pa.chunked_array([pa.array([1]), pa.array([2, 3])]),
        ],
        ids=lambda column: str(column.type),
    )
    def test_every_layout(self, column):
        made = id_feature("use_mask: true")
        columns = {"cat": column, "__SAMPLE_MASK__": self.MASK}
        assert ids(made.parse(columns, is_training=True)) == ([2, 3], [0, 1, 1])

    @pytest.mark.parametrize(
        "column",
        [
            pa.array([[(1, 2.0)], [(2, 1.0)]], pa.map_(pa.int64(), pa.float32())),
            pa.array(["1:2", "2:1"]),
            pa.array([["1:2"], ["2:1"]]),
        ],
        ids=lambda column: str(column.type),
    )
    @pytest.mark.parametrize("mode", [FgMode.FG_NONE, FgMode.FG_NORMAL])
    def test_a_feature_of_a_map_alone_is_hidden(self, mode, column):
        text = "use_mask: true weighted: true embedding_dim: 4 num_buckets: 10"
        text += ' feature_name: "cat" expression: "user:cat"'
        (made,) = create_features([config(f"id_feature {{ {text} }}")], mode)
        columns = {"cat": column, "__SAMPLE_MASK__": pa.array([True, False])}
        assert ids(made.parse(columns, is_training=True)) == ([2], [0, 1])

    def test_the_first_input_that_is_no_map_is_hidden(self):
        columns = {
            "m": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64())),
            "k": pa.array(["x", "y"]),
            "l": pa.array(["x", "y"]),
            SAMPLE_MASK: pa.array([True, None]),
        }
        hidden = hide_masked_rows(["m", "k", "l"], False, columns)
        assert hidden["m"] is columns["m"]
        assert hidden["k"].to_pylist() == [None, "y"]
        assert hidden["l"] is columns["l"]

    def test_sampled_rows_have_a_mask_of_their_own(self):
        (made,) = create_features([config(SUB_ID % "use_mask: true")], neg_fields=["cat"])
        columns = {
            "cat": pa.array([1, 2, 3]),
            "__SAMPLE_MASK__": pa.array([True]),
            "__NEG_SAMPLE_MASK__": pa.array([False, False, True]),
        }
        assert ids(made.parse(columns, is_training=True)) == ([1, 2], [1, 1, 0])

    def test_mask_of_another_length(self):
        columns = {"cat": pa.array([1]), "__SAMPLE_MASK__": self.MASK}
        with pytest.raises(DataError, match="'cat' has 1 rows, its mask 3"):
            id_feature("use_mask: true").parse(columns, is_training=True)

    @pytest.mark.parametrize(
        ("make", "text", "message"),
        [
            (id_feature, 'default_value: "abc"', "default_value 'abc' of cat is no whole number"),
            (raw_feature, 'default_value: "abc"', "default_value 'abc' of price is not a number"),
            (raw_feature, 'default_value: "1\\0352"', "has 2 numbers, but value_dim is 1"),
        ],
    )
    def test_default_that_cannot_be(self, make, text, message):
        with pytest.raises(ConfigError, match=message) as error:
            make(f"use_mask: true {text}")
        assert "fg_encoded_default_value" in error.value.hint


def test_plain_columns_are_not_copied():
    numbers = pa.array(np.arange(8, dtype=np.float32))
    parsed = raw_feature().parse({"price": numbers})
    assert parsed.values.ctypes.data == numbers.buffers()[1].address
