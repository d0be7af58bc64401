"""Generating offline and reading what was written gives what generating at once gives."""

import numpy as np

from tzrec.fg import FgHandler
from tzrec.fg.arrow_out import encoded, unbucketized
from tzrec.fg.encoded import (
    parse_fg_encoded_dense_feature_impl,
    parse_fg_encoded_sequence_dense_feature_impl,
    parse_fg_encoded_sequence_sparse_feature_impl,
    parse_fg_encoded_sparse_feature_impl,
)


def assert_same(wanted, found):
    assert list(found) == list(wanted)
    for name, one in wanted.items():
        for part in ("values", "lengths", "key_lengths", "weights"):
            left, right = getattr(one, part), getattr(found[name], part)
            assert (left is None) == (right is None), (name, part)
            if left is not None:
                assert left.dtype == right.dtype, (name, part)
                np.testing.assert_array_equal(left, right, f"{name} {part}")


def read_encoded(operator, column):
    """Reads a column as FG_NONE does."""
    spec, tail = operator.spec, operator.tail
    name = spec.name
    if tail.numeric and not tail.is_sparse:
        if spec.is_sequence:
            return parse_fg_encoded_sequence_dense_feature_impl(
                name, column, value_dim=spec.value_dim
            )
        return parse_fg_encoded_dense_feature_impl(name, column, value_dim=spec.value_dim or None)
    if spec.is_sequence:
        return parse_fg_encoded_sequence_sparse_feature_impl(name, column)
    weighted = bool(spec.options.get("weighted"))
    return parse_fg_encoded_sparse_feature_impl(name, column, is_weighted=weighted)


def check_two_steps(fg_json, columns, *, farm=False):
    """Compares both ways with generating at once; text that nothing makes ids of is left out."""
    handler = FgHandler(fg_json, farm_hash=farm)
    wanted = {
        name: parsed
        for name, parsed in handler.process_arrow(columns).items()
        if isinstance(parsed.values, np.ndarray)
    }
    written = encoded(handler, columns)
    operators = {operator.spec.name: operator for operator in handler.operators}
    found = {name: read_encoded(operators[name], written[name]) for name in wanted}
    assert_same(wanted, found)
    later = FgHandler(fg_json, bucketize_only=True, farm_hash=farm)
    found = later.process_arrow(unbucketized(handler, columns))
    assert_same(wanted, {name: found[name] for name in wanted})
