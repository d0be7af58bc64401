"""Rules of sequences, features that read features, and modes on literal cases."""

import numpy as np
import pyarrow as pa
import pytest
from fg_rules import GS, check, grouped, h, run, steps

from tzrec.fg import FgHandler
from tzrec.fg.kernels import use_backend


@pytest.fixture(params=["numba", "numpy"], autouse=True)
def backend(request):
    use_backend(request.param)
    yield
    use_backend(None)


# Sequences (§9)


def test_empty_steps_are_kept():
    found = steps(["c||a|b|b|"], sequence_delim="|")
    check(found, h("c", "0", "a", "b", "b", "0"), [6], [1] * 6)


def test_row_without_steps_has_one_default_step():
    check(steps(["a;b", None, ""]), h("a", "b", "0", "0"), [2, 1, 1], [1] * 4)
    check(steps([["a"], [], None]), h("a", "0", "0"), [1, 1, 1], [1] * 3)
    check(steps(["a", None], default_value=""), h("a", "0"), [1, 1], [1, 1])


def test_first_value_of_a_step_or_all():
    column = [f"a{GS}b;c"]
    check(steps(column), h("a", "c"), [2], [1, 1])
    check(steps(column, value_dim=0), h("a", "b", "c"), [2], [2, 1])


def test_steps_in_lists_are_split_values_of_inner_lists_are_not():
    check(steps([[f"a{GS}b", "c"]], value_dim=0), h("a", "b", "c"), [2], [2, 1])
    check(steps([[["a", "b"], [f"c{GS}d"]]], value_dim=0), h("a", "b", f"c{GS}d"), [2], [2, 1])
    check(steps(pa.array([[[]]], pa.list_(pa.list_(pa.string())))), h("0"), [1], [1])


def test_numbers_are_steps():
    check(steps([[1, 2], [3]]), h("1", "2", "3"), [2, 1], [1] * 3)
    check(steps([7, None]), h("7", "0"), [1, 1], [1, 1])


def test_sequence_length_keeps_the_head():
    check(steps(["a;b;c", "d"], sequence_length=2), h("a", "b", "d"), [2, 1], [1] * 3)


def test_sequence_of_numbers():
    entry = {
        "feature_type": "sequence_raw_feature",
        "expression": "user:c",
        "sequence_delim": ";",
        "default_value": "7",
    }
    check(run({**entry}, {"c": ["1;;2.5", None]}), [1, 7, 2.5, 7], [3, 1])
    vectors = {**entry, "value_dim": 2, "separator": "|"}
    check(run(vectors, {"c": ["1|2;3|4", None]}), [1, 2, 3, 4, 7, 7], [2, 1])
    check(run({**entry, "boundaries": [2.0]}, {"c": ["1;9"]}), [0, 1], [2], [1, 1])


def test_grouped_sequence_reads_its_columns():
    entry = {
        "feature_type": "id_feature",
        "expression": "item:c",
        "hash_bucket_size": 100,
        "default_value": "0",
    }
    check(grouped(entry, {"s__c": ["a|b"]}, delim="|"), h("a", "b"), [2], [1, 1])
    check(grouped(entry, {"s__c": ["a;b;c"]}, length=2), h("a", "b"), [2], [1, 1])


def test_plain_inputs_are_repeated_for_each_step():
    entry = {
        "feature_type": "combo_feature",
        "expression": ["user:u", "item:c"],
        "hash_bucket_size": 100,
        "default_value": "0",
    }
    columns = {"u": ["x", "y"], "s__c": ["a;b", None]}
    check(grouped(entry, columns), h("x_a", "x_b", "0"), [2, 1], [1] * 3)


def test_a_sequence_without_sequences_has_one_step_per_row():
    entry = {
        "feature_type": "combo_feature",
        "expression": ["user:a", "user:b"],
        "hash_bucket_size": 100,
        "default_value": "0",
    }
    columns = {"a": ["x", None], "b": ["y", "z"]}
    check(grouped(entry, columns), h("x_y", "0"), [1, 1], [1, 1])


def test_sequence_fields_say_what_is_a_sequence():
    entry = {
        "feature_type": "combo_feature",
        "expression": ["user:u", "item:c"],
        "sequence_fields": ["u"],
        "hash_bucket_size": 100,
        "default_value": "0",
    }
    check(grouped(entry, {"s__u": ["x;y"], "c": ["a"]}), h("x_a", "y_a"), [2], [1, 1])


