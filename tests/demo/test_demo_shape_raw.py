"""Raw columns: every kind of feature finds in them what it looks for."""

import datetime as dt

import fg_feed
import numpy as np
import pyarrow as pa
import pytest
from google.protobuf import text_format

from tzrec.demo.shape.shape import Shape
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.training.build import build_features

ROWS = 2000


def config_of(features=fg_feed.FEATURES, **data):
    return text_format.Parse(fg_feed.config_text(".", features=features, **data), EasyRecConfig())


def generated(config, table):
    """Feature → values, as training makes them."""
    from tzrec.datasets.data_parser import DataParser

    parser = DataParser(build_features(config.data_config, config.feature_configs))
    parsed = parser.parse({n: table[n].combine_chunks() for n in parser.input_columns})
    return {key: tensor.numpy() for key, tensor in parsed.items()}


@pytest.fixture(scope="module")
def feed():
    config = config_of()
    table = Shape(config).table(ROWS, seed=4)
    return table, generated(config, table)


def rows_of(found, name):
    ends = np.cumsum(found[f"{name}.lengths"])
    return [
        found[f"{name}.values"][end - n : end].tolist()
        for end, n in zip(ends, found[f"{name}.lengths"], strict=True)
    ]


def test_the_columns_are_those_that_features_read(feed):
    table, _ = feed
    mine = set(table.column_names) - {"probability"}
    assert mine == set(fg_feed.feed(2).column_names) - {"request"}


def test_words_ids_and_numbers_are_those_of_the_config(feed):
    table, found = feed
    words = set(table["city"].to_pylist()) - {None}
    assert {"a", "b", "c"} < words
    assert len(words) == 4
    unknown = np.mean([value == "something else" for value in table["city"].to_pylist()])
    assert 0.005 < unknown < 0.05
    assert {w for t in table["tags"].to_pylist() if t for w in t.split("|")} >= {"x", "y"}
    assert set(table["slot"].drop_null().to_pylist()) == set(range(5))
    for name, size in {"age_bin": 4, "match_num": 3, "ratio_bin": 3, "combined": 10}.items():
        counts = np.bincount(found[f"{name}.values"], minlength=size)
        assert len(counts) == size, name
        assert (counts > 0).all(), name
    assert np.isfinite(found["price.values"]).all()
    assert found["price.values"].std() > 0.1


def test_maps_have_the_keys_of_their_rows(feed):
    table, found = feed
    default, numbers = 0.0, found["ctr.values"][:, 0]
    assert 0.5 < np.mean(numbers != default) < 1
    assert 0.5 < np.mean(np.any(found["vectors.values"] != 0, axis=1)) < 1
    for brand, keys in zip(
        table["brand"].to_pylist()[:50], table["vector_map"].to_pylist()[:50], strict=True
    ):
        assert len({key for key, _ in keys}) == len(keys) > 0
        assert brand is None or all(len(value.split(",")) == 2 for _, value in keys)
    missing = found["match_id.values"][np.argmax(table["brand"].is_null().to_numpy())]
    assert np.mean(found["match_id.values"] != missing) > 0.3


def test_masks_are_as_long_as_what_they_mask(feed):
    table, found = feed
    for tags, mask in zip(table["tags"].to_pylist(), table["tag_mask"].to_pylist(), strict=True):
        assert (tags is None) == (mask is None)
        assert tags is None or tags.count("|") == mask.count("|")
    kept = found["masked.lengths"].sum() / found["tags.lengths"].sum()
    assert kept == pytest.approx(0.7, abs=0.05)


def test_terms_are_shared(feed):
    _, found = feed
    assert 0.1 < np.mean(found["overlap.values"] > 0) < 0.9
    assert len(set(found["dot.values"].tolist())) > 1
    assert len(set(found["distance.values"][:, 0].tolist())) > 3


def test_sequences_of_a_group_have_the_same_steps(feed):
    table, found = feed
    lengths = [
        pa.compute.list_value_length(table[f"click__{name}"]).to_pylist()
        for name in ("item", "pos", "pos1")
    ]
    assert lengths[0] == lengths[1] == lengths[2]
    assert set(lengths[0]) == set(range(6))
    assert found["click__pos.values"].shape[1] == 2
    assert max(found["recent_tags.key_lengths"]) > 1


def test_some_values_are_missing(feed):
    table, _ = feed
    for name in ("user_id", "price", "age", "query"):
        assert 0.005 < table[name].null_count / ROWS < 0.05, name


@pytest.mark.parametrize("mode", ["FG_NONE", "FG_BUCKETIZE"])
def test_generated_columns_are_called_like_the_features(mode):
    config = config_of(fg_mode=mode)
    table = Shape(config).table(200)
    features = build_features(config.data_config, config.feature_configs)
    assert {f.name for f in features if not f.is_stub} < set(table.column_names)
    found = generated(config, table)
    assert set(found["slot.values"].tolist()) <= set(range(5))
    assert {len(ids) for ids in rows_of(found, "tags")} == {0, 1, 2, 3, 4}


