"""Rules of the operators on literal cases, on both back ends."""

import numpy as np
import pyarrow as pa
import pytest
from fg_rules import GS, NUMBER_MAP, STRING_MAP, check, h, run

from tzrec.fg import FgHandler
from tzrec.fg.kernels import use_backend


@pytest.fixture(params=["numba", "numpy"], autouse=True)
def backend(request):
    use_backend(request.param)
    yield
    use_backend(None)


# Operators (§10)


def combo(columns, **options):
    entry = {"feature_type": "combo_feature", "expression": [f"user:{name}" for name in columns]}
    return run({**entry, "hash_bucket_size": 100, **options}, columns)


def test_combo_first_slowest():
    columns = {"a": [f"ua{GS}ub"], "b": [f"ia{GS}ib"]}
    check(combo(columns), h("ua_ia", "ua_ib", "ub_ia", "ub_ib"), [4])
    check(combo({**columns, "c": [5]}), h("ua_ia_5", "ua_ib_5", "ub_ia_5", "ub_ib_5"), [4])


def test_combo_missing_part():
    columns = {"a": ["x", "x"], "b": [None, "y"]}
    check(combo(columns), h("x_y"), [0, 1])
    check(combo(columns, default_value="q"), h("q", "x_y"), [1, 1])


def test_combo_in_a_vocabulary():
    check(
        combo({"a": ["x", "z"], "b": ["y", "y"]}, hash_bucket_size=None, vocab_dict={"x_y": 4}),
        [4, 1],
        [1, 1],
    )


def test_constants_and_columns_of_one_row():
    entry = {
        "feature_type": "combo_feature",
        "expression": ["const:k:1", "user:a", "context:one"],
        "hash_bucket_size": 100,
    }
    check(run({**entry}, {"a": ["x", "y"], "one": ["t"]}), h("k:1_x_t", "k:1_y_t"), [1, 1])
    empty = pa.array([], pa.string())
    check(run({**entry}, {"a": empty, "one": ["t"]}), [], [])
    check(run({**entry}, {"a": empty, "one": empty}), [], [])


TABLE = {
    "text": pa.array([f"a:1{GS}b:2.5{GS}a:9", None, "c:4"]),
    "map": pa.array([[("a", 1.0), ("b", 2.5), ("a", 9.0)], None, [("c", 4.0)]], NUMBER_MAP),
}


def lookup(table, key, **options):
    entry = {"feature_type": "lookup_feature", "map": "user:m", "key": "item:k", **options}
    return run(entry, {"m": table, "k": key})


@pytest.mark.parametrize("table", TABLE.values(), ids=TABLE)
def test_lookup_first_key_wins_misses_are_passed_over(table):
    found = lookup(table, [f"b{GS}q{GS}a", "a", "q"], combiner="sum", default_value="-1")
    check(found, [3.5, -1, -1])


@pytest.mark.parametrize(
    ("combiner", "value"),
    [
        ("sum", 11),
        ("mean", 11 / 3),
        ("avg", 11 / 3),
        ("min", 1),
        ("max", 8),
        ("count", 3),
        ("gap_min", 1),
        ("gap_max", 7),
    ],
)
def test_combiners(combiner, value):
    table = pa.array([f"a:1{GS}b:2{GS}c:8"])
    key = [f"b{GS}a{GS}c"]
    check(lookup(table, key, combiner=combiner), [value])
    entry = {"feature_type": "combine_feature", "expression": "user:c", "combiner": combiner}
    check(run(entry, {"c": [f"2{GS}1{GS}8"]}), [value])


def test_lookup_of_text_is_not_cut_and_may_show_the_key():
    options = {"value_type": "string", "needDiscrete": True, "combiner": "", "value_dim": 1}
    table, key = pa.array([f"a:x{GS}b:y"]), [f"b{GS}a"]
    check(lookup(table, key, hash_bucket_size=100, **options), h("y", "x"), [2])
    check(lookup(table, key, hash_bucket_size=100, needKey=True, **options), h("b_y", "a_x"), [2])


def test_lookup_need_key_of_numbers_is_passed_over():
    check(lookup(pa.array(["a:3"]), ["a"], combiner="sum", needKey=True), [3])


