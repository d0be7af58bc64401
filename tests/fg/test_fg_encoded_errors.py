"""FG_NONE parsing of bad values and columns of a wrong type."""

import pyarrow as pa
import pytest

from tzrec.errors import FeatureError
from tzrec.fg.encoded import (
    parse_fg_encoded_dense_feature_impl,
    parse_fg_encoded_sequence_dense_feature_impl,
    parse_fg_encoded_sequence_sparse_feature_impl,
    parse_fg_encoded_sparse_feature_impl,
)


def sparse(column, default=None, weighted=False, sep="\x03"):
    return parse_fg_encoded_sparse_feature_impl("tag", column, sep, default, weighted)


def dense(column, default=None, dim=None, sep="\x03"):
    return parse_fg_encoded_dense_feature_impl("price", column, sep, default, dim)


def seq_sparse(column, default=None, delim=";"):
    return parse_fg_encoded_sequence_sparse_feature_impl("seq", column, delim, "\x03", default)


def seq_dense(column, default=None, dim=1):
    return parse_fg_encoded_sequence_dense_feature_impl("seq", column, ";", "\x03", default, dim)


class TestBadValues:
    """An error names the feature, the row, the value, and what would be right."""

    @pytest.mark.parametrize(
        ("column", "row", "value"),
        [
            (pa.array(["1", "x"]), 1, "'x'"),
            (pa.array(["1\x032", None, "3\x034.5"]), 2, "'4.5'"),
            (pa.array(["1", "2\x03"]), 1, "''"),
            (pa.array([["1"], [], ["2", "?"]]), 2, r"'\?'"),
            (pa.array(["99999999999999999999"]), 0, "'99999999999999999999'"),
            (pa.array([1, 2**63], pa.uint64()), 1, "9223372036854775808"),
            (pa.array(["0", "1", "2", "bad", "4", "5"]).slice(2), 1, "'bad'"),
        ],
    )
    def test_ids(self, column, row, value):
        message = (
            f"feature 'tag': row {row} of the batch holds {value}, which is not a whole number"
        )
        with pytest.raises(FeatureError, match=message):
            sparse(column)

    def test_numbers(self):
        message = "feature 'price': row 1 of the batch holds 'cheap', which is not a number"
        with pytest.raises(FeatureError, match=message):
            dense(pa.array(["1", "cheap"]))

    def test_row_of_a_step(self):
        with pytest.raises(FeatureError, match="row 2 of the batch holds 'y'"):
            seq_sparse(pa.array(["1;2", "", "3;4\x03y"]))
        with pytest.raises(FeatureError, match="row 1 of the batch holds 'y'"):
            seq_dense(pa.array([["1", "2"], ["y"]]))

    def test_null_inside_a_list(self):
        with pytest.raises(FeatureError, match="row 1 of the batch holds a null inside a list"):
            sparse(pa.array([[1], [2, None]]))
        with pytest.raises(FeatureError, match="row 0 of the batch holds a null inside a list"):
            sparse(pa.array([[None]], pa.list_(pa.null())))

    @pytest.mark.parametrize(
        ("token", "message"),
        [
            ("1", "'1', which is not 'id:weight'"),
            ("1:2:3", "'1:2:3', which is not 'id:weight'"),
            ("x:1", "'x', which is not a whole number"),
            ("1:y", "'y', which is not a number"),
        ],
    )
    def test_weights(self, token, message):
        for column in (pa.array(["5:1", token]), pa.array([["5:1"], [token]])):
            with pytest.raises(FeatureError, match=f"'tag': row 1 of the batch holds {message}"):
                sparse(column, weighted=True)

    @pytest.mark.parametrize(
        "column",
        [
            pa.array([1.0]),
            pa.array([[1.0]]),
            pa.array([True]),
            pa.array([b"1"]),
            pa.array([[[1]]]),
            pa.array([{"a": 1}]),
        ],
    )
    def test_types_that_are_no_ids(self, column):
        with pytest.raises(
            FeatureError, match=r"'tag' cannot read a column of .*; it takes integers"
        ):
            sparse(column)

    def test_map_of_an_unweighted_feature(self):
        column = pa.array([[(1, 2.0)]], pa.map_(pa.int64(), pa.float32()))
        with pytest.raises(FeatureError, match="cannot read a column of map") as error:
            sparse(column)
        assert "weighted: true" in error.value.hint
        with pytest.raises(FeatureError, match="cannot read a column of map"):
            dense(column)

    @pytest.mark.parametrize("column", [pa.array([1]), pa.array([[1]])])
    def test_weighted_integers(self, column):
        with pytest.raises(FeatureError, match="it takes text 'id:weight'"):
            sparse(column, weighted=True)

    def test_types_that_are_no_sequence(self):
        with pytest.raises(FeatureError, match="'seq' cannot read a column of struct"):
            seq_dense(pa.array([{"a": 1}]))
        with pytest.raises(FeatureError, match="'seq' cannot read a column of double"):
            seq_sparse(pa.array([[0.5]]))
