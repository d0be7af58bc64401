# ruff: noqa: E501
"""Rules for samplers: each mistake with the line that it must get."""

from __future__ import annotations

import pytest
from config_samples import write

from tzrec.config import prepare
from tzrec.errors import ConfigError

DSSM = """\
train_input_path: "train.parquet"
model_dir: "run"
train_config {
  sparse_optimizer { adagrad_optimizer { lr: 0.001 } constant_learning_rate {} }
  dense_optimizer { adam_optimizer { lr: 0.001 } constant_learning_rate {} }
  num_epochs: 1
}
data_config {
  dataset_type: ParquetDataset
  fg_mode: FG_DAG
  label_fields: "clk"
  negative_sampler {
    input_path: "items.txt"
    num_sample: 8
    attr_fields: ["item_id", "brand", "price"]
    item_id_field: "item_id"
  }
}
feature_configs { id_feature { feature_name: "user" expression: "user:user_id" num_buckets: 100 embedding_dim: 4 } }
feature_configs { id_feature { feature_name: "age" expression: "user:age" num_buckets: 100 embedding_dim: 4 } }
feature_configs { id_feature { feature_name: "item" expression: "item:item_id" num_buckets: 100 embedding_dim: 4 } }
feature_configs { id_feature { feature_name: "brand" expression: "item:brand" num_buckets: 100 embedding_dim: 4 } }
feature_configs { raw_feature { feature_name: "price" expression: "item:price" } }
feature_configs { sequence_feature {
  sequence_name: "cand" sequence_length: 50 sequence_delim: "|"
  features { id_feature { feature_name: "video" expression: "item:video" num_buckets: 9 embedding_dim: 4 } }
} }
model_config {
  feature_groups { group_name: "user" feature_names: ["user", "age", "cand__video"] group_type: DEEP }
  feature_groups { group_name: "item" feature_names: ["item", "brand", "price"] group_type: DEEP }
  dssm {
    user_tower { input: "user" mlp { hidden_units: 8 } }
    item_tower { input: "item" mlp { hidden_units: 8 } }
    output_dim: 4
  }
  metrics { recall_at_k { top_k: 1 } }
  losses { softmax_cross_entropy {} }
}
"""
ATTRS = '["item_id", "brand", "price"]'
ID = 'item_id_field: "item_id"'
SAMPLER = "negative_sampler {"
COMBO = """feature_configs { combo_feature { feature_name: "mix" expression: ["user:user_id", "item:brand"]
  hash_bucket_size: 9 embedding_dim: 4 } }
"""
CHAIN = """feature_configs { id_feature { feature_name: "far" expression: "feature:near" num_buckets: 9 embedding_dim: 4 } }
feature_configs { expr_feature { feature_name: "near" expression: "x+y" variables: ["feature:brand", "user:age"] } }
"""
DEEPFM = [
    ("  dssm {", "  deepfm { deep { hidden_units: 8 } final { hidden_units: 8 } }\n  #"),
    ('    user_tower { input: "user" mlp { hidden_units: 8 } }\n    item_tower { input: "item" mlp { hidden_units: 8 } }\n    output_dim: 4\n  }\n', ""),
    ('group_name: "user"', 'group_name: "wide"'), ('group_name: "item"', 'group_name: "deep"'),
    ("DEEP }", "WIDE }"), ("losses { softmax_cross_entropy {} }", "losses { binary_cross_entropy {} }"),
    ("recall_at_k { top_k: 1 }", "auc {}"), ('"user", "age", "cand__video"', '"user", "age"'),
]  # fmt: skip
TDM = [(SAMPLER, "tdm_sampler {"), ("num_sample: 8", 'edge_input_path: "e" predict_edge_input_path: "p" layer_num_sample: [0, 1]'), ("    input_path", "    item_input_path")]  # fmt: skip

