"""Vocabularies and the maps of cells, on both back ends."""

import random

import numpy as np
import pytest
from fg_kernels_help import both, cells, lay_out, quick, read, seeds, tokens
from hypothesis import given
from hypothesis import strategies as st

# Equal first bytes, equal lengths and NUL bytes, so that shortcuts would be found out.
keys = st.one_of(
    st.text(alphabet="ab\x00", max_size=3).map(str.encode),
    st.builds(lambda tail: b"same8bytes" + tail, st.text("xy\x00", max_size=3).map(str.encode)),
    st.builds(lambda tail: b"z" * 70 + tail, st.text("xy", max_size=2).map(str.encode)),
)


@both
@quick
@given(words=st.lists(keys, max_size=60), texts=st.lists(keys, max_size=60), seed=seeds)
def test_vocabulary(k, words, texts, seed):
    ids = np.arange(100, 100 + len(words))
    table = k.build_vocabulary(*lay_out(words, seed), ids)
    assert all(isinstance(part, np.ndarray) for part in table)
    expected = dict(zip(words, ids.tolist(), strict=True))
    got = k.lookup_vocabulary(table, *lay_out(texts, seed), -7)
    assert got.dtype == np.int64
    assert got.tolist() == [expected.get(text, -7) for text in texts]


@both
@quick
@given(words=tokens, seed=seeds)
def test_vocabulary_finds_its_words(k, words, seed):
    ids = np.arange(len(words))
    table = k.build_vocabulary(*lay_out(words, seed), ids)
    last = {word: i for i, word in enumerate(words)}
    got = k.lookup_vocabulary(table, *lay_out(words, seed + 1), -1)
    assert got.tolist() == [last[word] for word in words]


@both
def test_large_vocabulary(k):
    words = [b"%d" % (i * i) for i in range(5000)] + [b"x" * 10**6, b""]
    table = k.build_vocabulary(*lay_out(words), np.arange(len(words)))
    texts = [*words[::-1], b"no", b"x" * (10**6 - 1)]
    expected = [*range(len(words) - 1, -1, -1), -1, -1]
    assert k.lookup_vocabulary(table, *lay_out(texts), -1).tolist() == expected


def test_both_build_the_same_table():
    compiled = pytest.importorskip("tzrec.fg.kernels.compiled")
    from tzrec.fg.kernels import plain

    rng = random.Random(1)
    words = lay_out([b"%d" % rng.randrange(500) for _ in range(1000)], 3)
    ids = np.arange(1000)
    tables = [k.build_vocabulary(*words, ids) for k in (compiled, plain)]
    for one, other in zip(*tables, strict=True):
        np.testing.assert_array_equal(one, other)


def check_find(k, maps, wanted, seed):
    positions = k.find_keys(*cells(maps, seed), *cells(wanted, seed + 1))
    assert positions.dtype == np.int64
    expected, first = [], 0
    for entries, keys_of_cell in zip(maps, wanted, strict=True):
        expected += [first + entries.index(x) if x in entries else -1 for x in keys_of_cell]
        first += len(entries)
    assert positions.tolist() == expected


cell = st.lists(keys, max_size=12)


@both
@quick
@given(rows=st.lists(st.tuples(cell, cell), max_size=12), seed=seeds)
def test_find_keys(k, rows, seed):
    check_find(k, [row[0] for row in rows], [row[1] for row in rows], seed)


@both
@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 63, 64, 65, 66, 127, 128, 300])
def test_find_keys_in_maps_of_any_size(k, size):
    rng = random.Random(size)
    maps = [[b"%d" % rng.randrange(size + 1) for _ in range(size)] for _ in range(5)]
    wanted = [[b"%d" % rng.randrange(size + 3) for _ in range(n)] for n in (0, 1, 2, 20, size)]
    check_find(k, maps, wanted, size)


@both
def test_find_keys_of_equal_start(k):
    # The mark of a text holds 8 bytes and the lower 8 bits of the length.
    maps = [[b"12345678" + b"a" * n for n in (0, 1, 256, 257)], [b"\x00", b"", b"\x00\x00"]]
    wanted = [
        [b"12345678" + b"b", b"12345678" + b"a" * 256, b"12345678a", b"12345678"],
        [b"", b"\x00"],
    ]
    check_find(k, maps, wanted, 0)
    check_find(k, [[b"1234567" + bytes([8])], [b"\x00" * 8]], [[b"1234567"], [b""]], 0)


@both
def test_nothing(k):
    none = np.empty(0, dtype=np.int64)
    table = k.build_vocabulary(*lay_out([]), none)
    assert k.lookup_vocabulary(table, *lay_out([b"a", b""]), 9).tolist() == [9, 9]
    assert k.lookup_vocabulary(table, *lay_out([]), 9).tolist() == []
    assert len(k.find_keys(*cells([]), *cells([]))) == 0
    check_find(k, [[], [b"a"]], [[b"a"], []], 0)
    assert read(*lay_out([])) == []
