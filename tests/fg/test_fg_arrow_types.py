"""Arrow types that stand for others are read as these, on both back ends."""

import warnings
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from fg_layouts import chunked, sliced
from fg_rules import NUMBER_MAP, STRING_MAP, check, h, ids, raw, run

from tzrec.errors import FeatureError
from tzrec.fg.kernels import use_backend


@pytest.fixture(params=["numba", "numpy"], autouse=True)
def backend(request):
    use_backend(request.param)


@pytest.fixture
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_decimals():
    price = pa.array([Decimal("1.25"), None, Decimal("-3")], pa.decimal128(9, 2))
    check(raw(price), [1.25, 0, -3])
    check(ids(price), h("1.25", "-3"), [1, 0, 1])
    whole = pa.array([Decimal(12), None], pa.decimal256(40, 0))
    check(ids(whole), h("12"), [1, 0])
    with pytest.raises(FeatureError, match="feature f of c: column 'c' cannot be read"):
        ids(pa.array([Decimal(10**30)], pa.decimal128(38, 0)))


def test_runs():
    column = pc.run_end_encode(pa.array(["a", "a", None, "b"]))
    check(ids(column), h("a", "a", "b"), [1, 1, 0, 1])
    check(ids(column.slice(1, 2)), h("a"), [1, 0])
    check(raw(pc.run_end_encode(pa.array([1.5, 1.5]))), [1.5, 1.5])


class Tag(pa.ExtensionType):
    def __init__(self, storage):
        super().__init__(storage, "tests.tag")

    def __arrow_ext_serialize__(self):
        return b""


def test_extension_types():
    for storage in (pa.array(["a", None]), pa.array(["a", None]).dictionary_encode()):
        column = pa.ExtensionArray.from_storage(Tag(storage.type), storage)
        check(ids(column), h("a"), [1, 0])
    flat = pa.ExtensionArray.from_storage(Tag(pa.string()), pa.array(["a", "b", "c"]))
    check(ids(pa.ListArray.from_arrays([0, 2, 3], flat)), h("a", "b", "c"), [2, 1])


PAIRS = [[{"key": "a", "value": 0.5}, {"key": "b", "value": 2}], None, [], [{"key": "c"}]]
PAIR = pa.struct([("key", pa.string()), ("value", pa.float32())])
WEIGHTED = {"feature_type": "id_feature", "expression": "user:c", "weighted": True}


@pytest.mark.parametrize("of", [pa.list_, pa.large_list, pa.list_view], ids=lambda of: of.__name__)
def test_lists_of_pairs_are_maps(of):
    column = pa.array(PAIRS, of(PAIR))
    for layout in (column, sliced(column, 1, 1, None), chunked(column, [1])):
        found = run({**WEIGHTED, "hash_bucket_size": 100}, {"c": layout})
        check(found, h("a", "b"), [2, 0, 0, 0])
        assert found.weights.tolist() == [0.5, 2]


# Weighted ids with a separator of their own


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a:0.5,b:2\x1dc:1", None]),
        pa.array([["a:0.5", "b:2", "c:1"], []]),
        pa.array([[("a", 0.5), ("b", 2.0), ("c", 1.0)], None], NUMBER_MAP),
        pa.array([[("a", "0.5"), ("b", "2"), ("c", "1")], []], STRING_MAP),
    ],
    ids=["text", "list", "map", "text map"],
)
@pytest.mark.parametrize("later", [False, True], ids=["raw", "generated"])
def test_weighted_ids_are_split_at_the_separator(column, later):
    entry = {**WEIGHTED, "separator": ",", "hash_bucket_size": 100}
    found = run(entry, {"f" if later else "c": column}, bucketize_only=later)
    check(found, h("a", "b", "c"), [3, 0])
    assert found.weights.tolist() == [0.5, 2, 1]


# Numbers beyond float32


@pytest.mark.usefixtures("_no_warnings")
@pytest.mark.parametrize("column", [["1e300", "-1e300", "2"], [1e300, -1e300, 2.0]])
def test_numbers_beyond_float32_are_infinite(column):
    check(raw(column), [np.inf, -np.inf, 2])
    check(raw(column, boundaries=[0.0, 1.0]), [2, 0, 2], [1, 1, 1])
    check(raw(column, boundaries=[0.0, 1e300]), [2, 0, 1], [1, 1, 1])


@pytest.mark.usefixtures("_no_warnings")
def test_normalizers_give_inf_and_nan_as_ieee_754_does():
    ones = pa.array([1e30, 1.0, -1.0], pa.float32())
    of = {
        "method=zscore,mean=0,standard_deviation=1e-30": [np.inf, 1e30, -1e30],
        "method=minmax,min=0,max=1e-30": [np.inf, 1e30, -1e30],
        "method=log10,threshold=-5": [30, 0, np.nan],
        "method=expression,expr=x*1e30": [np.inf, 1e30, -1e30],
        "method=expression,expr=1/(x-1)": [1e-30, np.inf, -0.5],
    }
    for text, numbers in of.items():
        check(raw(ones, normalizer=text), numbers)


@pytest.mark.usefixtures("_no_warnings")
def test_weights_beyond_float32_are_infinite():
    found = run({**WEIGHTED, "hash_bucket_size": 100}, {"c": ["a:1e300"]})
    assert found.weights.tolist() == [np.inf]
