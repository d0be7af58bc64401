"""FG_NONE parsing: each rule of reference 02 §2.6.1 by hand."""

import numpy as np
import pyarrow as pa
import pytest
from fg_layouts import FLOAT_TYPES, INTEGER_TYPES, LISTS, TEXT_TYPES, array, chunked

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


def ids(parsed):
    assert parsed.values.dtype == np.int64
    assert parsed.lengths.dtype == np.int32
    return parsed.values.tolist(), parsed.lengths.tolist()


def steps(parsed):
    assert parsed.key_lengths.dtype == np.int32
    assert parsed.seq_lengths is parsed.lengths
    values, lengths = ids(parsed)
    return values, parsed.key_lengths.tolist(), lengths


class TestSparse:
    @pytest.mark.parametrize("data_type", TEXT_TYPES, ids=str)
    def test_text_is_split(self, data_type):
        column = array(["1\x032", "", None, "3"], data_type)
        assert ids(sparse(column)) == ([1, 2, 3], [2, 0, 0, 1])
        assert ids(sparse(column, [0])) == ([1, 2, 0, 0, 3], [2, 1, 1, 1])

    @pytest.mark.parametrize("data_type", INTEGER_TYPES, ids=str)
    def test_integers(self, data_type):
        column = array([1, None, 3], data_type)
        assert ids(sparse(column)) == ([1, 3], [1, 0, 1])
        assert ids(sparse(column, [7])) == ([1, 7, 3], [1, 1, 1])

    @pytest.mark.parametrize("make", LISTS)
    @pytest.mark.parametrize("item", [pa.int64(), pa.int32(), pa.string(), pa.large_string()])
    def test_lists(self, make, item):
        rows = [[1, 2], [], None, [3]]
        if item in (pa.string(), pa.large_string()):
            rows = [r and [str(v) for v in r] for r in rows]
        column = pa.array(rows, make(item))
        assert ids(sparse(column)) == ([1, 2, 3], [2, 0, 0, 1])
        assert ids(sparse(column, [9])) == ([1, 2, 9, 9, 3], [2, 1, 1, 1])
        assert ids(sparse(column.slice(1))) == ([3], [0, 0, 1])

    def test_fixed_size_list(self):
        column = pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int64(), 2))
        assert ids(sparse(column)) == ([1, 2, 3, 4], [2, 0, 2])
        assert ids(sparse(column.slice(1))) == ([3, 4], [0, 2])

    def test_default_may_hold_several_ids(self):
        assert ids(sparse(pa.array(["", "5"]), [1, 2])) == ([1, 2, 5], [2, 1])

    def test_null_inside_slice_keeps_hidden_values_out(self):
        offsets = pa.array([0, 2, 4, 5], pa.int32())
        mask = pa.array([False, True, False])
        column = pa.ListArray.from_arrays(offsets, pa.array([1, 2, 8, 9, 3]), mask=mask)
        assert ids(sparse(column)) == ([1, 2, 3], [2, 0, 1])

    def test_separator_of_several_characters(self):
        assert ids(sparse(pa.array(["1, 2", "3"]), sep=", ")) == ([1, 2, 3], [2, 1])

    def test_separator_outside_a_slice_does_not_count(self):
        column = pa.array(["1\x032", "3", "4\x035"])
        assert ids(sparse(column.slice(1, 1))) == ([3], [1])
        assert ids(sparse(column.slice(1))) == ([3, 4, 5], [1, 2])

    def test_blanks_around_a_number_are_ignored(self):
        assert ids(sparse(pa.array([" 1\x032 "]))) == ([1, 2], [2])

    def test_extreme_ids(self):
        low, high = -(2**63), 2**63 - 1
        assert ids(sparse(pa.array([str(low), str(high)])))[0] == [low, high]

    @pytest.mark.parametrize(
        "data_type", [pa.null(), pa.string(), pa.int64(), pa.list_(pa.int64()), pa.list_(pa.null())]
    )
    def test_all_null_and_empty(self, data_type):
        column = pa.array([None, None], data_type)
        assert ids(sparse(column)) == ([], [0, 0])
        assert ids(sparse(column, [4])) == ([4, 4], [1, 1])
        assert ids(sparse(column.slice(0, 0), [4])) == ([], [])

    def test_chunks(self):
        column = pa.array(["1", "2\x033", None, "4"])
        assert ids(sparse(chunked(column, [1, 2]))) == ([1, 2, 3, 4], [1, 2, 0, 1])
        assert ids(sparse(pa.chunked_array([], pa.string()))) == ([], [])
        words = pa.chunked_array(
            [pa.array(["1"]).dictionary_encode(), pa.array(["2"]).dictionary_encode()]
        )
        assert ids(sparse(words)) == ([1, 2], [1, 1])

    def test_plain_ids_are_not_copied(self):
        column = pa.array(np.arange(10))
        assert sparse(column).values.ctypes.data == column.buffers()[1].address
        part = column.slice(3)
        assert sparse(part).values.ctypes.data == column.buffers()[1].address + 3 * 8


