"""What the property tests of feature generation share: columns of every layout, the comparison."""

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from fg_layouts import chunked, sliced
from fg_reference import generate, is_numeric, is_sequence, kind_of
from fg_reference_values import F32, BadValueError, Map
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from tzrec.errors import FeatureError
from tzrec.fg import FgHandler
from tzrec.fg.kernels import use_backend

quick = settings(
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
backends = pytest.mark.parametrize("backend", ["numba", "numpy"])

# Bytes that are no UTF-8 come as surrogates, as Python's ``surrogateescape`` writes them.
WORDS = ("a", "b", "ab", "", "1", "02", "-3", "é", "中文", "😀", "a\x00", "\udcff", "p:q", "x" * 20)
WORD = st.sampled_from(WORDS)
NUMBERS = ("0", "1", "2.5", "-3", "1e2", " 7 ", "+4", "0.125", "003", "inf")
TEXT_TYPES = (
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.dictionary(pa.int32(), pa.string()),
)
LISTS = (pa.list_, pa.large_list, pa.list_view)


@dataclass
class Column:
    """Rows as Python values, and the Arrow type family: text, int, float, double, bool, map or a
    list of one of these, as a tuple ``("list", of)``."""

    rows: list[Any]
    family: Any

    def arrow(self, seed: int) -> Any:
        """The column in some layout that the seed chooses."""
        rng = random.Random(seed)
        kind = arrow_type(self.family, rng)
        array = make(self.rows, kind)
        if len(self.rows) and rng.random() < 0.4:
            array = sliced(array, rng.randrange(3), rng.randrange(2), None)
        if rng.random() < 0.3:
            cut = rng.randrange(len(self.rows) + 1)
            array = chunked(array, [cut])
        return array


def arrow_type(family, rng):
    if isinstance(family, tuple):
        outer, inner = family
        if outer == "map":
            return pa.map_(arrow_type(inner[0], rng), arrow_type(inner[1], rng))
        return rng.choice(LISTS)(arrow_type(inner, random.Random(0)))
    if family == "text":
        return rng.choice(TEXT_TYPES)
    return {
        "int": rng.choice((pa.int64(), pa.int32())),
        "float": pa.float32(),
        "double": pa.float64(),
        "bool": pa.bool_(),
    }[family]


def make(rows, kind):
    """`pa.array` that takes text with bytes that are no UTF-8, and encodes dictionaries."""
    if pa.types.is_dictionary(kind):
        return make(rows, kind.value_type).dictionary_encode()
    if pa.types.is_string_view(kind):
        return make(rows, pa.string()) if any(map(is_broken, rows)) else pa.array(rows, kind)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        raw = [None if t is None else t.encode("utf-8", "surrogateescape") for t in rows]
        large = pa.types.is_large_string(kind)
        return pa.array(raw, pa.large_binary() if large else pa.binary()).view(kind)
    if pa.types.is_map(kind):
        flat = [pair for row in rows if row is not None for pair in row]
        keys, items = ([pair[i] for pair in flat] for i in (0, 1))
        parts = make(keys, kind.key_type), make(items, kind.item_type)
        return pa.MapArray.from_arrays(offsets_of(rows), *parts)
    if hasattr(kind, "value_type"):
        flat = make([value for row in rows if row is not None for value in row], kind.value_type)
        large = pa.types.is_large_list(kind)
        of = pa.LargeListArray if large else pa.ListArray
        if pa.types.is_list_view(kind):
            sizes = [len(row or ()) for row in rows]
            mask = pa.array([row is None for row in rows])
            starts = np.cumsum([0, *sizes])[: len(rows)].astype(np.int32)
            views = pa.ListViewArray.from_arrays(starts, pa.array(sizes, pa.int32()), flat)
            return pc.if_else(mask, pa.scalar(None, views.type), views) if any(mask) else views
        return of.from_arrays(offsets_of(rows, large), flat)
    return pa.array(rows, kind)


def offsets_of(rows, large=False):
    ends, total = [], 0
    for row in rows:
        ends.append(None if row is None else total)
        total += len(row or ())
    return pa.array([*ends, total], pa.int64() if large else pa.int32())


def is_broken(text):
    return text is not None and any("\ud800" <= char <= "\udfff" for char in text)


# Strategies of columns; `size` rows each


def rows(cell, size):
    return st.lists(st.one_of(st.none(), cell), min_size=size, max_size=size)


def text_cells(words, separators):
    joined = st.lists(st.tuples(words, st.sampled_from(separators)), max_size=4)
    return joined.map(lambda parts: "".join(word + sep for word, sep in parts))


def floats32():
    values = st.floats(-1e6, 1e6, width=32) | st.sampled_from([0.0, 1.0, 2.5])
    return values.map(F32)


def scalars(family):
    return {
        "int": st.integers(-(2**31), 2**31 - 1) | st.integers(0, 5),
        "float": floats32(),
        "double": st.floats(-1e6, 1e6),
        "bool": st.booleans(),
    }[family]


def column(cell, family, size):
    return rows(cell, size).map(lambda values: Column(values, family))


def texts(size, words=WORD, separators=("\x1d", "|")):
    return column(text_cells(words, separators), "text", size)


def single_texts(size, words):
    """Each row one of the words, or nothing."""
    return column(st.one_of(st.just(""), words), "text", size)


def text_lists(size, words=WORD):
    return column(st.lists(st.one_of(st.none(), words), max_size=3), ("list", "text"), size)


def numbers(size, family):
    return column(scalars(family), family, size)


def number_lists(size, family):
    return column(st.lists(scalars(family), max_size=3), ("list", family), size)


def nested_lists(size, words=WORD):
    inner = st.one_of(st.none(), st.lists(words, max_size=2))
    return column(st.lists(inner, max_size=3), ("list", ("list", "text")), size)


def maps(size, key, value, families):
    cells = st.lists(st.tuples(key, value), max_size=5).map(Map)
    return column(cells, ("map", families), size)


def columns_of(size, *, sequence, words=WORD):
    """Columns of every family that a discrete feature reads."""
    separators = ("\x1d", "|", ";") if sequence else ("\x1d", "|")
    kinds = [texts(size, words, separators), text_lists(size, words), number_lists(size, "int")]
    kinds += [numbers(size, family) for family in ("int", "float", "double", "bool")]
    kinds += [nested_lists(size, words)] if sequence else []
    return st.one_of(*kinds)


# The comparison


def check(entry, columns, backend, seed, *, farm=False, group=None):
    """Compares `FgHandler` with the reference on one entry, in some layout of the columns."""
    python = {name: column.rows for name, column in columns.items()}
    arrow = {name: column.arrow(seed + i) for i, (name, column) in enumerate(columns.items())}
    fg_json, name = {"features": [entry]}, entry["feature_name"]
    if group:
        own = {
            k: v
            for k, v in entry.items()
            if not k.startswith("sequence_") or k == "sequence_fields"
        }
        own["feature_type"] = kind_of(entry)
        fg_json = {
            "features": [
                {
                    "sequence_name": group,
                    "sequence_delim": entry["sequence_delim"],
                    "sequence_length": entry["sequence_length"],
                    "features": [own],
                }
            ]
        }
        inputs = FgHandler(fg_json).columns
        arrow = {n: arrow[n.removeprefix(f"{group}__")] for n in inputs}
        name = f"{group}__{name}"
    use_backend(backend)
    handler = FgHandler(fg_json, farm_hash=farm)
    try:
        first = next(iter(columns.values()))
        of_numbers = first.family in ("int", "float", "double", "bool")
        expected = generate(entry, python, farm=farm, of_numbers=of_numbers)
        check_dense(entry, expected)
    except BadValueError:
        with pytest.raises(FeatureError):
            handler.process_arrow(arrow)
        return
    compare(handler.process_arrow(arrow)[name], entry, expected)


def check_dense(entry, expected):
    """Raises where a dense feature would get rows of different lengths."""
    numeric = is_numeric(entry, kind_of(entry)) and not entry_has_ids(entry)
    sizes = {len(values) for row in expected for values, _ in row}
    if numeric and len(sizes) > 1:
        raise BadValueError(sizes)


def entry_has_ids(entry):
    return any(
        entry.get(k)
        for k in ("hash_bucket_size", "vocab_list", "vocab_dict", "num_buckets", "boundaries")
    )


def compare(found, entry, expected):
    cells = [cell for row in expected for cell in row]
    values = [value for cell in cells for value in cell[0]]
    if entry_has_ids(entry):
        assert found.values.dtype == np.int64
        assert found.values.tolist() == values
        lengths = found.key_lengths if is_sequence(entry) else found.lengths
        assert lengths.tolist() == [len(cell[0]) for cell in cells]
        if entry.get("weighted"):
            wanted = np.array([w for cell in cells for w in cell[1]], np.float32)
            np.testing.assert_array_equal(found.weights, wanted)
    else:
        assert found.values.dtype == np.float32
        assert found.values.shape[0] == len(cells)
        wanted = np.array(values, np.float64).reshape(found.values.shape)
        with np.errstate(over="ignore"):
            np.testing.assert_allclose(
                found.values, wanted.astype(np.float32), rtol=3e-6, atol=1e-6
            )
    if is_sequence(entry):
        assert found.lengths.dtype == np.int32
        assert found.lengths.tolist() == [len(row) for row in expected]


# Options

SIZES = st.sampled_from([0, 1, 2, 3, 5])
SEEDS = st.integers(0, 999)
FORMS = st.sampled_from(["plain", "alone", "grouped"])
BUCKETIZERS = st.sampled_from(
    [
        {"hash_bucket_size": 7},
        {"hash_bucket_size": 2**63 - 1},
        {"vocab_list": ["a", "b", "1", "a"], "default_bucketize_value": 3},
        {"vocab_dict": {"a": 4, "é": 2, "0": 0}, "default_bucketize_value": 1},
        {"vocab_dict": {"ab": 1}},
    ]
)
DEFAULTS = st.sampled_from(["", "a", "0", "zz", "a|b"])
SEPARATORS = st.sampled_from(["\x1d", "|"])
NUMBER = st.sampled_from(NUMBERS)


def shaped(draw, entry):
    """Makes an entry plain, a stand-alone sequence, or one of a group, as drawn."""
    form = draw(FORMS)
    if form == "plain":
        return entry, None
    kind = entry["feature_type"]
    entry["feature_type"] = kind if kind == "bool_mask_feature" else f"sequence_{kind}"
    entry["sequence_delim"] = ";"
    entry["sequence_length"] = draw(st.sampled_from([0, 1, 2]))
    return entry, "s" if form == "grouped" else None
