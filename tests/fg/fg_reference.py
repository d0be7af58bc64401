"""Feature generation row by row in plain Python, written from the rules; slow and simple.

`generate(entry, columns)` computes one entry of ``fg.json``. Columns are lists of Python values:
None, str, int, float, bool, lists of these, and ``Map`` for map columns (pairs in order). Floats
are Python floats unless a column is marked as float32 by `F32`.

A result has per row a list of cells (one, or the steps of a sequence), each ``(values, weights)``.
"""

import math
import re

import numpy as np
from fg_reference_operators import OPERATORS
from fg_reference_values import (
    F32,
    GS,
    BadValueError,
    as_number,
    is_missing,
    split,
    text_of,
)

from tzrec.fg.hashing import farm_fingerprint64, murmur_hash64a

# Steps


def is_sequence(entry):
    return entry["feature_type"].startswith("sequence_") or any(
        key in entry for key in ("is_sequence", "sequence_length", "sequence_delim")
    )


def kind_of(entry):
    return entry["feature_type"].removeprefix("sequence_")


def input_is_sequence(entry, kind, side, name):
    if not is_sequence(entry) or side == "const":
        return False
    if entry.get("sequence_fields"):
        return name in entry["sequence_fields"]
    single = ("id_feature", "raw_feature", "tokenize_feature", "combine_feature")
    return kind in (*single, "regex_replace_feature") or side == "item"


def steps(value, delim):
    """The steps of one row, each what a cell of a plain column may be."""
    if is_missing(value):
        return []
    if isinstance(value, str):
        return value.split(delim)
    if isinstance(value, list):
        return value
    return [value]


def aligned(entry, kind, expressions, columns):
    """Returns per row the list of cells, a cell being the tuple of the inputs' values."""
    inputs = []
    for expression in expressions:
        side, _, name = expression.partition(":")
        column = [name] if side == "const" else columns[name]
        inputs.append((column, input_is_sequence(entry, kind, side, name)))
    sizes = {len(column) for column, _ in inputs if len(column) != 1}
    assert len(sizes) <= 1
    size = sizes.pop() if sizes else 1
    rows = []
    for row in range(size):
        cells = []
        for column, sequence in inputs:
            value = column[0] if len(column) == 1 else column[row]
            if sequence:
                value = steps(value, entry.get("sequence_delim", ";"))
                most = entry.get("sequence_length", 0)
                value = value[:most] if most else value
            cells.append((value, sequence))
        if not is_sequence(entry):
            rows.append([tuple(value for value, _ in cells)])
            continue
        count = max((len(value) for value, sequence in cells if sequence), default=1)
        rows.append([tuple(step(*cell, i) for cell in cells) for i in range(count)])
    return rows


def step(value, sequence, i):
    if not sequence:
        return value
    if len(value) == 1:
        return value[0]
    return value[i] if i < len(value) else None


def expressions_of(entry, kind):
    if kind == "lookup_feature":
        return [entry["map"], entry["key"]]
    if kind == "match_feature":
        return [entry["user"], *(k for k in (entry["category"], entry["item"]) if k != "ALL")]
    if kind in ("kv_dot_product", "overlap_feature"):
        return [entry["query"], entry.get("document", entry.get("title"))]
    if kind == "expr_feature":
        return entry["variables"]
    expression = entry["expression"]
    return [expression] if isinstance(expression, str) else expression


# The tail


def whole_number(value):
    """What num_buckets makes of a value: the number, or None where there is none in 64 bits."""
    if isinstance(value, str):
        if not re.fullmatch(r"[ \t-\r]*[+-]?[0-9]+[ \t-\r]*", value):
            raise BadValueError(value)
        return int(value)
    if not math.isfinite(value):
        return None
    return int(value)


def bucketizer_of(entry):
    kinds = ("hash_bucket_size", "vocab_list", "vocab_dict", "num_buckets", "boundaries")
    return next((kind for kind in kinds if entry.get(kind)), None)