class TestWeighted:
    @pytest.mark.parametrize("data_type", TEXT_TYPES, ids=str)
    def test_text(self, data_type):
        parsed = sparse(array(["4:2.5\x035:2", "", "6:0.5"], data_type), weighted=True)
        assert ids(parsed) == ([4, 5, 6], [2, 0, 1])
        assert parsed.weights.tolist() == [2.5, 2.0, 0.5]
        assert parsed.weights.dtype == np.float32

    def test_list(self):
        column = pa.array([["1:0.5", "2:1"], [], None], pa.list_(pa.string()))
        parsed = sparse(column, weighted=True)
        assert ids(parsed) == ([1, 2], [2, 0, 0])
        assert parsed.weights.tolist() == [0.5, 1.0]

    @pytest.mark.parametrize("key", [pa.int64(), pa.int32(), pa.string()])
    @pytest.mark.parametrize("item", [pa.float32(), pa.float64(), pa.int32(), pa.string()])
    def test_map(self, key, item):
        rows = [[(1, 2)], None, [(2, 1), (3, 4)], []]
        if key == pa.string():
            rows = [r and [(str(k), v) for k, v in r] for r in rows]
        if item == pa.string():
            rows = [r and [(k, str(v)) for k, v in r] for r in rows]
        column = pa.array(rows, pa.map_(key, item))
        for part, values, lengths, weights in (
            (column, [1, 2, 3], [1, 0, 2, 0], [2, 1, 4]),
            (column.slice(1), [2, 3], [0, 2, 0], [1, 4]),
            (column.slice(0, 2), [1], [1, 0], [2]),
        ):
            parsed = sparse(part, weighted=True)
            assert ids(parsed) == (values, lengths)
            assert parsed.weights.tolist() == weights

    def test_default_weighs_one(self):
        parsed = sparse(pa.array(["4:2.5", None]), [0, 1], weighted=True)
        assert ids(parsed) == ([4, 0, 1], [1, 2])
        assert parsed.weights.tolist() == [2.5, 1.0, 1.0]

    @pytest.mark.parametrize(
        "data_type", [pa.null(), pa.list_(pa.null()), pa.map_(pa.int64(), pa.float32())]
    )
    def test_all_null(self, data_type):
        parsed = sparse(pa.array([None, None], data_type), weighted=True)
        assert ids(parsed) == ([], [0, 0])
        assert parsed.weights.tolist() == []

    def test_not_weighted_has_no_weights(self):
        assert sparse(pa.array([1])).weights is None


