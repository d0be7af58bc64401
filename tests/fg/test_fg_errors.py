"""What is said about wrong options and values: the feature, what was found, what would be right."""

import numpy as np
import pyarrow as pa
import pytest

from tzrec.errors import ConfigError, DataError, FeatureError
from tzrec.fg import FgHandler
from tzrec.fg.kernels import use_backend


@pytest.fixture(params=["numba", "numpy"], autouse=True)
def backend(request):
    use_backend(request.param)
    yield
    use_backend(None)


ID = {"feature_type": "id_feature", "expression": "user:c"}
HASHED = {**ID, "hash_bucket_size": 10}
RAW = {"feature_type": "raw_feature", "expression": "user:c"}
STEPS = {**HASHED, "feature_type": "sequence_id_feature"}
EXPR = {"feature_type": "expr_feature", "expression": "a", "variables": ["user:a"]}
MATCH = {"feature_type": "match_feature", "user": "user:m", "category": "item:p", "item": "item:k"}
LOOKUP = {"feature_type": "lookup_feature", "map": "user:m", "key": "item:k"}
OVERLAP = {"feature_type": "overlap_feature", "query": "user:q", "title": "item:t"}
KV = {"feature_type": "kv_dot_product", "query": "user:q", "document": "item:d"}
COMBINE = {"feature_type": "combine_feature", "expression": "user:c"}
REGEX = {"feature_type": "regex_replace_feature", "expression": "user:c"}
TOKENS = {"feature_type": "tokenize_feature", "expression": "user:c", "vocab_file": "/none"}
CUSTOM = {"feature_type": "custom_feature", "expression": ["user:a"]}

