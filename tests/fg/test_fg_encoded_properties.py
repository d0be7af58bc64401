"""FG_NONE parsing of random rows in random layouts against a plain-Python reading of the rules."""

import numpy as np
import pyarrow as pa
from fg_layouts import LISTS, TEXT_TYPES, array, chunked, sliced
from hypothesis import given, settings
from hypothesis import strategies as st

from tzrec.fg.encoded import (
    parse_fg_encoded_dense_feature_impl,
    parse_fg_encoded_sequence_dense_feature_impl,
    parse_fg_encoded_sequence_sparse_feature_impl,
    parse_fg_encoded_sparse_feature_impl,
)

SEP = "\x03"
IDS = st.integers(-(2**63), 2**63 - 1)
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)
QUICK = settings(max_examples=60, deadline=None)


@st.composite
def laid_out(draw, rows, list_item, encode):
    """The rows as text or lists, perhaps a slice of more, perhaps in chunks.

    Args:
        rows: None or a list per row.
        list_item: Arrow type of a row's items.
        encode: a row as text.
    """
    if draw(st.booleans()):
        data_type = draw(st.sampled_from(TEXT_TYPES))
        texts = [draw(st.sampled_from(["", None])) if not row else encode(row) for row in rows]
        column, filler = array(texts, data_type), "77" + SEP + "78"
    else:
        column = pa.array(rows, draw(st.sampled_from(LISTS))(list_item))
        filler = next((row for row in rows if row), None)
    column = sliced(column, draw(st.integers(0, 2)), draw(st.integers(0, 2)), filler)
    if draw(st.booleans()):
        column = chunked(column, draw(st.lists(st.integers(0, 3), max_size=3)))
    return column


@QUICK
@given(st.data())
def test_sparse(data):
    rows = data.draw(st.lists(st.none() | st.lists(IDS, max_size=3), max_size=6))
    default = data.draw(st.none() | st.lists(IDS, min_size=1, max_size=2))
    column = data.draw(laid_out(rows, pa.int64(), lambda row: SEP.join(map(str, row))))
    parsed = parse_fg_encoded_sparse_feature_impl("f", column, SEP, default)
    expected = [row or default or [] for row in rows]
    assert parsed.values.tolist() == [value for row in expected for value in row]
    assert parsed.lengths.tolist() == [len(row) for row in expected]


@QUICK
@given(st.data())
def test_weighted(data):
    pair = st.tuples(st.integers(0, 100), NUMBERS)
    rows = data.draw(st.lists(st.none() | st.lists(pair, max_size=3), max_size=6))
    default = data.draw(st.none() | st.lists(st.integers(0, 9), min_size=1, max_size=2))
    if data.draw(st.booleans()):
        column = pa.array(rows, pa.map_(pa.int64(), pa.float32()))
        column = sliced(column, *data.draw(st.tuples(*[st.integers(0, 2)] * 2)), [(7, 7.0)])
    else:
        texts = [row and [f"{key}:{weight!r}" for key, weight in row] for row in rows]
        column = data.draw(laid_out(texts, pa.string(), SEP.join))
    parsed = parse_fg_encoded_sparse_feature_impl("f", column, SEP, default, True)
    filler = [(key, 1.0) for key in default or []]
    expected = [row or filler for row in rows]
    assert parsed.values.tolist() == [key for row in expected for key, _ in row]
    assert parsed.weights.tolist() == [np.float32(weight) for row in expected for _, weight in row]
    assert parsed.lengths.tolist() == [len(row) for row in expected]


@QUICK
@given(st.data())
def test_dense(data):
    dim = data.draw(st.integers(1, 3))
    vector = st.lists(NUMBERS, min_size=dim, max_size=dim)
    rows = data.draw(st.lists(st.none() | vector, max_size=6))
    default = data.draw(vector)
    column = data.draw(laid_out(rows, pa.float64(), lambda row: SEP.join(map(repr, row))))
    parsed = parse_fg_encoded_dense_feature_impl("f", column, SEP, default, dim)
    expected = np.array([row or default for row in rows], np.float32).reshape(-1, dim)
    np.testing.assert_array_equal(parsed.values, expected)


@QUICK
@given(st.data())
def test_sequence_sparse(data):
    step = st.lists(st.integers(0, 1000), max_size=2)
    rows = data.draw(st.lists(st.none() | st.lists(step, max_size=3), max_size=6))
    # As text, one empty step is an empty row.
    rows = [None if row == [[]] else row for row in rows]
    default = data.draw(st.none() | st.lists(IDS, min_size=1, max_size=2))
    column = data.draw(
        laid_out(
            rows,
            pa.list_(pa.int64()),
            lambda row: ";".join(SEP.join(map(str, ids)) for ids in row),
        )
    )
    parsed = parse_fg_encoded_sequence_sparse_feature_impl("f", column, ";", SEP, default)
    if default is None:
        expected = [row or [] for row in rows]
    else:
        expected = [[ids or default for ids in row or [default]] for row in rows]
    assert parsed.values.tolist() == [i for row in expected for ids in row for i in ids]
    assert parsed.key_lengths.tolist() == [len(ids) for row in expected for ids in row]
    assert parsed.lengths.tolist() == [len(row) for row in expected]


@QUICK
@given(st.data())
def test_sequence_dense(data):
    dim = data.draw(st.integers(1, 2))
    step = st.lists(NUMBERS, min_size=dim, max_size=dim)
    rows = data.draw(st.lists(st.none() | st.lists(step, max_size=3), max_size=6))
    default = data.draw(st.none() | step)
    column = data.draw(
        laid_out(
            rows,
            pa.list_(pa.float32()),
            lambda row: ";".join(SEP.join(map(repr, numbers)) for numbers in row),
        )
    )
    parsed = parse_fg_encoded_sequence_dense_feature_impl("f", column, ";", SEP, default, dim)
    expected = [row or ([default] if default is not None else []) for row in rows]
    flat = np.array([numbers for row in expected for numbers in row], np.float32)
    np.testing.assert_array_equal(parsed.values, flat.reshape(-1, dim))
    assert parsed.lengths.tolist() == [len(row) for row in expected]