def test_shorter_sequences_are_filled_up_one_step_is_repeated():
    entry = {
        "feature_type": "combo_feature",
        "expression": ["item:a", "item:b", "item:c"],
        "hash_bucket_size": 100,
        "default_value": "0",
    }
    columns = {"s__a": ["1;2;3"], "s__b": ["x"], "s__c": ["p;q"]}
    check(grouped(entry, columns), h("1_x_p", "2_x_q", "0"), [3], [1] * 3)


# Features that read features (§12), masks, modes (§13)


def dag(*entries, **columns):
    arrays = {n: c if isinstance(c, pa.Array) else pa.array(c) for n, c in columns.items()}
    return FgHandler({"features": list(entries)}).process_arrow(arrays)


def test_a_feature_reads_ids_of_another_in_any_order():
    crossed = {
        "feature_type": "combo_feature",
        "feature_name": "x",
        "expression": ["feature:age", "user:c"],
        "hash_bucket_size": 100,
    }
    age = {
        "feature_type": "raw_feature",
        "feature_name": "age",
        "expression": "user:age",
        "boundaries": [18.0, 30.0],
        "stub_type": True,
    }
    found = dag(crossed, age, age=[20, 50], c=["p", "q"])
    assert list(found) == ["x"]
    check(found["x"], h("1_p", "2_q"), [1, 1])


def test_text_and_numbers_without_bucketizer_are_read():
    stub = {
        "feature_type": "lookup_feature",
        "feature_name": "l",
        "map": "user:m",
        "key": "item:k",
        "value_type": "string",
        "needDiscrete": True,
        "combiner": "",
        "default_value": "0,0",
        "stub_type": True,
    }
    raw_of = {
        "feature_type": "raw_feature",
        "feature_name": "f",
        "expression": "feature:l",
        "separator": ",",
        "value_dim": 2,
    }
    check(dag(stub, raw_of, m=["a:1,2", "b:3,4"], k=["a", "a"])["f"], [1, 2, 0, 0])


def test_a_sequence_read_by_a_plain_feature_is_one_list():
    sequence = {
        "feature_type": "sequence_id_feature",
        "feature_name": "s",
        "expression": "user:s",
        "default_value": "0",
        "sequence_delim": ";",
        "stub_type": True,
    }
    crossed = {
        "feature_type": "combo_feature",
        "feature_name": "x",
        "expression": ["feature:s", "item:i"],
        "hash_bucket_size": 100,
    }
    found = dag(sequence, crossed, s=["10;11;12", "7;", None], i=[1, 1, 1])["x"]
    check(found, h("10_1", "11_1", "12_1", "7_1", "0_1", "0_1"), [3, 2, 1])


UPPER = {"feature_type": "text_normalizer", "parameter": 4, "expression": "user:m"}
FROM_MAP = {"feature_name": "f", "separator": "+", "value_type": "float", "default_value": "-1"}


@pytest.mark.parametrize("separator", ["+", "\x1d", ":"])
def test_a_map_made_by_a_feature_is_split_like_a_column(separator):
    """Entries end where they end in a column of text; ``separator`` splits keys."""
    stub = {**UPPER, "feature_name": "m", "stub_type": True}
    match = {
        **FROM_MAP,
        "feature_type": "match_feature",
        "user": "feature:m",
        "category": "user:p",
        "item": "user:s",
        "separator": separator,
    }
    found = dag(stub, match, m=["P^S:1,T:2|Q^S:3", "Q^T:4"], p=["q", "q"], s=["s", "s"])["f"]
    check(found, [3, -1])
    lookup = {**FROM_MAP, "feature_type": "lookup_feature", "map": "feature:m", "key": "user:k"}
    lookup["separator"] = separator if separator != ":" else "+"
    keys = lookup["separator"].join(["a", "b"])
    found = dag(stub, lookup, m=["A:1\x1dB:2", "A:5"], k=[keys, "b"])["f"]
    check(found, [3, -1])
    dot = {**FROM_MAP, "feature_type": "kv_dot_product", "query": "feature:m", "document": "user:d"}
    found = dag(stub, dot, m=["A:1+B:2", None], d=["b:3+a:1", "a:1"])["f"]
    check(found, [7, -1])


