"""Numbers read from text and written as text, on both back ends."""

import math
import re
import struct
from decimal import Decimal

import numpy as np
import pytest
from fg_kernels_help import both, lay_out, quick, read, seeds
from hypothesis import given
from hypothesis import strategies as st

INT64 = np.iinfo(np.int64)
BLANKS = b" \t\n\r\v\f"
blanks = st.text(alphabet=BLANKS.decode(), max_size=2)
digits = st.text(alphabet="0123456789", max_size=25)
signs = st.sampled_from(["", "+", "-"])
integers = st.builds(lambda *parts: "".join(parts), blanks, signs, digits, blanks)
exponents = st.one_of(
    st.just(""), st.builds("{}{}{}".format, st.sampled_from("eE"), signs, st.integers(0, 400))
)
decimals = st.builds(
    lambda *parts: "".join(parts),
    *(blanks, signs, digits, st.sampled_from(["", "."]), digits, exponents, blanks),
)
names = ["nan", "NaN", "-NAN", "+nan", "inf", "-Inf", "infinity", "-INFINITY"]
names += ["in", "infi", "infinit", "nano", ".nan", "1nan", "inf1"]
words = st.sampled_from(names)
junk = st.one_of(
    st.text(alphabet="0123456789+-.eE \x00_xnaif\x1d٣", max_size=8), st.text(max_size=5), words
)
number_texts = st.lists(st.one_of(integers, decimals, junk), max_size=30)
any_float = st.floats(allow_nan=True, allow_infinity=True)


def encode(texts):
    return [text.encode("utf-8", "surrogatepass") for text in texts]


def bits(values):
    return [struct.pack("<d", value) if value == value else b"nan" for value in values]


def slow_int(text):
    if not re.fullmatch(rb"[+-]?[0-9]+", text.strip(BLANKS)):
        return 0, 1
    value = int(text.strip(BLANKS))
    return (value, 0) if INT64.min <= value <= INT64.max else (0, 2)


def slow_float(text):
    try:
        value = float(text)
    except ValueError:
        return 0.0, False
    return (0.0, False) if b"_" in text else (value, True)


@both
@quick
@given(texts=number_texts, seed=seeds)
def test_parse_ints(k, texts, seed):
    values, status = k.parse_ints(*lay_out(encode(texts), seed))
    assert (values.dtype, status.dtype) == (np.int64, np.uint8)
    expected = [slow_int(text) for text in encode(texts)]
    assert list(zip(values.tolist(), status.tolist(), strict=True)) == expected


@both
def test_parse_ints_at_the_limits(k):
    near = [INT64.max + d for d in range(-2, 3)] + [INT64.min + d for d in range(-2, 3)]
    texts = [b"%d" % value for value in [*near, 2**64, 2**64 + 1, 10**19, 10**20, -(10**19)]]
    texts += [b"-0", b"+0", b"000", b"0" * 4000 + b"7", b"1" * 10**6, b"-", b"+", b"", b" ", b"+-1"]
    values, status = k.parse_ints(*lay_out(texts))
    strict = [slow_int(text) if len(text) < 10**4 else (0, 2) for text in texts]
    assert list(zip(values.tolist(), status.tolist(), strict=True)) == strict


@both
@quick
@given(texts=number_texts, seed=seeds)
def test_parse_floats(k, texts, seed):
    values, good = k.parse_floats(*lay_out(encode(texts), seed))
    assert (values.dtype, good.dtype) == (np.float64, np.bool_)
    expected = [slow_float(text) for text in encode(texts)]
    assert good.tolist() == [fine for _, fine in expected]
    assert bits(values.tolist()) == bits(value for value, _ in expected)


@both
@quick
@given(values=st.lists(any_float, max_size=20), style=st.sampled_from(["%r", "%.17g", "%.3f"]))
def test_parse_floats_of_python(k, values, style):
    texts = [(style % value).encode() for value in values]
    got, good = k.parse_floats(*lay_out(texts))
    assert good.all()
    assert bits(got.tolist()) == bits(float(text) for text in texts)


@both
@quick
@given(
    parts=st.lists(st.tuples(st.integers(2**50, 2**64), st.integers(-24, 24)), max_size=50),
    below=st.integers(0, 2**40),
)
def test_parse_floats_of_many_digits(k, parts, below):
    texts = [b"%de%d" % part for part in parts]
    # Halfway between two neighbours, and one unit of the last place off.
    texts += [b"%d.%d" % (2**53 + 2 * below + 1, half) for half in (0, 1)]
    texts += [b"%de-1" % (10 * (2**53 + 2 * below + 1) + d) for d in (-1, 0, 1)]
    values, good = k.parse_floats(*lay_out(texts))
    assert good.all()
    assert values.tolist() == [float(text) for text in texts]


@both
def test_parse_many_floats(k):
    random = np.random.default_rng(3)
    numbers = random.random(20000) * 10.0 ** random.integers(-6, 15, 20000)
    texts = [repr(number).encode() for number in numbers.tolist()]
    values, _ = k.parse_floats(*lay_out(texts))
    assert values.tolist() == [float(text) for text in texts]