def test_lookup_with_integer_keys_and_colons():
    check(lookup(pa.array(["7:2"]), [7], combiner="sum"), [2])
    table = pa.array([[(7, "x:y")]], pa.map_(pa.int64(), pa.string()))
    options = {"value_type": "string", "needDiscrete": True, "combiner": ""}
    check(lookup(table, ["7"], hash_bucket_size=100, **options), h("x:y"), [1])
    check(lookup(pa.array(["7:x:y"]), ["7"], hash_bucket_size=100, **options), h("x:y"), [1])


def test_lookup_without_combiner_is_bucketised_value_by_value():
    found = lookup(pa.array([f"a:1{GS}b:5"]), [f"a{GS}b"], combiner="", boundaries=[3.0])
    check(found, [0, 1], [2])


NESTED = {
    "text": pa.array(["1^a:0.5,b:1|2^a:2"] * 3),
    "map": pa.array([[("1", "a:0.5,b:1"), ("2", "a:2")]] * 3, STRING_MAP),
}


def match(table, columns, **options):
    entry = {
        "feature_type": "match_feature",
        "user": "user:m",
        "category": "item:p",
        "item": "item:k",
        "matchType": "hit",
        **options,
    }
    return run(entry, {"m": table, **columns})


@pytest.mark.parametrize("table", NESTED.values(), ids=NESTED)
def test_match_numbers(table):
    columns = {"p": ["1", "2", "9"], "k": ["a", "b", "a"]}
    check(match(table, columns, default_value="-1"), [0.5, -1, -1])
    columns = {"p": ["1", "2", None], "k": ["b", "a", "a"]}
    check(match(table, columns, boundaries=[1.0, 2.0]), [1, 2], [1, 1, 0])


def test_match_hashes_behind_its_name_the_default_without():
    table, columns = pa.array(["1^a:7"] * 2), {"p": ["1", "2"], "k": ["a", "a"]}
    options = {"needDiscrete": True, "value_type": "string", "default_value": "z"}
    check(match(table, columns, hash_bucket_size=100, **options), h("f_7", "z"), [1, 1])
    shown = {"show_category": True, "show_item": True}
    check(
        match(table, columns, hash_bucket_size=100, **options, **shown), h("f_1_a_7", "z"), [1, 1]
    )
    options["default_value"] = "3"
    check(match(table, columns, num_buckets=9, **options), [7, 3], [1, 1])
    check(match(table, columns, vocab_dict={"7": 5, "3": 0}, **options), [5, 0], [1, 1])


def test_match_all_keys():
    options = {"needDiscrete": True, "value_type": "string", "matchType": "multihit"}
    options |= {"hash_bucket_size": 100, "show_category": True, "show_item": True}
    table = pa.array(["1^a:5,b:1|2^a:2"])
    found = match(table, {"p": ["1"]}, item="ALL", **options)
    check(found, h("f_1_a_5", "f_1_b_1"), [2])
    found = match(table, {"k": ["a"]}, category="ALL", **options)
    check(found, h("f_1_a_5", "f_2_a_2"), [2])
    found = match(table, {}, category="ALL", item="ALL", **options)
    check(found, h("f_1_a_5", "f_1_b_1", "f_2_a_2"), [3])


def test_match_a_text_key_all_is_data():
    found = match(pa.array(["ALL^a:5"]), {"p": ["ALL"], "k": ["a"]})
    check(found, [5])


def expr(expression, columns, **options):
    names = list(columns)
    entry = {"feature_type": "expr_feature", "expression": expression, "default_value": "0"}
    return run({**entry, "variables": [f"user:{n}" for n in names], **options}, columns)


def test_expr_missing_variables_give_the_default():
    check(expr("a + b", {"a": [1, None, 3], "b": [10, 20, None]}, default_value="-7"), [11, -7, -7])
    found = expr("a", {"a": [1, None]}, default_value="", boundaries=[0.5])
    check(found, [1], [1, 0])


def test_expr_variables_that_are_not_used_must_be_there_and_count_for_nothing_else():
    columns = {"a": [1, 2, 3], "b": [[1, 2], [], [5, 6, 7]]}
    check(expr("-a", columns, default_value="9"), [-1, 9, -3])


