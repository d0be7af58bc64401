"""A feed with every kind of column, its features in FG_DAG, and random rows of it."""

import numpy as np
import pyarrow as pa

FEATURES = r"""
feature_configs { id_feature { feature_name: "user" expression: "user:user_id" hash_bucket_size: 1000 embedding_dim: 4 } }
feature_configs { id_feature { feature_name: "city" expression: "user:city" vocab_list: ["a", "b", "c"] default_value: "b" embedding_dim: 4 } }
feature_configs { id_feature { feature_name: "tags" expression: "item:tags" vocab_dict: [{key: "x" value: 2}, {key: "y" value: 3}] embedding_dim: 4 separator: "|" } }
feature_configs { id_feature { feature_name: "one_tag" expression: "item:tags" hash_bucket_size: 50 embedding_dim: 4 separator: "|" value_dim: 1 } }
feature_configs { id_feature { feature_name: "slot" expression: "context:slot" num_buckets: 5 embedding_dim: 4 } }
feature_configs { id_feature { feature_name: "interests" expression: "user:interests" hash_bucket_size: 100 weighted: true embedding_dim: 4 } }
feature_configs { raw_feature { feature_name: "price" expression: "item:price" normalizer: "method=log10,threshold=0.1,default=-1" default_value: "3.5" } }
feature_configs { raw_feature { feature_name: "age_bin" expression: "user:age" boundaries: [18, 30, 50] default_value: "" embedding_dim: 4 } }
feature_configs { raw_feature { feature_name: "text_bin" expression: "user:age_text" boundaries: [18, 30, 50] default_value: "" embedding_dim: 4 } }
feature_configs { raw_feature { feature_name: "vector" expression: "item:vector" value_dim: 3 separator: "," default_value: "0" } }
feature_configs { combo_feature { feature_name: "city_tag" expression: ["user:city", "item:tags"] separator: "|" hash_bucket_size: 300 embedding_dim: 4 } }
feature_configs { combo_feature { feature_name: "age_city" expression: ["feature:age_bin", "user:city"] hash_bucket_size: 300 embedding_dim: 4 } }
feature_configs { lookup_feature { feature_name: "ctr" map: "user:ctr_map" key: "item:tags" separator: "|" combiner: "mean" } }
feature_configs { lookup_feature { feature_name: "ctr_id" map: "user:ctr_map" key: "item:tags" separator: "|" need_discrete: true need_key: true hash_bucket_size: 80 embedding_dim: 4 default_value: "none" } }
feature_configs { lookup_feature { feature_name: "vectors" map: "user:vector_map" key: "item:brand" value_dim: 2 } }
feature_configs { match_feature { feature_name: "match_id" nested_map: "user:nested" pkey: "item:brand" skey: "user:city" hash_bucket_size: 90 embedding_dim: 4 default_value: "z" } }
feature_configs { match_feature { feature_name: "match_num" nested_map: "user:nested" pkey: "ALL" skey: "user:city" boundaries: [0.5, 1.5] embedding_dim: 4 } }
feature_configs { expr_feature { feature_name: "ratio" expression: "price / (age + 1)" variables: ["item:price", "user:age"] } }
feature_configs { expr_feature { feature_name: "ratio_bin" expression: "price * 2" variables: ["item:price"] boundaries: [1, 10] embedding_dim: 4 default_value: "" } }
feature_configs { overlap_feature { feature_name: "overlap" query: "user:query" title: "item:title" method: "query_common_ratio" separator: " " } }
feature_configs { kv_dot_product { feature_name: "dot" query: "user:interests" document: "item:kv" boundaries: [1, 3] embedding_dim: 4 default_value: "" } }
feature_configs { bool_mask_feature { feature_name: "masked" expression: ["item:tags", "item:tag_mask"] separator: "|" hash_bucket_size: 60 embedding_dim: 4 } }
feature_configs { combine_feature { feature_name: "combined" expression: "user:numbers" combiner: "mean" num_buckets: 10 embedding_dim: 4 } }
feature_configs { custom_feature { feature_name: "distance" operator_name: "EditDistance" operator_lib_file: "x" expression: ["user:query", "item:title"] } }
feature_configs { sequence_id_feature { feature_name: "recent" expression: "user:recent" sequence_length: 3 sequence_delim: ";" hash_bucket_size: 70 embedding_dim: 4 } }
feature_configs { sequence_id_feature { feature_name: "recent_tags" expression: "user:recent_tags" sequence_length: 4 sequence_delim: ";" separator: "|" value_dim: 0 vocab_list: ["x", "y"] embedding_dim: 4 } }
feature_configs { sequence_raw_feature { feature_name: "recent_price" expression: "user:recent_price" sequence_length: 4 sequence_delim: ";" } }
feature_configs { id_feature { feature_name: "hidden" expression: "item:brand" hash_bucket_size: 10 embedding_dim: 4 stub_type: true } }
feature_configs { sequence_feature {
  sequence_name: "click" sequence_length: 5 sequence_delim: ";"
  features { id_feature { feature_name: "item" expression: "item:item" num_buckets: 40 embedding_dim: 4 } }
  features { raw_feature { feature_name: "pos" expression: "item:pos" value_dim: 2 separator: "," } }
  features { raw_feature { feature_name: "pos_bin" expression: "item:pos1" boundaries: [1, 2] embedding_dim: 4 } }
  features { combo_feature { feature_name: "item_city" expression: ["item:item", "user:city"] hash_bucket_size: 30 embedding_dim: 4 } }
} }
"""  # noqa: E501

