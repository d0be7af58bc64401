"""Generated columns: what is written offline reads back as the features themselves."""

import fg_feed
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fg_golden import VECTORS, cases, farm_hash
from fg_golden import columns as golden_columns
from fg_two_steps import check_two_steps
from google.protobuf import text_format

from tzrec.features.feature import FgMode, create_features, create_fg_json
from tzrec.fg import FgHandler
from tzrec.fg.arrow_out import encoded, unbucketized
from tzrec.fg.kernels import use_backend
from tzrec.protos.pipeline_pb2 import EasyRecConfig


@pytest.fixture(params=["numba", "numpy"])
def backend(request):
    use_backend(request.param)
    yield request.param
    use_backend(None)


def configs(text=fg_feed.FEATURES):
    config = EasyRecConfig()
    text_format.Parse(text, config, allow_unknown_field=False)
    return config.feature_configs


def make_features(feature_configs, mode):
    return create_features(feature_configs, mode)


def columns_of(table):
    return {name: table[name] for name in table.column_names}


def through_parquet(columns, tmp_path):
    path = tmp_path / "columns.parquet"
    pq.write_table(pa.table(columns), path)
    return columns_of(pq.read_table(path))


def assert_equal(wanted, found):
    assert list(found) == list(wanted)
    for name, parsed in wanted.items():
        for part in ("values", "lengths", "key_lengths", "weights"):
            left, right = getattr(parsed, part), getattr(found[name], part)
            assert (left is None) == (right is None), (name, part)
            if left is not None:
                assert left.dtype == right.dtype, (name, part)
                np.testing.assert_array_equal(left, right, f"{name} {part}")


def both(feature_configs, columns, tmp_path, later):
    """Returns what FG_DAG gives, and what the written columns give."""
    dag = make_features(feature_configs, FgMode.FG_DAG)
    handler = FgHandler(create_fg_json(dag))
    results = handler.process_arrow(columns)
    wanted = {f.name: f.reshape(results[f.name]) for f in dag if not f.is_stub}
    written = (unbucketized if later else encoded)(handler, columns)
    assert list(written) == list(wanted)
    again = through_parquet(written, tmp_path)
    mode = FgMode.FG_BUCKETIZE if later else FgMode.FG_NONE
    readers = make_features(feature_configs, mode)
    return wanted, {feature.name: feature.parse(again) for feature in readers}


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 700])
def test_written_columns_give_the_same_batches(backend, tmp_path, rows, later):
    columns = columns_of(fg_feed.feed(rows, seed=rows))
    assert_equal(*both(configs(), columns, tmp_path, later))


def one(kind, options, columns, tmp_path, later):
    text = f'feature_configs {{ {kind} {{ feature_name: "f" {options} }} }}'
    return both(configs(text), columns, tmp_path, later)


EMBEDDED = "embedding_dim: 2"


@pytest.mark.parametrize("later", [False, True])
def test_texts_that_look_like_several_values(tmp_path, later):
    """Elements of a list are single values whatever is in them."""
    rows = [["a\x1db", "a|b", ""], None, [], ["a;b", "\x03"]]
    options = f'expression: "item:x" separator: "|" hash_bucket_size: 1000 {EMBEDDED}'
    columns = {"x": pa.array(rows)}
    wanted, found = one("id_feature", options, columns, tmp_path, later)
    assert_equal(wanted, found)
    assert wanted["f"].lengths.tolist() == [2, 0, 0, 2]
    steps = {"x": pa.array([[["a;b", "c"], []], [["d\x1de"]], None])}
    options += ' sequence_delim: ";" value_dim: 0'
    assert_equal(*one("sequence_id_feature", options, steps, tmp_path, later))


@pytest.mark.parametrize("later", [False, True])
def test_empty_values_of_a_map_are_values(tmp_path, later):
    columns = {"m": pa.array(["k:", "k:v", None]), "k": pa.array(["k", "k", "k"])}
    options = f'map: "user:m" key: "item:k" hash_bucket_size: 1000 {EMBEDDED} default_value: "d"'
    wanted, found = one("lookup_feature", options, columns, tmp_path, later)
    assert_equal(wanted, found)
    assert len(set(wanted["f"].values.tolist())) == 3


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize(
    "column",
    [
        pa.array([None, 1.0, 20.0]),
        pa.array(["", "1", None]),
        pa.array([None, [1.0], []]),
        pa.array([None, 7, 8], pa.int64()),
    ],
    ids=["numbers", "text", "lists", "integers"],
)
def test_a_missing_number_without_default(tmp_path, later, column):
    """A null among plain numbers is 0, elsewhere it has no value (fg.md §5)."""
    options = f'expression: "item:x" boundaries: [-1, 0.5, 10] default_value: "" {EMBEDDED}'
    assert_equal(*one("raw_feature", options, {"x": column}, tmp_path, later))