def test_expr_names_in_any_letters():
    check(expr("价格 * 2 + prix_été", {"价格": [1, 2], "prix_été": [3, 4]}), [5, 8])


def test_expr_vectors_scalars_and_one_row():
    check(expr("a * b", {"a": [[1, 2], [3, 4]], "b": [10]}, value_dim=2), [10, 20, 30, 40])
    check(expr("dot(a, b)", {"a": [[1, 2]], "b": [[3, 4]]}), [11])
    check(expr("l2_norm(a) * b", {"a": ["3|4"], "b": [2]}, separator="|"), [10])
    columns = {"a": [[1, 2, 3]], "b": [[10, 20]]}
    check(expr("a + b", columns, fill_missing=0, value_dim=3), [11, 22, 3])


def test_expr_nan_is_a_value():
    check(expr("isnan(a) + 1", {"a": [float("nan"), 2.0]}), [2, 1])


OVERLAPS = [
    ("query_common_ratio", "a,b,b", "b,c", 2 / 3),
    ("title_common_ratio", "a,b,b", "b,c", 1 / 2),
    ("is_contain", "b,c", "a,b,c,d", 1),
    ("is_contain", "c,b", "a,b,c,d", 0),
    ("is_contain", "b,d", "a,b,c,d", 0),
    ("is_equal", "a,b", "a,b", 1),
    ("is_equal", "b,a", "a,b", 0),
    ("index_of", "b,c", "a,b,c,d", 1),
    ("index_of", "d,a", "a,b,c,d", -1),
    ("proximity_min_cover", "b,c", "a,b,c,d", 2),
    ("proximity_min_cover", "a,d", "a,b,d,x,a", 3),
    ("proximity_min_cover", "a,q", "a,b", 0),
    ("proximity_min_dist", "a,c,d", "a,b,c,d", 1),
    ("proximity_max_dist", "a,c,d", "a,b,c,d", 3),
    ("proximity_avg_dist", "a,c,d", "a,b,c,d", 2),
    ("proximity_min_dist", "q,w", "a,b,c,d", 5),
]


@pytest.mark.parametrize(("method", "query", "title", "value"), OVERLAPS)
def test_overlap(method, query, title, value):
    entry = {"feature_type": "overlap_feature", "method": method, "separator": ","}
    entry |= {"query": "user:q", "title": "item:t"}
    check(run({**entry}, {"q": [query, None, query], "t": [title, title, ""]}), [value, 0, 0])
    lists = {"q": [query.split(",")], "t": [title.split(",")]}
    check(run(entry, lists), [value])


@pytest.mark.parametrize(
    ("query", "document", "value"),
    [
        (f"a:1{GS}b:2", f"b:3{GS}a:0.5", 6.5),
        (f"a{GS}b", f"b{GS}c", 1),
        (f"a:2{GS}a:3", "a:1", 5),
        ("a:2", "b:3", 0),
        ("a:1", None, -9),
        (None, None, -9),
    ],
)
def test_kv_dot_product(query, document, value):
    entry = {"feature_type": "kv_dot_product", "query": "user:q", "document": "item:d"}
    columns = {"q": pa.array([query], pa.string()), "d": pa.array([document], pa.string())}
    check(run({**entry, "default_value": "-9"}, columns), [value])


def test_kv_dot_product_of_maps_lists_and_other_delimiters():
    entry = {"feature_type": "kv_dot_product", "query": "user:q", "document": "item:d"}
    columns = {"q": pa.array([[("a", 2.0)]], NUMBER_MAP), "d": pa.array([["a", "b"]])}
    check(run({**entry}, columns), [2])
    options = {"kv_delimiter": "=", "separator": ",", "boundaries": [1.0, 5.0]}
    check(run({**entry, **options}, {"q": ["a=2,b=1", None], "d": ["a=2", "a"]}), [1, 0], [1, 1])