# Options, and what the message must hold beside the name of the feature.
OPTIONS = [
    ({**ID, "feature_type": "id_featur"}, "'id_featur' is unknown; did you mean 'id_feature'"),
    ({**HASHED, "expression": "usr:c"}, "'usr:c' is not side:name; .*did you mean 'user'"),
    ({**HASHED, "expression": "c"}, "'c' is not side:name; sides are user, item"),
    ({**HASHED, "expression": ""}, "has no expression"),
    ({**HASHED, "expression": 5}, "expression is 5, must be a list"),
    ({**HASHED, "expression": ["user:a", "user:b"]}, "has 2 inputs, takes 1"),
    ({**ID, "hash_bucket_size": -4}, "hash_bucket_size is -4, must be a whole number, at least 1"),
    ({**ID, "hash_bucket_size": "x"}, "hash_bucket_size is 'x', must be a whole number"),
    ({**ID, "hash_bucket_size": 1.5}, "hash_bucket_size is 1.5, must be a whole number"),
    ({**ID, "hash_bucket_size": 2**63}, "must be a whole number"),
    ({**ID, "num_buckets": -1}, "num_buckets is -1, must be a whole number, at least 1"),
    ({**ID, "num_buckets": 5, "default_value": "abc"}, "default_value 'abc' .*no whole number"),
    ({**ID, "vocab_list": "abc"}, "vocab_list is 'abc', must be a list"),
    ({**ID, "vocab_dict": ["a"]}, r"vocab_dict is \['a'\], must be an object"),
    ({**ID, "vocab_dict": {"a": -1}}, r"vocab_dict\['a'\] is -1, must be a whole number"),
    ({**ID, "vocab_list": ["a"], "default_bucketize_value": -1}, "bucketize_value is -1"),
    ({**ID, "vocab_file": "/none"}, "/none does not exist"),
    ({**HASHED, "separator": "ab"}, "separator is 'ab', must be one character"),
    ({**HASHED, "separator": "é"}, "separator is 'é', must be one character of ASCII"),
    ({**HASHED, "value_type": "strin"}, "value_type is 'strin'.*did you mean 'string'"),
    ({**HASHED, "value_dim": -1}, "value_dim is -1, must be a whole number, at least 0"),
    ({**STEPS, "weighted": True}, "weighted and a sequence"),
    ({**STEPS, "sequence_delim": ""}, "sequence_delim is '', must be one character"),
    ({**STEPS, "sequence_length": -1}, "sequence_length is -1, must be a whole number"),
    ({**STEPS, "sequence_fields": ["cc"]}, "sequence_fields names 'cc', which is no input"),
    ({**RAW, "boundaries": [2, 1]}, r"boundaries\[1\] is 1, but the boundary before it is 2"),
    ({**RAW, "boundaries": [1, 1]}, r"boundaries\[1\] is 1, but the boundary before it is 1"),
    ({**RAW, "boundaries": [1, "x"]}, r"boundaries\[1\] is 'x', must be a number"),
    ({**RAW, "boundaries": [float("nan")]}, r"boundaries\[0\] is nan"),
    ({**RAW, "default_value": "x"}, "default_value 'x' .*is not a number"),
    ({**RAW, "value_dim": 2, "default_value": "1\x1d2\x1d3"}, "3 numbers, but value_dim is 2"),
    ({**RAW, "normalizer": "method=log"}, "methods are log10, zscore.*did you mean 'log10'"),
    ({**RAW, "normalizer": "log10"}, "must begin with method="),
    ({**RAW, "normalizer": "method=log10,thresold=1"}, "did you mean 'threshold'"),
    ({**RAW, "normalizer": "method=log10,threshold=x"}, "'x' is not a number"),
    ({**RAW, "normalizer": "method=zscore,mean=1"}, "lacks standard_deviation"),
    ({**RAW, "normalizer": "method=minmax,min=1,max=1"}, "divides by zero"),
    ({**RAW, "normalizer": "method=expression,expr=y+1"}, "has the variable y; there is only x"),
    ({**HASHED, "feature_type": "combo_feature"}, "has 1 input, needs at least 2"),
    ({**HASHED, "feature_type": "bool_mask_feature"}, "takes the values and their mask"),
    ({**LOOKUP, "map": None}, "has no map"),
    ({**LOOKUP, "combiner": "median"}, "combiner is 'median', .*did you mean 'mean'"),
    ({**MATCH, "matchType": "hitt"}, "matchType is 'hitt', must be one of hit, multihit"),
    ({**MATCH, "item": "ALL", "matchType": "hit"}, "takes inputs as keys, not ALL"),
    ({**MATCH, "needDiscrete": True}, "value_type is float; it must be string"),
    ({**EXPR, "expression": "a +"}, r"(?s)operand is missing at character 4.*a \+\n +\^"),
    ({**EXPR, "expression": "a + bb"}, "has the variable 'bb'"),
    ({**EXPR, "expression": "sinn(a)"}, "no function 'sinn'; did you mean 'sin'"),
    ({**EXPR, "expression": "sin(a, a)"}, r"sin takes 1 argument\(s\), not 2"),
    ({**EXPR, "variables": []}, "has no variables"),
    ({**EXPR, "fill_missing": "x"}, "fill_missing is 'x', must be a number"),
    ({**OVERLAP, "method": "is_contains"}, "(?s)'is_contains', .*did you mean 'is_contain'"),
    (OVERLAP, "has no method"),
    ({**KV, "kv_delimiter": "::"}, "kv_delimiter is '::', must be one character"),
    ({**COMBINE, "combiner": "summ"}, "'summ', .*did you mean 'sum'"),
    ({**COMBINE, "value_map": {"a": "x"}}, r"value_map\['a'\] is 'x', must be a number"),
    ({**REGEX, "regex_pattern": "("}, r"regex \['\('\].*missing \)"),
    (REGEX, "has no regex_pattern"),
    ({**TOKENS, "tokenizer_type": "wp"}, "must be one of bpe, sentencepiece"),
    ({**TOKENS, "output_type": "word"}, "output_type is 'word', must be word_id"),
    ({**CUSTOM, "operator_name": "EditDistance"}, r"EditDistance takes 2 input\(s\), not 1"),
    ({**CUSTOM, "operator_name": "SeqExpr", "formula": "q"}, "has the variable 'q'"),
    ({**CUSTOM, "operator_name": "X", "operator_lib_file": "libx.so"}, "is a shared object"),
    ({**CUSTOM, "operator_name": "X", "operator_lib_file": "no_such"}, "cannot import no_such"),
    ({**RAW, "feature_type": "text_normalizer", "parameter": 6}, "exclude each other"),
    ({**RAW, "feature_type": "text_normalizer", "parameter": 1}, "parameter 1 has unknown bits"),
    ({**HASHED, "expression": "feature:g"}, "reads feature:g, which does not exist"),
]


@pytest.mark.parametrize(("entry", "said"), OPTIONS)
def test_wrong_options(entry, said):
    with pytest.raises(ConfigError, match=said) as raised:
        FgHandler({"features": [{"feature_name": "my_feature", **entry}]})
    assert "my_feature" in str(raised.value)