def test_masks_of_kinds_that_read_maps_alone_and_of_constants():
    dot = {"feature_type": "kv_dot_product", "query": "user:q", "document": "user:d"}
    weighted = {"feature_type": "id_feature", "expression": "user:q", "weighted": True}
    crossed = {"feature_type": "combo_feature", "expression": ["const:x", "user:q"]}
    named = [
        {"hash_bucket_size": 100, "feature_name": name, **entry}
        for name, entry in (("w", weighted), ("x", crossed))
    ]
    columns = {"q": pa.array(["a:1", "a:2"]), "d": pa.array(["a:3"])}
    hidden = np.array([True, False])
    handler = FgHandler({"features": [{**dot, "feature_name": "k"}, *named]})
    found = handler.process_arrow(columns, dict.fromkeys("kwx", hidden))
    check(found["k"], [0, 6])
    check(found["w"], h("a"), [0, 1])
    check(found["x"], h("x_a:2"), [0, 1])


@pytest.mark.parametrize("threads", [1, 2])
def test_a_mask_hides_a_feature_from_the_model_not_from_other_features(threads):
    """So offline features, which are made without masks, give the same batches."""
    age = {"feature_type": "raw_feature", "expression": "user:a", "boundaries": [18.0]}
    crossed = {"feature_type": "combo_feature", "expression": ["feature:age", "user:b"]}
    entries = [{**age, "feature_name": "age"}, {**crossed, "feature_name": "x"}]
    entries[1]["hash_bucket_size"] = 100
    columns = {"a": pa.array([20, 30]), "b": pa.array(["p", "q"])}
    handler = FgHandler({"features": entries}, threads=threads)
    found = handler.process_arrow(columns, {"age": np.array([True, False])})
    check(found["age"], [0, 1], [1, 1])
    check(found["x"], h("1_p", "1_q"), [1, 1])


def test_a_mask_hides_rows_of_a_column_of_one_row():
    crossed = {"feature_type": "combo_feature", "expression": ["user:a", "item:b"]}
    entry = {**crossed, "feature_name": "f", "hash_bucket_size": 100}
    columns = {"a": pa.array(["u"]), "b": pa.array(["x", "y"])}
    hidden = {"f": np.array([True, False])}
    check(FgHandler({"features": [entry]}).process_arrow(columns, hidden)["f"], h("u_y"), [0, 1])


def test_mask_hides_the_first_input_that_is_no_map():
    entry = {
        "feature_type": "lookup_feature",
        "feature_name": "f",
        "map": "user:m",
        "key": "item:k",
        "combiner": "sum",
        "default_value": "-1",
    }
    columns = {"m": pa.array(["a:1", "a:2"]), "k": pa.array(["a", "a"])}
    handler = FgHandler({"features": [entry]})
    found = handler.process_arrow(columns, {"f": np.array([True, False])})["f"]
    check(found, [-1, 2])


def test_bucketize_only_reads_generated_values():
    entry = {
        "feature_type": "combo_feature",
        "expression": ["user:a", "user:b"],
        "hash_bucket_size": 100,
        "default_value": "x",
    }
    found = run({**entry}, {"f": [["a_b", "c_d"], []]}, bucketize_only=True)
    check(found, h("a_b", "c_d", "x"), [2, 1])


def test_user_features_depend_on_the_user_alone():
    entries = [
        {"feature_type": "id_feature", "feature_name": "u", "expression": "user:a"},
        {"feature_type": "id_feature", "feature_name": "i", "expression": "item:a"},
        {"feature_type": "combo_feature", "feature_name": "c", "expression": ["user:a", "const:1"]},
        {"feature_type": "combo_feature", "feature_name": "m", "expression": ["user:a", "item:a"]},
        {"feature_type": "id_feature", "feature_name": "f", "expression": "feature:c"},
        {"feature_type": "id_feature", "feature_name": "g", "expression": "feature:m"},
        {"feature_type": "sequence_id_feature", "feature_name": "s", "expression": "item:h"},
    ]
    handler = FgHandler({"features": [{"hash_bucket_size": 9, **entry} for entry in entries]})
    assert handler.user_features() == ["u", "c", "f", "s"]
    assert handler.columns == ["a", "h"]