# (what is wrong, (old, new)..., line of the problem after "c.config:")
CASES = [
    ("no attributes", (f"attr_fields: {ATTRS}", ""),
     "12: data_config.negative_sampler.attr_fields: is missing: a sampled item has no columns"),
    ("an attribute twice", (ATTRS, '["item_id", "brand", "price", "brand"]'),
     "15: data_config.negative_sampler.attr_fields[3]: 'brand' is given twice"),
    ("a label", (ATTRS, '["item_id", "brand", "price", "clk"]'),
     "15: data_config.negative_sampler.attr_fields[3]: 'clk' is what a row is learnt from, no column of an item"),
    ("without the id", (ATTRS, '["brand", "price"]'),
     "15: data_config.negative_sampler.attr_fields: lacks item_id_field 'item_id', which features read"),
    ("id misspelt", (ID, 'item_id_field: "item_idd"'),
     "16: data_config.negative_sampler.item_id_field: no feature reads column 'item_idd'; did you mean 'item_id'?"),
    ("id empty", (ID, 'item_id_field: ""'), "16: data_config.negative_sampler.item_id_field: is empty"),
    ("no id", (ID, ""), "12: data_config.negative_sampler.item_id_field: is missing"),
    ("no table", ('"items.txt"', '" "'), "13: data_config.negative_sampler.input_path: is empty"),
    ("table missing", ('input_path: "items.txt"', ""), "12: data_config.negative_sampler.input_path: is missing"),
    ("nothing sampled", ("num_sample: 8", "num_sample: 0"),
     "14: data_config.negative_sampler.num_sample: is 0, must be at least 1"),
    ("nothing sampled in evaluation", ("num_sample: 8", "num_sample: 8 num_eval_sample: 0"),
     "14: data_config.negative_sampler.num_eval_sample: is 0, must be at least 1"),
    ("no delimiter", (ID, f'{ID} attr_delimiter: ""'), "16: data_config.negative_sampler.attr_delimiter: is empty"),
    ("one delimiter for both", (ID, f'{ID} attr_delimiter: "|" field_delimiter: "|"'),
     "16: data_config.negative_sampler.attr_delimiter: is '|', as the delimiter of columns is"),
    ("a group on two kinds of rows", (ATTRS, '["item_id", "brand"]'),
     "30: model_config.feature_groups[1].feature_names: group 'item' of the item tower has 'price', which sampled items lack"),
    ("padded with nothing", (ATTRS, '["item_id", "brand"]'), ("fg_mode", "force_base_data_group: true fg_mode"),
     "30: model_config.feature_groups[1].feature_names: group 'item' of the item tower has 'price', which sampled items lack"),
    ("items of the user", ('["user", "age", ', '["user", "age", "brand", '),
     "29: model_config.feature_groups[0].feature_names: group 'user' of the user tower has 'brand', which negative_sampler samples with the items"),
    ("a cross", ("model_config {", COMBO + "model_config {"), ('"brand", "price"] group', '"brand", "price", "mix"] group'),
     "28: feature_configs[6].combo_feature: feature 'mix' reads 'brand', which the sampler adds rows to, and 'user_id', which it does not"),
    ("a cross by features", ("model_config {", CHAIN + "model_config {"), ('"brand", "price"] group', '"brand", "price", "far"] group'),
     "29: feature_configs[7].expr_feature: feature 'near' reads 'brand', which the sampler adds rows to, and 'age', which it does not"),
    ("another model", *DEEPFM, "12: data_config.negative_sampler: DeepFM learns from labels, not from sampled items"),
    ("a tree", *TDM, "12: data_config.tdm_sampler: tdm_sampler is for TDM, not for DSSM"),
    ("order of levels", *TDM, (ID, f'{ID} probability_type: "UNIFORMLY"'),
     "16: data_config.tdm_sampler.probability_type: is 'UNIFORMLY', must be one of UNIFORM, ARITHMETIC, RECIPROCAL; did you mean 'UNIFORM'?"),
    ("remaining levels", *TDM, (ID, f"{ID} remain_ratio: 0"), "16: data_config.tdm_sampler.remain_ratio: is 0, must be above 0 and at most 1"),
    ("candidates", (ID, 'item_id_field: "cand__video"'),
     "16: data_config.negative_sampler.item_id_field: 'cand__video' is a step of 'cand': rows with several items, and DSSM learns one item a row"),
    ("too few steps", (ID, 'item_id_field: "cand__video"'), ("num_sample: 8", "num_sample: 50"),
     "25: feature_configs[5].sequence_feature.sequence_length: is 50, but the last row of a batch gets the 50 sampled items too"),
    ("a sequence by itself", ("sequence_feature {\n", 'sequence_id_feature { feature_name: "own" sequence_length: 5 sequence_delim: "|" expression: "item:own" num_buckets: 9 embedding_dim: 4 } }\nfeature_configs { sequence_feature {\n'),
     (ID, 'item_id_field: "own"'), ('"cand__video"', '"cand__video", "own"'),
     "16: data_config.negative_sampler.item_id_field: 'own' is read by the sequence 'own'"),
    ("undeclared id", ("fg_mode", 'input_fields_str: "user_id:INT64;age:INT64;item:INT64;brand:INT64;price:FLOAT;cand__video:STRING;clk:INT64" fg_mode'),
     "16: data_config.negative_sampler.item_id_field: id column 'item_id' is not in the input_fields"),
]  # fmt: skip