class TestDense:
    @pytest.mark.parametrize("data_type", TEXT_TYPES, ids=str)
    def test_text(self, data_type):
        column = array(["0.1\x030.2", None, ""], data_type)
        found = dense(column, [0.5, 1]).values
        np.testing.assert_array_equal(found, np.array([[0.1, 0.2], [0.5, 1], [0.5, 1]], np.float32))

    @pytest.mark.parametrize("data_type", [*FLOAT_TYPES, *INTEGER_TYPES], ids=str)
    def test_numbers(self, data_type):
        found = dense(array([1, None, 3], data_type), [2]).values
        assert found.dtype == np.float32
        assert found.tolist() == [[1], [2], [3]]

    def test_booleans_are_zero_and_one(self):
        assert dense(pa.array([True, False, None]), [0.5]).values.tolist() == [[1], [0], [0.5]]

    @pytest.mark.parametrize("make", LISTS)
    @pytest.mark.parametrize("item", [pa.float32(), pa.float64(), pa.int64(), pa.string()])
    def test_lists(self, make, item):
        rows = [["1", "2"], ["3", "4"]] if item == pa.string() else [[1, 2], [3, 4]]
        column = pa.array([*rows, None, []], make(item))
        assert dense(column, [0, 9]).values.tolist() == [[1, 2], [3, 4], [0, 9], [0, 9]]
        assert dense(column.slice(1, 1)).values.tolist() == [[3, 4]]

    def test_large_integers_round(self):
        assert dense(pa.array([25304793])).values.tolist() == [[25304792]]

    def test_no_rows(self):
        assert dense(pa.array([], pa.string()), dim=3).values.shape == (0, 3)
        assert dense(pa.array([], pa.float32())).values.shape == (0, 1)

    def test_all_null(self):
        assert dense(pa.array([None, None], pa.null()), [1, 2]).values.tolist() == [[1, 2], [1, 2]]

    def test_plain_numbers_are_not_copied(self):
        column = pa.array(np.ones(4, np.float32))
        assert dense(column).values.ctypes.data == column.buffers()[1].address

    @pytest.mark.parametrize(
        "column",
        [pa.array(["1", None]), pa.array(["1", ""]), pa.array([1.0, None]), pa.array([[1], []])],
    )
    def test_missing_without_default(self, column):
        with pytest.raises(
            FeatureError, match=r"'price': row 1 of the batch is null or empty"
        ) as e:
            dense(column, dim=1)
        assert "fg_encoded_default_value" in e.value.hint

    def test_rows_of_different_length(self):
        with pytest.raises(
            FeatureError, match="row 1 of the batch has 1 numbers, but value_dim is 2"
        ):
            dense(pa.array(["1\x032", "3", "4\x035"]))
        # As many numbers in all as there should be.
        with pytest.raises(
            FeatureError, match="row 0 of the batch has 1 numbers, but value_dim is 2"
        ):
            dense(pa.array(["1", "2\x033\x034"]), dim=2)

    def test_numbers_for_a_vector(self):
        with pytest.raises(
            FeatureError, match="row 0 of the batch has 1 numbers, but value_dim is 2"
        ):
            dense(pa.array([1.0, 2.0]), dim=2)

    def test_default_of_wrong_length(self):
        with pytest.raises(FeatureError, match="default has 1 numbers, but value_dim is 2"):
            dense(pa.array(["1\x032"]), [0], dim=2)