CONFIG = """
train_input_path: "{root}/raw.parquet"
eval_input_path: ""
model_dir: "{root}/run"
data_config {{
  batch_size: 64
  dataset_type: ParquetDataset
  fg_mode: FG_DAG
  label_fields: "clicked"
  sample_weight_fields: "weight"
}}
{features}
"""


def _some(rng, choices, rows, missing=0.15):
    picked = rng.integers(0, len(choices), rows)
    return [None if rng.random() < missing else choices[i] for i in picked]


def _lists(rng, choices, rows, most=4, missing=0.15):
    return [
        None
        if rng.random() < missing
        else [choices[i] for i in rng.integers(0, len(choices), rng.integers(0, most + 1))]
        for _ in range(rows)
    ]


def _alike(rng, choices, lists):
    """Lists as long as others, as the columns of one sequence are."""
    return [
        None if row is None else [choices[i] for i in rng.integers(0, len(choices), len(row))]
        for row in lists
    ]


def _joined(separator, lists):
    return [None if values is None else separator.join(map(str, values)) for values in lists]


def feed(rows, seed=0):
    """Rows with nulls, empty texts and lists, unknown words, and steps without values."""
    rng = np.random.default_rng(seed)
    words = ["x", "y", "z", "é", "", "0"]
    numbers = [0, 1, 2, 3, 17, 30, 60, -4]
    pairs = ["x:0.5", "y:2", "z:", "é:1.25"]
    clicks = _lists(rng, [0], rows, 7)
    columns = {
        "user_id": pa.array(_some(rng, list(range(-3, 60)), rows)),
        "city": pa.array(_some(rng, ["a", "b", "c", "d", ""], rows)),
        "tags": pa.array(_joined("|", _lists(rng, words, rows))),
        "slot": pa.array(_some(rng, [0, 1, 4, 5, -1], rows), pa.int32()),
        "interests": pa.array(
            _lists(rng, [("x", 1.0), ("y", 2.5), ("w", 0.25)], rows),
            pa.map_(pa.string(), pa.float32()),
        ),
        "price": pa.array(_some(rng, [0.0, 0.1, 2.5, 99.0], rows), pa.float64()),
        "age": pa.array(_some(rng, numbers, rows), pa.float32()),
        "age_text": pa.array(_some(rng, ["18", "30.5", ""], rows)),
        "vector": pa.array(_some(rng, ["1,2,3", "0.1,0.2,0.3"], rows)),
        "ctr_map": pa.array(_joined("\x1d", _lists(rng, ["x:0.5", "y:2", "é:1.25"], rows))),
        "vector_map": pa.array(_joined("\x1d", _lists(rng, ["p:1,2", "q:3,4"], rows))),
        "brand": pa.array(_some(rng, ["p", "q", "r"], rows)),
        "nested": pa.array(_joined("|", _lists(rng, ["p^a:0.2,b:1", "q^c:2"], rows))),
        "query": pa.array(_joined(" ", _lists(rng, words, rows))),
        "title": pa.array(_joined(" ", _lists(rng, words, rows))),
        "kv": pa.array(_joined("\x1d", _lists(rng, pairs[:2], rows))),
        "tag_mask": pa.array(_joined("|", _lists(rng, ["true", "false"], rows))),
        "numbers": pa.array(_lists(rng, [1.5, 2.0, 40.0], rows), pa.list_(pa.float64())),
        "recent": pa.array(_lists(rng, words, rows, 6)),
        "recent_tags": pa.array(_joined(";", _lists(rng, ["x|y", "y", "z|x|x", ""], rows, 6))),
        "recent_price": pa.array(_lists(rng, numbers, rows, 6), pa.list_(pa.float32())),
        "click__item": pa.array(_joined(";", _alike(rng, [1, 2, 39, 40, -1], clicks))),
        "click__pos": pa.array(_joined(";", _alike(rng, ["1,2", "0.5,7"], clicks))),
        "click__pos1": pa.array(_joined(";", _alike(rng, [0, 1, 2.5], clicks))),
        "clicked": pa.array(rng.integers(0, 2, rows)),
        "weight": pa.array(rng.random(rows), pa.float32()),
        "request": pa.array([f"r{i}" for i in range(rows)]),
    }
    return pa.table(columns)


def config_text(root, *, features=FEATURES, **data):
    """The config; ``data`` replaces lines of data_config, as in ``fg_mode="FG_NONE"``."""
    text = CONFIG.format(root=root, features=features)
    for name, value in data.items():
        lines = text.splitlines()
        kept = [line for line in lines if not line.startswith(f"  {name}:")]
        start = kept.index("data_config {")
        kept.insert(start + 1, f"  {name}: {value}")
        text = "\n".join(kept)
    return text