def lines_of(tmp_path, *changes):
    with pytest.raises(ConfigError) as caught:
        prepare(write(tmp_path / "c.config", DSSM, *changes), log_warnings=False)
    lines = str(caught.value).replace(f"{tmp_path}/", "").splitlines()
    return [line.removeprefix("c.config:") for line in lines if not line.startswith("  ")]


def warnings_of(tmp_path, *changes):
    pipeline = prepare(write(tmp_path / "c.config", DSSM, *changes), log_warnings=False)
    return [line.partition(": ")[2].splitlines()[0] for line in pipeline.warning_lines()]


def test_a_right_config(tmp_path):
    assert warnings_of(tmp_path) == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_mistake(tmp_path, case):
    _, *changes, wanted = case
    lines = lines_of(tmp_path, *changes)
    assert [line for line in lines if line.startswith(wanted)], lines


def test_all_of_them_come_together(tmp_path):
    lines = lines_of(
        tmp_path,
        ("num_sample: 8", "num_sample: 0"),
        (ATTRS, '["brand", "price", "price"]'),
        ('["user", "age", ', '["user", "age", "brand", '),
    )
    assert [int(line.partition(":")[0]) for line in lines] == [14, 15, 15, 29, 30]


WARNINGS = [
    ((ATTRS, '["item_id", "brand", "price", "brandy"]'),
     "data_config.negative_sampler.attr_fields[3]: no feature reads 'brandy', its values are left out; did you mean 'brand'?"),
    ((ID, f'{ID} item_id_delim: ","'), "data_config.negative_sampler.item_id_delim: has no effect: a row has one id"),
    ((f"{SAMPLER}\n    input_path: \"items.txt\"", 'negative_sampler_v2 { item_input_path: "i" user_input_path: "u" pos_edge_input_path: "e" user_id_field: "user_id" weight_field: "w"'),
     "data_config.negative_sampler_v2.weight_field: has no effect: this sampler draws all items with a positive edge alike"),
    (("fg_mode", "negative_sample_mask_prob: 0.5 fg_mode"),
     "data_config.negative_sample_mask_prob: has no effect: no feature has use_mask: true"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "wanted"), WARNINGS)
def test_what_has_no_effect(tmp_path, change, wanted):
    assert warnings_of(tmp_path, change) == [wanted]


def test_without_a_sampler(tmp_path):
    start, stop = DSSM.index("  negative_sampler"), DSSM.index("}\nfeature_configs")
    changes = [
        (DSSM[start:stop], "force_base_data_group: true negative_sample_mask_prob: 0.5\n"),
        ("output_dim: 4", "output_dim: 4 in_batch_negative: true"),
    ]
    assert sorted(warnings_of(tmp_path, *changes)) == [
        "data_config.force_base_data_group: has no effect: no sampler puts features on other rows than those of the batch",
        "data_config.negative_sample_mask_prob: has no effect without a sampler",
    ]


def test_one_data_group_allows_other_groups_to_mix(tmp_path):
    group = 'feature_groups { group_name: "both" feature_names: ["age", "brand"] group_type: DEEP }'
    apart = [("  dssm {", f"  {group}\n  dssm {{")]
    rows = "group 'both' has features of sampled columns, 'brand', and others, 'age': their rows differ"
    assert any(line.endswith(rows) for line in lines_of(tmp_path, *apart))
    together = [*apart, ("fg_mode", "force_base_data_group: true fg_mode")]
    assert not any("rows differ" in line for line in warnings_of(tmp_path, *together))


def test_a_feature_of_item_columns_only_may_read_several(tmp_path):
    combo = COMBO.replace("user:user_id", "item:item_id")
    changes = [
        ("model_config {", combo + "model_config {"),
        ('"brand", "price"] group', '"brand", "price", "mix"] group'),
    ]
    assert warnings_of(tmp_path, *changes) == []


def test_items_without_an_id_feature(tmp_path):
    """The id only tells which items are positives."""
    changes = [
        ('"item:item_id"', '"item:kind"'),
        (ATTRS, '["kind", "brand", "price"]'),
        (ID, 'item_id_field: "number"'),
    ]
    assert warnings_of(tmp_path, *changes) == []


def test_prediction_has_no_sampler(tmp_path):
    path = write(tmp_path / "c.config", DSSM, (ATTRS, '["brand"]'))
    prepare(path, for_serving=True, log_warnings=False)
