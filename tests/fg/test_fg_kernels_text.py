"""Splitting, joining and copying text, on both back ends."""

import re

import numpy as np
import pytest
from fg_kernels_help import both, lay_out, nest, quick, read, seeds, tokens
from hypothesis import given
from hypothesis import strategies as st

from tzrec.fg.kernels import plain_text

separated = st.text(alphabet="|:ab\x00é", max_size=200).map(str.encode)
tokens_only = st.lists(st.sampled_from([b"a", b"bcd", b"", b"x" * 70]), max_size=30)
columns = st.lists(st.one_of(separated, st.binary(max_size=150)), max_size=30)
separators = st.sampled_from([(ord("|"), -1), (ord("|"), ord(":")), (0, 255), (0x1D, ord("|"))])


def slow_split(text, sep1, sep2, keep_empty):
    if not text:
        return []
    chars = [bytes([sep]) for sep in (sep1, sep2) if sep >= 0]
    parts = re.split(b"|".join(re.escape(c) for c in chars), text)
    return [part for part in parts if part or keep_empty]


@both
@quick
@given(texts=columns, seed=seeds, seps=separators, keep_empty=st.booleans())
def test_split(k, texts, seed, seps, keep_empty):
    data, starts, ends = lay_out(texts, seed)
    token_starts, token_ends, lengths = k.split(data, starts, ends, *seps, keep_empty)
    expected = [slow_split(text, *seps, keep_empty) for text in texts]
    assert nest(read(data, token_starts, token_ends), lengths) == expected


@both
@pytest.mark.parametrize(
    ("text", "keep_empty", "expected"),
    [
        (b"c||a|b|b|", True, [b"c", b"", b"a", b"b", b"b", b""]),
        (b"c||a|b|b|", False, [b"c", b"a", b"b", b"b"]),
        (b"|", True, [b"", b""]),
        (b"|", False, []),
        (b"", True, []),
        (b"", False, []),
        (b"x", True, [b"x"]),
    ],
)
def test_split_cases(k, text, keep_empty, expected):
    data, starts, ends = lay_out([text])
    token_starts, token_ends, lengths = k.split(data, starts, ends, ord("|"), -1, keep_empty)
    assert read(data, token_starts, token_ends) == expected
    assert lengths.tolist() == [len(expected)]


@both
@pytest.mark.parametrize("keep_empty", [False, True])
def test_split_hostile(k, keep_empty):
    texts = [
        b"|" * 10**6,
        b"x" * 10**6,
        b"\x00|" * 1000,
        "😀|\udcff".encode("utf-8", "surrogatepass"),
    ]
    data, starts, ends = lay_out(texts)
    token_starts, token_ends, lengths = k.split(data, starts, ends, ord("|"), -1, keep_empty)
    assert lengths.tolist() == [10**6 + 1 if keep_empty else 0, 1, 1001 if keep_empty else 1000, 2]
    assert (token_ends - token_starts).sum() == 10**6 + 1000 + len(texts[3]) - 1


@both
@pytest.mark.parametrize("size", [62, 63, 64, 65, 127, 128, 129, 200])
def test_split_at_the_borders_of_words(k, size):
    texts = [b"a" * i + b"|" + b"b" * (size - i - 1) for i in range(size)]
    data, starts, ends = lay_out(texts)
    token_starts, token_ends, lengths = k.split(data, starts, ends, ord("|"), -1, True)
    expected = [text.split(b"|") for text in texts]
    assert nest(read(data, token_starts, token_ends), lengths) == expected


@both
def test_split_slice(k):
    data, starts, ends = lay_out([b"a|b", b"c", b"|", b"d|e|f"])
    token_starts, token_ends, lengths = k.split(data, starts[1:3], ends[1:3], ord("|"), -1, True)
    assert nest(read(data, token_starts, token_ends), lengths) == [[b"c"], [b"", b""]]


