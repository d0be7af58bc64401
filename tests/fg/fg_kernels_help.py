"""What the tests of the kernels share: the two back ends, and texts laid out in a buffer."""

import importlib.util
import random

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from tzrec.fg.kernels import plain

backends = [pytest.param(plain, id="numpy")]
if importlib.util.find_spec("numba"):
    compiled = importlib.import_module("tzrec.fg.kernels.compiled")
    backends.append(pytest.param(compiled, id="numba"))
both = pytest.mark.parametrize("k", backends)
quick = settings(max_examples=60, deadline=None)

anything = st.binary(max_size=80)
# Few different bytes, so that separators, digits and equal texts come up.
awkward = st.text(alphabet="|\x1d:,_\x000123456789.eE+- \tnaif€", max_size=40).map(str.encode)
tokens = st.lists(st.one_of(anything, awkward), max_size=40)
seeds = st.integers(0, 2**32 - 1)


def lay_out(texts, seed=0):
    """Returns read-only (data, starts, ends); by the seed also with gaps and out of order."""
    rng = random.Random(seed)
    loose = rng.random() < 0.5
    order = list(range(len(texts)))
    if loose:
        rng.shuffle(order)
    buffer, places = bytearray(b"?" * rng.randrange(4)), [(0, 0)] * len(texts)
    for i in order:
        places[i] = (len(buffer), len(buffer) + len(texts[i]))
        buffer += texts[i]
        if loose:
            buffer += rng.randbytes(rng.randrange(3))
    data = np.frombuffer(bytes(buffer), dtype=np.uint8)
    bounds = np.array(places, dtype=np.int64).reshape(-1, 2)
    return data, bounds[:, 0].copy(), bounds[:, 1].copy()


def read(data, starts, ends):
    """Returns the tokens as bytes."""
    assert starts.dtype == ends.dtype == np.int64
    assert data.dtype == np.uint8
    pairs = zip(starts.tolist(), ends.tolist(), strict=True)
    return [data[start:end].tobytes() for start, end in pairs]


def cells(nested, seed=0):
    """Returns (data, starts, ends, lengths) of a list of lists of texts."""
    flat = [text for cell in nested for text in cell]
    return *lay_out(flat, seed), lengths_of(nested)


def lengths_of(nested):
    return np.array([len(cell) for cell in nested], dtype=np.int32)


def nest(flat, lengths):
    """Returns the list of lists that ``flat`` and ``lengths`` describe."""
    assert lengths.dtype == np.int32
    ends = np.cumsum(lengths).tolist()
    assert (ends[-1] if ends else 0) == len(flat)
    return [flat[end - n : end] for end, n in zip(ends, lengths.tolist(), strict=True)]