@both
def test_parse_hard_floats(k):
    texts = [b"9007199254740993", b"9007199254740992.5", b"1e23", b"8.5e22", b"1e-22", b"1e22"]
    texts += [b"4.9e-324", b"2.4e-324", b"1.7976931348623157e308", b"1.8e308", b"-1e999999999999"]
    texts += [b"1e-999999999999", b"0e999999", b"-0.0", b".5", b"5.", b".", b"e5", b"1e", b"1e+"]
    texts += [b"0" * 500 + b"." + b"0" * 500 + b"1e501", b"1" * 400, b"0." + b"1" * 10**5]
    texts += [b"123456789012345678901234567890e-20", b"0.000000000000000000000000000001e30"]
    values, good = k.parse_floats(*lay_out(texts))
    expected = [slow_float(text) for text in texts]
    assert good.tolist() == [fine for _, fine in expected]
    assert bits(values.tolist()) == bits(value for value, _ in expected)


@both
@quick
@given(values=st.lists(st.one_of(st.integers(INT64.min, INT64.max), st.integers(-200, 200))))
def test_format_ints(k, values):
    assert read(*k.format_ints(np.array(values, dtype=np.int64))) == [b"%d" % v for v in values]


@both
def test_format_ints_of_every_length(k):
    values = [sign * (10**n + d) for n in range(19) for d in (-1, 0, 1) for sign in (1, -1)]
    values += [INT64.min, INT64.max, INT64.min + 1]
    assert read(*k.format_ints(np.array(values, dtype=np.int64))) == [b"%d" % v for v in values]


short_floats = st.builds(lambda m, d: m / 10**d, st.integers(-(10**16), 10**16), st.integers(0, 20))


@both
@quick
@given(values=st.lists(st.one_of(any_float, short_floats, st.integers(-5, 5).map(float))))
def test_format_floats(k, values):
    expected = [repr(value).removesuffix(".0").encode() for value in values]
    assert read(*k.format_floats(np.array(values, dtype=np.float64))) == expected


def slow_float32(value):
    """Gives the shortest digits the form of Python's repr."""
    if not np.isfinite(value):
        return str(value).encode()
    mantissa, exponent = np.format_float_scientific(value, unique=True).split("e")
    if -4 <= int(exponent) < 16:
        text = format(Decimal(f"{mantissa}e{exponent}"), "f")
        return (text.rstrip("0").rstrip(".") if "." in text else text).encode()
    return f"{mantissa.rstrip('.')}e{int(exponent):+03d}".encode()


@both
@quick
@given(values=st.lists(st.one_of(any_float, short_floats), max_size=40))
def test_format_floats32(k, values):
    with np.errstate(over="ignore"):
        singles = np.array(values, dtype=np.float64).astype(np.float32)
    assert read(*k.format_floats32(singles)) == [slow_float32(v) for v in singles]


@both
@pytest.mark.parametrize("kind", ["bits", "cents", "powers", "near whole"])
def test_format_many_floats(k, kind):
    random = np.random.default_rng(5)
    if kind == "bits":
        singles = random.integers(0, 2**32, 20000, dtype=np.uint32).view(np.float32)
        singles = singles[np.isfinite(singles)]
    elif kind == "cents":
        singles = (random.integers(0, 10**7, 20000) / 10.0 ** random.integers(0, 9, 20000)).astype(
            "f4"
        )
    elif kind == "powers":
        powers = np.ldexp(1.0, np.arange(-140, 126)).astype(np.float32)
        singles = np.concatenate(
            [powers, np.nextafter(powers, np.float32(0)), np.nextafter(powers, np.float32(3e38))]
        )
    else:
        singles = np.nextafter(random.integers(1, 10**8, 20000).astype(np.float32), np.float32(0))
    assert read(*k.format_floats32(singles)) == [slow_float32(v) for v in singles]
    doubles = singles.astype(np.float64)
    expected = [repr(value).removesuffix(".0").encode() for value in doubles.tolist()]
    assert read(*k.format_floats(doubles)) == expected


@both
def test_special_floats(k):
    values = np.array(
        [0.0, -0.0, 5.0, -5.0, 1e15, 1e16, 1e-4, 1e-5, 0.1, math.inf, -math.inf, math.nan]
    )
    expected = b"0 -0 5 -5 1000000000000000 1e+16 0.0001 1e-05 0.1 inf -inf nan".split()
    assert read(*k.format_floats(values)) == expected
    assert read(*k.format_floats32(values.astype(np.float32))) == expected


@both
def test_nothing(k):
    none = lay_out([])
    assert [len(part) for part in k.parse_ints(*none)] == [0, 0]
    assert [len(part) for part in k.parse_floats(*none)] == [0, 0]
    assert read(*k.format_ints(np.empty(0, dtype=np.int64))) == []
    assert read(*k.format_floats(np.empty(0))) == []
    assert read(*k.format_floats32(np.empty(0, dtype=np.float32))) == []