def test_each_feature_alone():
    lines = fg_feed.FEATURES.strip().splitlines()
    alone = [line for line in lines if "stub_type" not in line and "feature:" not in line]
    config = config_of("\n".join(alone), fg_mode="FG_NORMAL")
    table = Shape(config).table(100)
    assert set(generated(config, table)) >= {"user.values", "click__item_city.values"}


TYPED = """
feature_configs { id_feature { feature_name: "user" expression: "user:user_id" hash_bucket_size: 99 embedding_dim: 4 } }
feature_configs { id_feature { feature_name: "tags" expression: "item:tags" hash_bucket_size: 99 embedding_dim: 4 pooling: "mean" } }
feature_configs { lookup_feature { feature_name: "ctr" map: "user:ctr_map" key: "user:user_id" } }
feature_configs { sequence_id_feature { feature_name: "recent" expression: "user:recent" sequence_length: 3 num_buckets: 9 embedding_dim: 4 } }
"""  # noqa: E501


def test_declared_types_are_kept():
    config = config_of(TYPED)
    config.data_config.input_fields_str = (
        "user_id:STRING;tags:STRING;ctr_map:MAP<STRING,DOUBLE>;recent:ARRAY<STRING>;clicked:FLOAT"
    )
    table = Shape(config).table(300)
    types = {name: table.schema.field(name).type for name in table.column_names}
    assert types["user_id"] == types["tags"] == pa.string()
    assert pa.types.is_map(types["ctr_map"])
    assert types["recent"] == pa.list_(pa.string())
    assert types["clicked"] == pa.float32()
    same = generated(config, table)
    config.data_config.input_fields_str = ""
    other = generated(config, Shape(config).table(300))
    for key, values in same.items():
        np.testing.assert_allclose(other[key], values, err_msg=key)


CHAINED = """
feature_configs { id_feature { feature_name: "city" expression: "user:city" num_buckets: 100 embedding_dim: 4 stub_type: true } }
feature_configs { id_feature { feature_name: "age_text" expression: "user:age" embedding_dim: 4 hash_bucket_size: 9 stub_type: true } }
feature_configs { combo_feature { feature_name: "both" expression: ["feature:city", "feature:age_text"] hash_bucket_size: 99 embedding_dim: 4 } }
feature_configs { expr_feature { feature_name: "far" expression: "dot(home, shop) + x" variables: ["user:home", "item:shop", "item:x"] } }
feature_configs { raw_feature { feature_name: "home" expression: "user:home" value_dim: 3 } }
feature_configs { raw_feature { feature_name: "shop" expression: "item:shop" value_dim: 3 } }
feature_configs { kv_dot_product { feature_name: "dot" query: "user:likes" document: "item:traits" normalizer: "method=log10,threshold=0.01,default=-2" boundaries: [-1, 0] embedding_dim: 4 } }
feature_configs { raw_feature { feature_name: "score" expression: "item:score" normalizer: "method=zscore,mean=50,standard_deviation=10" boundaries: [-1, 0, 1] embedding_dim: 4 } }
feature_configs { raw_feature { feature_name: "rank" expression: "item:rank" normalizer: "method=minmax,min=0,max=200" } }
feature_configs { combine_feature { feature_name: "grades" expression: "user:grades" value_map: [{key: "good" value: 1}, {key: "bad" value: -1}] combiner: "mean" } }
feature_configs { match_feature { feature_name: "all" nested_map: "user:nested" pkey: "ALL" skey: "item:kind" } }
feature_configs { custom_feature { feature_name: "away" operator_name: "SeqExpr" operator_lib_file: "x" operator_params { fields { key: "formula" value { string_value: "spherical_distance" } } } expression: ["user:lng", "user:lat", "item:lng2", "item:lat2"] } }
"""  # noqa: E501


def test_features_of_features_and_normalised_ones():
    config = config_of(CHAINED)
    table = Shape(config).table(ROWS)
    found = generated(config, table)
    assert len(table["home"][0]) == 3
    assert np.isfinite(found["far.values"]).all()
    assert {len(np.unique(found[f"{n}.values"])) for n in ("dot", "score")} <= {3, 4}
    assert np.bincount(found["score.values"], minlength=4).min() > 100
    assert found["rank.values"].min() > -0.6
    assert found["rank.values"].max() < 1.6
    assert set(np.round(found["grades.values"], 2).ravel().tolist()) > {-1.0, 0.0, 1.0}
    assert np.mean(found["all.values"] != 0) > 0.2
    assert len(np.unique(found["both.values"])) > 20


def test_times_of_rows(monkeypatch):
    config = config_of(TYPED, event_time_field='"shown"', sample_cost_field='"cost"')
    shape = Shape(config)
    first, second = shape.table(10, seed=1), shape.table(10, seed=2, start=10)
    times = [*first["shown"].to_pylist(), *second["shown"].to_pylist()]
    assert times == sorted(times)
    assert dt.datetime.fromtimestamp(times[0], dt.timezone.utc).year == 2024
    assert 1 <= min(first["cost"].to_pylist()) <= max(first["cost"].to_pylist()) <= 20