class TestSequenceSparse:
    @pytest.mark.parametrize("data_type", TEXT_TYPES, ids=str)
    def test_text(self, data_type):
        column = array(["1;2", "", "3", "4\x035;6", None], data_type)
        assert steps(seq_sparse(column)) == ([1, 2, 3, 4, 5, 6], [1, 1, 1, 2, 1], [2, 0, 1, 2, 0])
        assert steps(seq_sparse(column, [0])) == (
            [1, 2, 0, 3, 4, 5, 6, 0],
            [1, 1, 1, 1, 2, 1, 1],
            [2, 1, 1, 2, 1],
        )

    @pytest.mark.parametrize("make", LISTS)
    def test_lists(self, make):
        column = pa.array([[1, 2], [], None, [3]], make(pa.int64()))
        assert steps(seq_sparse(column)) == ([1, 2, 3], [1, 1, 1], [2, 0, 0, 1])
        assert steps(seq_sparse(column.slice(1))) == ([3], [1], [0, 0, 1])

    def test_list_of_text(self):
        column = pa.array([["1", "2\x033"], None], pa.list_(pa.string()))
        assert steps(seq_sparse(column)) == ([1, 2, 3], [1, 2], [2, 0])

    @pytest.mark.parametrize("make", LISTS)
    @pytest.mark.parametrize("item", [pa.int64(), pa.string()])
    def test_lists_of_lists(self, make, item):
        rows = [[[1], [2]], [], [[3]], [[4, 5], [6]], None]
        if item == pa.string():
            rows = [r and [[str(v) for v in step] for step in r] for r in rows]
        column = pa.array(rows, make(pa.list_(item)))
        assert steps(seq_sparse(column)) == ([1, 2, 3, 4, 5, 6], [1, 1, 1, 2, 1], [2, 0, 1, 2, 0])
        assert steps(seq_sparse(column.slice(3), [9])) == ([4, 5, 6, 9], [2, 1, 1], [2, 1])

    def test_empty_steps(self):
        for column in (
            pa.array(["1;;2"]),
            pa.array([[1, None, 2]]),
            pa.array([[[1], [], [2]]]),
            pa.array([[[1], None, [2]]]),
        ):
            assert steps(seq_sparse(column)) == ([1, 2], [1, 0, 1], [3])
            assert steps(seq_sparse(column, [7])) == ([1, 7, 2], [1, 1, 1], [3])

    def test_default_step_may_hold_several_ids(self):
        assert steps(seq_sparse(pa.array([None, "1"]), [8, 9])) == ([8, 9, 1], [2, 1], [1, 1])

    def test_integers_are_sequences_of_one_step(self):
        assert steps(seq_sparse(pa.array([5, None, 6]))) == ([5, 6], [1, 1], [1, 0, 1])

    @pytest.mark.parametrize("data_type", [pa.null(), pa.string(), pa.list_(pa.list_(pa.int64()))])
    def test_all_null(self, data_type):
        column = pa.array([None, None], data_type)
        assert steps(seq_sparse(column)) == ([], [], [0, 0])
        assert steps(seq_sparse(column, [3])) == ([3, 3], [1, 1], [1, 1])

    def test_other_delimiter(self):
        assert steps(seq_sparse(pa.array(["1|2"]), delim="|")) == ([1, 2], [1, 1], [2])


class TestSequenceDense:
    def test_text(self):
        column = pa.array(["0.1\x031.1;0.2\x031.2", "", None])
        parsed = seq_dense(column, [0, 5], dim=2)
        expected = np.array([[0.1, 1.1], [0.2, 1.2], [0, 5], [0, 5]], np.float32)
        np.testing.assert_array_equal(parsed.values, expected)
        assert parsed.lengths.tolist() == [2, 1, 1]
        parsed = seq_dense(column, dim=2)
        np.testing.assert_array_equal(parsed.values, expected[:2])
        assert parsed.lengths.tolist() == [2, 0, 0]

    @pytest.mark.parametrize("make", LISTS)
    def test_lists(self, make):
        column = pa.array([[0.5, 2], [], None, [3]], make(pa.float64()))
        parsed = seq_dense(column)
        assert parsed.values.tolist() == [[0.5], [2], [3]]
        assert parsed.lengths.tolist() == [2, 0, 0, 1]
        parsed = seq_dense(column.slice(2), [9])
        assert parsed.values.tolist() == [[9], [3]]
        assert parsed.lengths.tolist() == [1, 1]

    def test_lists_of_lists(self):
        column = pa.array([[[1, 2], [3, 4]], None])
        assert seq_dense(column, dim=2).values.tolist() == [[1, 2], [3, 4]]

    def test_empty_step(self):
        column = pa.array(["5", "1;;2"])
        assert seq_dense(column, [7]).values.tolist() == [[5], [1], [7], [2]]
        with pytest.raises(
            FeatureError, match="row 1 of the batch has a step that is null or empty"
        ):
            seq_dense(column)

    def test_step_of_wrong_length(self):
        with pytest.raises(
            FeatureError, match="'seq': row 1 of the batch has a step that has 1 num"
        ):
            seq_dense(pa.array(["1\x032", "1\x032;3"]), dim=2)

    def test_no_rows(self):
        assert seq_dense(pa.array([], pa.string()), dim=2).values.shape == (0, 2)