@both
@quick
@given(texts=columns, seed=seeds)
def test_split_pairs(k, texts, seed):
    data, starts, ends = lay_out(texts, seed)
    key_ends, value_starts, found = k.split_pairs(data, starts, ends, ord(":"))
    assert found.dtype == np.bool_
    expected = [text.partition(b":") for text in texts]
    assert read(data, starts, key_ends) == [key for key, _, _ in expected]
    assert read(data, value_starts, ends) == [value for _, _, value in expected]
    assert found.tolist() == [bool(sep) for _, sep, _ in expected]


@both
@quick
@given(texts=tokens, seed=seeds)
def test_gather_and_lengths(k, texts, seed):
    text = lay_out(texts, seed)
    assert k.text_lengths(*text[1:]).tolist() == [len(t) for t in texts]
    data, starts, ends = k.gather_text(*text)
    assert read(data, starts, ends) == texts
    assert data.tobytes() == b"".join(texts)
    assert starts[1:].tolist() == ends[:-1].tolist()


@both
@quick
@given(
    rows=st.lists(st.tuples(*[st.binary(max_size=20)] * 3), max_size=20),
    joiner=st.binary(max_size=10),
    count=st.integers(1, 3),
    seed=seeds,
)
def test_concat(k, rows, joiner, count, seed):
    pieces = tuple(lay_out([row[i] for row in rows], seed + i) for i in range(count))
    data, starts, ends = k.concat(pieces, np.frombuffer(joiner, dtype=np.uint8))
    assert read(data, starts, ends) == [joiner.join(row[:count]) for row in rows]
    assert data.tobytes() == b"".join(joiner.join(row[:count]) for row in rows)


@both
def test_copy_of_a_huge_token(k):
    huge = bytes(range(256)) * 4096 + b"end"
    assert read(*k.gather_text(*lay_out([b"a", huge, b"b"], 1))) == [b"a", huge, b"b"]


@both
def test_inputs_stay_as_they_were(k):
    data, starts, ends = lay_out([b"a|b", b""])
    before = starts.copy(), ends.copy()
    k.split(data, starts, ends, ord("|"), -1, True)
    k.split_pairs(data, starts, ends, ord("|"))
    k.concat(((data, starts, ends),) * 2, np.frombuffer(b"-", dtype=np.uint8))
    np.testing.assert_array_equal(before, (starts, ends))


@both
@quick
@given(texts=st.one_of(columns, tokens_only), seed=seeds, seps=separators)
def test_survey(k, texts, seed, seps):
    data, starts, ends = lay_out(texts, seed)
    found = k.survey(data, starts, ends, *seps)
    assert found == plain_text.survey(data, starts, ends, *seps)
    parts = [slow_split(text, *seps, False) for text in texts]
    if found == plain_text.SINGLE:
        assert parts == [[text] for text in texts]
    elif found == plain_text.EMPTY:
        assert parts == [[text] if text else [] for text in texts]
        assert b"" in texts


@both
@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ([], plain_text.SINGLE),
        ([b"a", b"bc" * 50], plain_text.SINGLE),
        ([b"a", b"", b"c"], plain_text.EMPTY),
        ([b""], plain_text.EMPTY),
        ([b"a", b"x" * 70 + b"|"], plain_text.MANY),
        ([b"a:b"], plain_text.MANY),
    ],
)
def test_survey_of_texts_behind_each_other(k, texts, found):
    """The short ways through feature generation depend on these answers."""
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    starts = ends - np.array([len(text) for text in texts], dtype=np.int64)
    data = np.frombuffer(b"".join(texts), np.uint8)
    assert k.survey(data, starts, ends, ord("|"), ord(":")) == found


@both
def test_survey_does_not_look_through_bytes_of_no_text(k):
    data = np.zeros(1000, np.uint8)
    starts, ends = np.array([0, 990]), np.array([2, 995])
    assert k.survey(data, starts, ends, 1, -1) == plain_text.MANY