@pytest.mark.parametrize(
    ("fg_json", "said"),
    [
        ({}, '"features"'),
        ([], '"features"'),
        ({"features": [5]}, r"features\[0\].*is 5, must be an object"),
        ({"features": [{"feature_type": "id_feature"}]}, r"features\[0\].*no feature_name"),
        ({"features": [{"feature_name": "f"}]}, r"features\[0\].*no feature_type"),
        ({"features": [{"features": []}]}, "no sequence_name"),
        ({"features": [{"sequence_name": "s", "features": {}}]}, "'s' must have \"features\""),
        (
            {"features": [{"sequence_name": "s", "features": [HASHED]}]},
            r"features\[0\].features\[0\].*no feature_name",
        ),
        ({"features": [{"feature_name": "f", **RAW}] * 2}, "the same name: f"),
    ],
)
def test_wrong_fg_json(fg_json, said):
    with pytest.raises(ConfigError, match=said):
        FgHandler(fg_json)


def test_dense_features_of_different_widths():
    handler = FgHandler({"features": [{"feature_name": "f", **EXPR}]})
    with pytest.raises(FeatureError, match=r"'f' gives different numbers .* from 1 to 2.*fixed"):
        handler.process_arrow({"a": pa.array([[1, 2], [1]])})


def test_a_circle_is_printed():
    features = [
        {**HASHED, "feature_name": name, "expression": f"feature:{source}"}
        for name, source in ("ab", "bc", "ca")
    ]
    with pytest.raises(ConfigError, match="in a circle: a → b → c → a"):
        FgHandler({"features": features})
    with pytest.raises(ConfigError, match="in a circle: a → a"):
        FgHandler({"features": [{**features[0], "expression": "feature:a"}]})


# Values, and what the message must hold beside feature and column.
NUMBERED = {**ID, "num_buckets": 5}
VALUES = [
    (NUMBERED, {"c": ["1", None, "abc"]}, "row 2 .*'abc'.*not a whole number"),
    (NUMBERED, {"c": ["1", "1.5"]}, "row 1 .*'1.5'.*not a whole number"),
    (NUMBERED, {"c": [["1"], ["2", "x"]]}, "row 1 .*'x'"),
    (RAW, {"c": ["1", "", "1,5"]}, "'1,5' in row 2 .*not a number"),
    (RAW, {"c": ["1", "1_000"]}, "'1_000' in row 1 .*not a number"),
    (RAW, {"c": ["1\x1d2"]}, "row 0 .*has 2 numbers, but value_dim is 1"),
    ({**RAW, "value_dim": 2}, {"c": [[1, 2], None, [3]]}, "row 2 .*has 1 numbers, but value_dim"),
    ({**ID, "weighted": True, "hash_bucket_size": 9}, {"c": ["a:1", "b:x"]}, "'x' in row 1"),
    ({**COMBINE, "combiner": "sum"}, {"c": ["1", "x"]}, "'x' in row 1"),
    ({**LOOKUP, "combiner": "sum"}, {"m": ["a:1", "a:y"], "k": ["a", "a"]}, "'y' in row 1"),
    (MATCH, {"m": ["1^a:1", "1^a:y"], "p": ["1", "1"], "k": ["a", "a"]}, "'y' in row 1"),
    (KV, {"q": ["a:1", "a:y"], "d": ["a", "a"]}, "'y' in row 1"),
    (EXPR, {"a": ["1", "y"]}, "'y' in row 1"),
    (
        {**EXPR, "expression": "dot(a, b)", "variables": ["user:a", "user:b"]},
        {"a": [None, [1, 2], [1, 2]], "b": [[1], [1, 2], [1]]},
        "dot of 2 and 1 values in row 2",
    ),
    (
        {**RAW, "feature_type": "sequence_raw_feature", "default_value": "0"},
        {"c": ["1;2", "3;x"]},
        "'x' in row 1",
    ),
]


@pytest.mark.parametrize(("entry", "columns", "said"), VALUES)
def test_wrong_values(entry, columns, said):
    handler = FgHandler({"features": [{"feature_name": "my_feature", **entry}]})
    arrays = {name: pa.array(column) for name, column in columns.items()}
    with pytest.raises(FeatureError, match=said) as raised:
        handler.process_arrow(arrays)
    assert f"feature my_feature of {', '.join(columns)}: " in str(raised.value)


def test_maps_are_read_where_maps_are_expected():
    column = pa.array([[("a", 1.0)]], pa.map_(pa.string(), pa.float32()))
    for entry in (RAW, HASHED, {**COMBINE, "combiner": "sum"}):
        handler = FgHandler({"features": [{"feature_name": "f", **entry}]})
        with pytest.raises(FeatureError, match="feature f of c: column 'c' is a map"):
            handler.process_arrow({"c": column})


def test_masks_of_other_lengths():
    handler = FgHandler({"features": [{"feature_name": "f", **HASHED}]})
    with pytest.raises(DataError, match="feature f of c: an input has 2 rows, its mask 3"):
        handler.process_arrow({"c": pa.array(["a", "b"])}, {"f": np.zeros(3, bool)})
