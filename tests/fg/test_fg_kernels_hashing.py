"""Hashes of text, integers and crosses, on both back ends."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from fg_kernels_help import both, cells, lay_out, nest, quick, read, seeds, tokens
from hypothesis import given
from hypothesis import strategies as st

from tzrec.fg.hashing import farm_fingerprint64, murmur_hash64a

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "fg_hash_vectors.jsonl"
INT64 = np.iinfo(np.int64)
HASHES = {False: murmur_hash64a, True: farm_fingerprint64}
bucket_counts = st.one_of(
    st.integers(1, 100),
    st.integers(1, 2**63 - 1),
    st.sampled_from([1, 2, 2**31, 2**32 + 1, 2**62, 2**63 - 2, 2**63 - 1]),
)

# Hashes of bytes (7 i + length) & 255, by length. The functions that gave them agree with
# all of the published vectors.
LITERALS = [
    (0, 0x553E93901E462A6E, 0x9AE16A3B2F90404F),
    (1, 0x3C27D9F591D20E49, 0x47A24C13B17E583E),
    (2, 0xC13E18DA5E527242, 0xF0C23B32303A63C2),
    (3, 0xC7EC7614121082B2, 0x40B4412E33EEFD64),
    (4, 0x532C6B165FBE8FB1, 0xC107EF4CFD78DE68),
    (5, 0x1DF4C0B94FEFE3B7, 0x84ECB798B403D75C),
    (7, 0x92AC540A388B74D0, 0xEF296BC3F2781108),
    (8, 0xE85675ABE5DC5AB2, 0xAF3C2FEAECFB8228),
    (9, 0x13D74C619FCD6937, 0xDC844B50EA30FA56),
    (12, 0x378F928810C7711E, 0xC6C812F1D8583338),
    (15, 0x38532BC3D3714103, 0x319E0DF4926DB491),
    (16, 0xEF2C058A7ABC3149, 0x8935C33C50C919D8),
    (17, 0xAE732CEA22A577C0, 0xEB5E445E8ED8468F),
    (20, 0xEAD638D7B0C91E2B, 0xFC38D3304FBBD965),
    (23, 0x868AD22503F9F198, 0x5042C3F57B57CBF8),
    (24, 0xEE29C192B9062DBD, 0x5A2808ECA044A527),
    (25, 0x6188E77BD647E6F2, 0xE5D363B67E1AE4DA),
    (31, 0x675E17044867E648, 0xA6E1AF36B767E2F2),
    (32, 0x42B849252196AFD0, 0x37679234EE53FB79),
    (33, 0x47E696A77AFB1294, 0xACE067CEEF8B7ACD),
    (40, 0xD08EF872D4327B94, 0xC99D4003D5C8BAC3),
    (48, 0x03A97739A533F1D4, 0x5AAB4DBFABD61F8E),
    (63, 0x852DDBCE99DB5A79, 0xD0B2A6646C271569),
    (64, 0x2E3CEBCADB954078, 0x99CEF40B2C6F98EC),
    (65, 0x0265661E158007B9, 0x062C410B763BEF3D),
    (96, 0x068AA0D6BB511949, 0x50A042A2ABDDB993),
    (100, 0x94AE198138E55832, 0x97FF1CB776A457AF),
    (127, 0x111D88A9BF2785E5, 0x523EBFD89D1C476C),
    (128, 0xC7CE29E3FCA5C6F1, 0xDBCEEBB7B5DB6DC9),
    (129, 0x91133959BC37CAE8, 0x4651AD82F97E3AC7),
    (192, 0xC2737B03D69297D6, 0x21FCDFC4E74EF3A2),
    (193, 0xAF97E07EDD60B396, 0xC00468F778B34A7A),
    (256, 0xE7328FC37E57020C, 0xA7FFC9EB6DB43723),
    (1000, 0x4414ECF47DAD06B4, 0xC3D452CFC7712240),
]


def literal(length):
    return bytes((7 * i + length) & 255 for i in range(length))


@pytest.mark.parametrize(("length", "murmur", "farm"), LITERALS)
def test_reference_literals(length, murmur, farm):
    assert murmur_hash64a(literal(length)) == murmur
    assert farm_fingerprint64(literal(length)) == farm


@both
@quick
@given(st.lists(st.tuples(tokens, bucket_counts), min_size=1, max_size=5), seeds, st.booleans())
def test_parts_of_several_sizes(k, parts, seed, farm):
    text = lay_out([token for part, _ in parts for token in part], seed)
    bounds = np.cumsum([0, *(len(part) for part, _ in parts)])
    sizes = np.array([buckets for _, buckets in parts], np.uint64)
    found = k.bucket_parts(*text, bounds, sizes, farm)
    assert found.dtype == np.int64
    expected = [HASHES[farm](token) % buckets for part, buckets in parts for token in part]
    assert found.tolist() == expected


@both
@pytest.mark.parametrize("farm", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_literals(k, farm, seed):
    text = lay_out([literal(length) for length, _, _ in LITERALS], seed)
    assert k.hash_text(*text, farm).tolist() == [row[2 if farm else 1] for row in LITERALS]


@both
@pytest.mark.skipif(not VECTORS.exists(), reason="needs ../shared/vectors")
@pytest.mark.parametrize(("farm", "name"), [(False, "default"), (True, "farm")])
def test_golden_vectors(k, farm, name):
    cases = [json.loads(line) for line in VECTORS.read_text(encoding="utf-8").splitlines()]
    text = lay_out([case["s"].encode() for case in cases], 1)
    assert k.hash_text(*text, farm).tolist() == [int(case[f"{name}_u64"]) for case in cases]
    for buckets in (100, 1000003, 2**63 - 1):
        expected = [case[f"{name}_mod"][str(buckets)] for case in cases]
        assert k.bucket_text(*text, buckets, farm).tolist() == expected


@both
@quick
@given(texts=tokens, seed=seeds, farm=st.booleans(), buckets=bucket_counts)
def test_hash_text(k, texts, seed, farm, buckets):
    expected = [HASHES[farm](text) for text in texts]
    text = lay_out(texts, seed)
    hashed, bucketed = k.hash_text(*text, farm), k.bucket_text(*text, buckets, farm)
    assert hashed.dtype == np.uint64
    assert hashed.tolist() == expected
    assert bucketed.dtype == np.int64
    assert bucketed.tolist() == [value % buckets for value in expected]


@both
@pytest.mark.parametrize("farm", [False, True])
def test_all_lengths_and_ends_of_the_buffer(k, farm):
    # Cut at each place, so that every length once stands at the very end.
    whole = np.frombuffer(bytes(range(1, 251)), dtype=np.uint8)
    for size in range(251):
        starts = np.arange(size + 1, dtype=np.int64)
        got = k.hash_text(whole[:size], starts, np.full(size + 1, size, dtype=np.int64), farm)
        if size % 10 == 0 or size < 70:
            assert got.tolist() == [HASHES[farm](whole[i:size].tobytes()) for i in range(size + 1)]


@both
@pytest.mark.parametrize("farm", [False, True])
def test_huge_tokens_and_many(k, farm):
    huge = bytes(range(256)) * 4096
    texts = [b"a", huge, b"", huge[:-3], b"\x00", b"\xff\xfe"]
    expected = [HASHES[farm](text) for text in texts]
    assert k.hash_text(*lay_out(texts, 3), farm).tolist() == expected
    many = [b"%d" % (i * 7919) for i in range(3000)] + [b"x" * 40] * 3
    expected = [HASHES[farm](text) for text in many]
    assert k.hash_text(*lay_out(many), farm).tolist() == expected


@pytest.mark.parametrize("name", ["remainder", "_vector_remainder"])
def test_remainder_near_the_borders(name):
    numba = pytest.importorskip("numba")
    from tzrec.fg.kernels import compiled_hashing

    function = getattr(compiled_hashing, name)
    remainder = numba.njit(lambda *args: function(*args))
    whole = 2**64 - 1
    for buckets in (1, 2, 3, 7, 2**32 - 1, 2**32, 2**33 + 1, 2**62 + 1, 2**63 - 1):
        near = [0, 1, buckets - 1, buckets, buckets + 1, 2 * buckets - 1, whole, whole - 1]
        near += [whole // buckets * buckets, whole // buckets * buckets - 1]
        for value in near:
            args = (np.uint64(value), np.uint64(buckets), np.uint64(whole // buckets))
            assert int(remainder(*args)) == value % buckets


@both
@quick
@given(
    values=st.lists(st.one_of(st.integers(INT64.min, INT64.max), st.integers(-1000, 1000))),
    farm=st.booleans(),
    buckets=bucket_counts,
)
def test_bucket_ints(k, values, farm, buckets):
    got = k.bucket_ints(np.array(values, dtype=np.int64), buckets, farm)
    assert got.tolist() == [HASHES[farm](b"%d" % value) % buckets for value in values]


@both
@quick
@given(prefix=st.binary(max_size=30), texts=tokens, seed=seeds, farm=st.booleans())
def test_bucket_prefixed(k, prefix, texts, seed, farm):
    got = k.bucket_prefixed(
        np.frombuffer(prefix, dtype=np.uint8), *lay_out(texts, seed), 10**6 + 3, farm
    )
    assert got.tolist() == [HASHES[farm](prefix + text) % (10**6 + 3) for text in texts]


@st.composite
def crosses(draw):
    num_parts, num_cells = draw(st.integers(1, 4)), draw(st.integers(0, 6))
    token = st.one_of(st.binary(max_size=10), st.binary(max_size=40))
    cell = st.lists(token, max_size=3)
    parts = st.lists(cell, min_size=num_cells, max_size=num_cells)
    return draw(st.lists(parts, min_size=num_parts, max_size=num_parts))


@both
@quick
@given(parts=crosses(), seed=seeds, farm=st.booleans(), buckets=bucket_counts)
def test_cross(k, parts, seed, farm, buckets):
    expected = [list(itertools.product(*row)) for row in zip(*parts, strict=True)]
    laid_out = tuple(cells(part, seed + i) for i, part in enumerate(parts))
    ids, lengths = k.bucket_cross(laid_out, buckets, farm)
    assert ids.dtype == np.int64
    hashed = [[HASHES[farm](b"_".join(c)) % buckets for c in cell] for cell in expected]
    assert nest(ids.tolist(), lengths) == hashed
    *text, lengths = k.cross_text(laid_out, ord("#"))
    assert nest(read(*text), lengths) == [[b"#".join(c) for c in cell] for cell in expected]


@both
@pytest.mark.parametrize("farm", [False, True])
def test_cross_of_every_pair_of_lengths(k, farm):
    letters = [bytes(range(65, 65 + length)) for length in range(40)]
    other = [bytes(range(130, 130 + length)) for length in range(40)]
    ids, lengths = k.bucket_cross((cells([letters]), cells([other])), 2**63 - 1, farm)
    assert lengths.tolist() == [1600]
    expected = [HASHES[farm](a + b"_" + b) % (2**63 - 1) for a in letters for b in other]
    assert ids.tolist() == expected


@both
def test_cross_too_large(k):
    many = (
        np.empty(0, dtype=np.uint8),
        *[np.zeros(70000, dtype=np.int64)] * 2,
        np.array([70000], dtype=np.int32),
    )
    with pytest.raises(OverflowError, match="combinations"):
        k.bucket_cross((many, many), 10, False)


@both
def test_nothing(k):
    none = lay_out([])
    assert len(k.hash_text(*none, False)) == 0
    assert len(k.bucket_text(*none, 5, True)) == 0
    assert len(k.bucket_ints(np.empty(0, dtype=np.int64), 5, False)) == 0
    ids, lengths = k.bucket_cross((cells([]), cells([])), 5, False)
    assert (len(ids), len(lengths)) == (0, 0)
    ids, lengths = k.bucket_cross((cells([[], [b"a"]]), cells([[b"b"], []])), 5, False)
    assert (ids.tolist(), lengths.tolist()) == ([], [0, 0])