@pytest.mark.parametrize("later", [False, True])
def test_numbers_that_float32_cannot_hold(tmp_path, later):
    columns = {"x": pa.array([[16777217.0], [16777216.0, 1.0], None])}
    options = f'expression: "item:x" combiner: "sum" num_buckets: 20000000 {EMBEDDED}'
    wanted, found = one("combine_feature", options, columns, tmp_path, later)
    assert_equal(wanted, found)
    assert wanted["f"].values.tolist() == [16777217, 16777217]


def test_bytes_that_are_no_text(tmp_path):
    data = pa.array([b"\xff\xfe", b"a\x00b", "😀".encode()]).cast(pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, data.buffers())
    options = f'expression: "item:x" hash_bucket_size: 1000 {EMBEDDED}'
    assert_equal(*one("id_feature", options, {"x": text}, tmp_path, True))


def test_values_before_ids_leave_missing_ones_to_the_reader():
    """The default of match_feature is hashed unlike its values."""
    text = (
        'feature_configs { match_feature { feature_name: "match_feat" nested_map: "user:m" '
        'pkey: "item:p" skey: "item:s" hash_bucket_size: 100 embedding_dim: 2 default_value: "z" '
        "} }"
    )
    handler = FgHandler(create_fg_json(make_features(configs(text), FgMode.FG_DAG)))
    columns = {"m": pa.array(["p^s:1", None]), "p": pa.array(["p", "p"]), "s": pa.array(["s", "s"])}
    assert unbucketized(handler, columns)["match_feat"].to_pylist() == [["1"], []]
    assert encoded(handler, columns)["match_feat"].to_pylist() == [71, 54]


def test_features_that_others_read_are_finished_for_them():
    text = """
    feature_configs { raw_feature { feature_name: "bin" expression: "user:age" boundaries: [18, 30] embedding_dim: 2 stub_type: true } }
    feature_configs { combo_feature { feature_name: "cross" expression: ["feature:bin", "item:x"] hash_bucket_size: 10 embedding_dim: 2 } }
    """  # noqa: E501
    handler = FgHandler(create_fg_json(make_features(configs(text), FgMode.FG_DAG)))
    columns = {"age": pa.array([20.0, 40.0]), "x": pa.array(["a", "b"])}
    assert {n: a.to_pylist() for n, a in unbucketized(handler, columns).items()} == {
        "cross": [["1_a"], ["2_b"]]
    }


def test_column_types():
    columns = columns_of(fg_feed.feed(50))
    handler = FgHandler(create_fg_json(make_features(configs(), FgMode.FG_DAG)))
    found = encoded(handler, columns)
    assert found["one_tag"].type == pa.int64()
    assert found["tags"].type == pa.list_(pa.int64())
    assert pa.types.is_map(found["interests"].type)
    assert found["price"].type == pa.float32()
    assert found["recent"].type.value_type == pa.int64()
    assert found["recent_tags"].type.value_type.value_type == pa.int64()
    assert "hidden" not in found
    # The types are known without rows.
    nothing = encoded(handler, {name: column.slice(0, 0) for name, column in columns.items()})
    assert {n: a.type for n, a in nothing.items()} == {n: a.type for n, a in found.items()}


GOLDEN = [c for c in cases("feature", "fg_dag") if c["fg_mode"] != "FG_NONE"]


@pytest.mark.skipif(not VECTORS.exists(), reason="needs ../shared/vectors")
@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["id"][-60:])
def test_golden_cases_in_two_steps(backend, case):
    fg_json, build = case["fg_json"], case.get("build") or {}
    if isinstance(fg_json, list):
        if build.get("sequence_name"):
            names = ("sequence_name", "sequence_length", "sequence_delim")
            fg_json = [{name: build[name] for name in names} | {"features": fg_json}]
        fg_json = {"features": fg_json}
    check_two_steps(fg_json, golden_columns(case), farm=farm_hash(case))