def bucketize(entry, value, *, prefix="", farm=False):
    kind = bucketizer_of(entry)
    if kind == "boundaries":
        x = np.float32(as_number(value) if isinstance(value, str) else value)
        bounds = np.array(entry["boundaries"], np.float32)
        return len(bounds) if np.isnan(x) else int(sum(bounds <= x))
    if kind == "num_buckets":
        found = whole_number(value)
        return found if found is not None and 0 <= found < entry[kind] else 0
    text = prefix + text_of(plain(value))
    if kind == "hash_bucket_size":
        hashed = farm_fingerprint64 if farm else murmur_hash64a
        return hashed(text.encode("utf-8", "surrogateescape")) % entry[kind]
    oov = entry.get("default_bucketize_value", 1)
    if kind == "vocab_dict":
        return {str(k): v for k, v in entry[kind].items()}.get(text, oov)
    return {str(word): i for i, word in enumerate(entry[kind])}.get(text, oov)


def plain(value):
    if isinstance(value, np.float32):
        return F32(value)
    return float(value) if isinstance(value, np.float64) else value


def is_numeric(entry, kind):
    if kind in ("raw_feature", "combine_feature", "kv_dot_product", "overlap_feature"):
        return True
    if kind in ("expr_feature",):
        return True
    if kind == "lookup_feature":
        return entry.get("value_type") != "string"
    if kind == "match_feature":
        return not entry.get("needDiscrete")
    if kind == "custom_feature":
        return entry.get("value_type") != "string"
    return False


def dim_of(entry, kind):
    """Values of a numeric cell, or the most values of another one; 0 = any number."""
    if kind in ("overlap_feature", "kv_dot_product"):
        return 1
    if is_numeric(entry, kind) and kind == "lookup_feature":
        return 1 if entry.get("combiner", "sum") and not entry.get("needDiscrete") else 0
    if is_numeric(entry, kind) and kind == "match_feature":
        return 0 if "ALL" in (entry["category"], entry["item"]) else 1
    if kind == "lookup_feature":
        return 0
    one = is_sequence(entry) or kind in ("raw_feature", "regex_replace_feature")
    return entry.get("value_dim", 1 if one else 0)


def default_of(entry, kind, *, from_number, farm):
    """The values of a missing cell: final ids or numbers."""
    text, bucketizer = str(entry.get("default_value", "")), bucketizer_of(entry)
    numeric = is_numeric(entry, kind)
    zero = kind in ("overlap_feature", "kv_dot_product") or is_sequence(entry)
    if not text and (zero or (numeric and bucketizer is None)):
        text = "0"
    if not text and numeric and from_number:
        text = "0"
    if not text:
        return []
    if not numeric:
        return [bucketize(entry, text, farm=farm)]
    numbers = [float(part) for part in split(text, entry.get("separator", GS))]
    dim = dim_of(entry, kind) or len(numbers)
    numbers = numbers * dim if len(numbers) == 1 else numbers
    return numbers if bucketizer is None else [bucketize(entry, np.float64(n)) for n in numbers]


def generate(entry, columns, *, farm=False, of_numbers=False):
    """Returns the rows of a feature, see the module; raises BadValueError.

    ``of_numbers`` says that the first column has one number per row.
    """
    kind = kind_of(entry)
    expressions = expressions_of(entry, kind)
    rows = []
    dim, numeric = dim_of(entry, kind), is_numeric(entry, kind)
    prefix = f"{entry['feature_name']}_"
    named = entry.get("need_prefix") or kind == "match_feature"
    named = named and bucketizer_of(entry) == "hash_bucket_size"
    for cells in aligned(entry, kind, expressions, columns):
        row = []
        for cell in cells or [None]:
            values = [] if cell is None else OPERATORS[kind](entry, cell)
            if numeric and dim and len(values) not in (0, dim):
                raise BadValueError(values)
            if not numeric and dim:
                values = values[:dim]
            ids = [pair for pair in values if isinstance(pair, tuple)]
            weights = [w for _, w in ids]
            values = [k for k, _ in ids] if ids else values
            if bucketizer_of(entry):
                before = prefix if named else ""
                values = [bucketize(entry, v, prefix=before, farm=farm) for v in values]
            if not values:
                numbers = kind == "raw_feature" and not is_sequence(entry) and of_numbers
                values = default_of(entry, kind, from_number=numbers, farm=farm)
                weights = [1.0] * len(values)
            row.append((values, weights))
        rows.append(row)
    return rows