def test_bool_mask():
    entry = {
        "feature_type": "bool_mask_feature",
        "expression": ["user:v", "user:m"],
        "hash_bucket_size": 100,
        "default_value": "x",
    }
    values = [f"a{GS}b{GS}c", f"a{GS}b", "a", f"a{GS}b"]
    masks = [f"true{GS}0{GS}1", "TRUE", None, f"false{GS}no"]
    check(run({**entry}, {"v": values, "m": masks}), h("a", "c", "a", "x", "x"), [2, 1, 1, 1])
    columns = {"v": [["a", "b"]], "m": [[False, True]]}
    check(run({**entry}, columns), h("b"), [1])


def test_combine_maps_words_and_cuts_to_whole_numbers():
    entry = {"feature_type": "combine_feature", "expression": "user:c", "combiner": "mean"}
    words = {"value_map": {"a": 1, "b": 2}}
    check(run({**entry, **words}, {"c": [f"a{GS}b{GS}q", "q"]}), [1.5, 0])
    column = {"c": [[1, 2], [9, 9], [-5]]}
    check(run({**entry, "num_buckets": 5}, column), [1, 0, 0], [1, 1, 1])
    check(run({**entry, "boundaries": [1.5]}, column), [1, 1, 0], [1, 1, 1])
    check(run({**entry, "normalizer": "method=minmax,min=0,max=2"}, column), [0.75, 4.5, -2.5])


def test_regex_replace():
    entry = {
        "feature_type": "regex_replace_feature",
        "expression": "user:c",
        "regex_pattern": r"(\d)(\d)",
        "replacement": r"\2\1",
        "hash_bucket_size": 100,
        "default_value": "12",
    }
    check(run({**entry}, {"c": ["a1234", None]}), h("a2143", "12"), [1, 1])
    check(run({**entry, "replace_all": False}, {"c": ["a1234"]}), h("a2134"), [1])
    options = {"regex_pattern": ["A", "b"], "replacement": "", "icase": True, "value_dim": 0}
    check(run({**entry, **options}, {"c": [f"xAaB{GS}y"]}), h("x", "y"), [2])


def custom(name, columns, **options):
    entry = {"feature_type": "custom_feature", "operator_name": name, "value_dim": 1}
    entry |= {"expression": [f"user:{n}" for n in columns], "value_type": "float", **options}
    return run({"default_value": "0", **entry}, columns)


def test_edit_distance():
    columns = {"a": ["kitten", "é", None], "b": ["sitting", "e", "x"]}
    check(custom("EditDistance", columns, default_value="9"), [3, 1, 9])
    check(custom("EditDistance", columns, default_value="9", encoding="latin"), [3, 2, 9])


def test_seq_expr():
    columns = {"a": ["1;2;3"], "b": ["10"]}
    options = {"is_sequence": True, "sequence_delim": ";", "formula": "a + b"}
    check(custom("SeqExpr", columns, **options), [11, 12, 13], [3])
    places = {"x1": ["0;0"], "y1": ["0;0"], "x2": ["0"], "y2": ["0"]}
    options["formula"] = "spherical_distance"
    check(custom("SeqExpr", places, **options), [0, 0], [2])
    quarter = {"x1": ["0"], "y1": ["0"], "x2": ["90"], "y2": ["0"]}
    check(custom("SeqExpr", quarter, **options), [6371 * np.pi / 2], [1])


def test_text_normalizer():
    entry = {"feature_type": "text_normalizer", "expression": "user:c", "feature_name": "n"}
    feature = {
        "feature_type": "id_feature",
        "feature_name": "f",
        "expression": "feature:n",
        "hash_bucket_size": 100,
    }

    def of(text, **options):
        fg_json = {"features": [{**entry, "stub_type": True, **options}, feature]}
        return FgHandler(fg_json).process_arrow({"c": pa.array([text])})["f"].values.tolist()

    assert of("Ab!", parameter=2) == h("AB!")
    assert of("Ab!", parameter=4) == h("ab!")
    assert of("ＡＢ！　", parameter=8) == h("AB! ")
    assert of("a,b!c", parameter=32) == h("abc")
    assert of("a中文b", parameter=512) == h("a 中 文 b")
    assert of("a b", parameter=0, remove_space=True) == h("ab")
    assert of("ABCD", parameter=4, max_length=3) == h("ABCD")
    pytest.importorskip("zhconv")
    assert of("漢字", parameter=16) == h("汉字")
