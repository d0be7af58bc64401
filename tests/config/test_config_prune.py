"""A config with fewer features keeps what anything still needs."""

from google.protobuf import text_format

from tzrec.config.prune import keep_features, prune_features
from tzrec.protos.pipeline_pb2 import EasyRecConfig

CONFIG = """
train_input_path: "" eval_input_path: "" model_dir: ""
data_config { fg_mode: FG_DAG }
feature_configs { id_feature { feature_name: "user" expression: "user:user" } }
feature_configs { id_feature { feature_name: "city" expression: "user:city" } }
feature_configs { combo_feature {
  feature_name: "pair" expression: ["feature:city", "item:item"] } }
feature_configs { id_feature { feature_name: "item" expression: "item:item" } }
feature_configs { raw_feature { feature_name: "price" expression: "item:price" } }
feature_configs { sequence_id_feature { feature_name: "tags" expression: "user:tags" } }
feature_configs { sequence_feature { sequence_name: "click"
  features { id_feature { feature_name: "item" expression: "item:item" } }
  features { id_feature { feature_name: "cate" expression: "item:cate" } } } }
feature_configs { id_feature { feature_name: "idle" expression: "user:idle" } }
model_config {
  feature_groups { group_name: "wide" feature_names: ["price", "item"] group_type: WIDE }
  feature_groups { group_name: "deep" feature_names: ["item", "pair", "tags", "price"]
    sequence_groups { group_name: "s" feature_names: ["item", "click__item"] } }
  metrics { grouped_auc { grouping_key: "user" } }
}
"""


def pruned(keep):
    config = text_format.Parse(CONFIG, EasyRecConfig())
    before = text_format.MessageToString(config)
    result = prune_features(config, keep)
    assert text_format.MessageToString(config) == before
    groups = {g.group_name: list(g.feature_names) for g in result.model_config.feature_groups}
    names = []
    for wrapper in result.feature_configs:
        feature = getattr(wrapper, wrapper.WhichOneof("feature"))
        names.append(getattr(feature, "feature_name", "") or feature.sequence_name)
    return groups, names, result


def test_groups_keep_what_is_kept_and_their_sequences():
    groups, names, _ = pruned({"deep": ["price"]})
    assert groups == {"wide": ["price", "item"], "deep": ["tags", "price"]}
    # item: of the nested sequence group and wide; user: the grouping key.
    assert names == ["user", "item", "price", "tags", "click"]


def test_what_a_kept_feature_is_made_of_stays():
    groups, names, _ = pruned({"deep": ["pair"], "wide": ["item"]})
    assert groups == {"wide": ["item"], "deep": ["pair", "tags"]}
    assert names == ["user", "city", "pair", "item", "tags", "click"]


def test_a_sequence_that_nothing_reads_goes():
    config = text_format.Parse(CONFIG, EasyRecConfig())
    del config.model_config.feature_groups[1].sequence_groups[:]
    result = prune_features(config, {})
    kinds = [wrapper.WhichOneof("feature") for wrapper in result.feature_configs]
    assert "sequence_feature" not in kinds
    assert "sequence_id_feature" in kinds


def test_the_order_of_a_group_is_that_of_the_config():
    groups, _, _ = pruned({"deep": ["price", "item"]})
    assert groups["deep"] == ["item", "tags", "price"]


def test_some_features_and_what_they_are_made_of():
    config = text_format.Parse(CONFIG, EasyRecConfig())
    before = text_format.MessageToString(config)
    sequence = next(f.sequence_feature for f in config.feature_configs if f.HasField(
        "sequence_feature"))  # fmt: skip
    subs = [getattr(sub, sub.WhichOneof("feature")).feature_name for sub in sequence.features]
    result = keep_features(config, ["pair", f"click__{subs[0]}"])
    assert text_format.MessageToString(config) == before
    assert list(result.model_config.feature_groups) == list(config.model_config.feature_groups)
    kept = [getattr(f, f.WhichOneof("feature")) for f in result.feature_configs]
    # In the order of the config, whatever was asked for first.
    assert [getattr(f, "feature_name", "") or f.sequence_name for f in kept] == [
        "city",
        "pair",
        "click",
    ]
    assert list(kept[2].features) == [sequence.features[0]]
