"""Features from configs: names, sequences, data groups, what is refused, and back."""

import pickle

import pytest
from features_helpers import config, feature, id_feature, raw_feature

from tzrec.constant import BASE_DATA_GROUP, NEG_DATA_GROUP
from tzrec.errors import ConfigError
from tzrec.features.feature import (
    BaseFeature,
    FgMode,
    create_feature_configs,
    create_features,
)
from tzrec.features.id_feature import IdFeature
from tzrec.features.raw_feature import RawFeature
from tzrec.protos.data_pb2 import FgMode as FgModeProto

ID = 'id_feature { feature_name: "cat" expression: "item:cat" embedding_dim: 4 num_buckets: 10 }'
RAW = 'raw_feature { feature_name: "price" expression: "item:price" }'
SEQUENCE = f"""sequence_feature {{
  sequence_name: "click" sequence_length: 50 sequence_delim: "|"
  features {{ {ID} }} features {{ {RAW} }}
}}"""
OWN_SEQUENCE = """sequence_id_feature {
  feature_name: "seen" expression: "user:seen" embedding_dim: 4 num_buckets: 10 sequence_length: 9
  sequence_delim: "#"
}"""


def test_kinds_and_order():
    features = create_features([config(text) for text in (RAW, SEQUENCE, ID, OWN_SEQUENCE)])
    assert [f.name for f in features] == ["price", "click__cat", "click__price", "cat", "seen"]
    assert [type(f) for f in features] == [RawFeature, IdFeature, RawFeature, IdFeature, IdFeature]
    assert [f.inputs for f in features] == [[f.name] for f in features]
    assert [f.is_sequence for f in features] == [False, True, True, False, True]
    assert [f.is_grouped_sequence for f in features] == [False, True, True, False, False]
    assert [f.is_sparse for f in features] == [False, True, False, True, True]
    assert repr(features[1]) == "IdFeature('click__cat')"


def test_sequence_settings():
    grouped, _ = create_features([config(SEQUENCE)])
    assert grouped.sequence_name == "click"
    assert grouped.sequence_delim == "|"
    assert grouped.sequence_length == 50
    assert grouped.sequence_pk == "user:click"
    assert grouped.embedding_name == "click__cat_emb"
    own = feature(OWN_SEQUENCE)
    assert (own.sequence_name, own.sequence_delim, own.sequence_length) == (None, "#", 9)
    plain = feature(
        OWN_SEQUENCE.replace('sequence_delim: "#"', "").replace("sequence_length: 9", "")
    )
    assert (plain.sequence_delim, plain.sequence_length) == (";", 0)
    scalar = feature(ID)
    assert (scalar.sequence_delim, scalar.sequence_length, scalar.sequence_pk) == (None, None, None)


def test_sequence_pk():
    text = SEQUENCE.replace("sequence_length", 'sequence_pk: "user:pk" sequence_length')
    assert create_features([config(text)])[0].sequence_pk == "user:pk"


def test_one_by_one_as_the_interface_does():
    own = IdFeature(config(OWN_SEQUENCE), fg_mode=FgMode.FG_NONE)
    assert own.is_sequence
    sub = BaseFeature.create_class("IdFeature")(
        config(ID),
        is_sequence=True,
        sequence_name="click",
        sequence_delim=";",
        sequence_length=50,
        sequence_pk="user:click",
    )
    assert sub.name == "click__cat"


def test_value_dim():
    assert id_feature().value_dim == 0
    assert id_feature("value_dim: 1").value_dim == 1
    assert feature(OWN_SEQUENCE).value_dim == 1
    assert (
        feature(OWN_SEQUENCE.replace("sequence_length", "value_dim: 0 sequence_length")).value_dim
        == 0
    )
    assert raw_feature().value_dim == 1
    assert raw_feature("value_dim: 3").value_dim == 3


def test_modes_are_those_of_the_schema():
    assert {mode.name: mode.value for mode in FgMode} == dict(FgModeProto.items())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no feature is set"),
        (
            'sequence_feature { sequence_name: "s" features { } }',
            r"feature_configs\[0\].sequence_feature.features\[0\]: no feature is set",
        ),
        (SEQUENCE.replace('"click"', '""'), "sequence_name is empty"),
        (SEQUENCE.replace('"|"', '""'), "sequence_delim is empty"),
        (RAW.replace(" }", " value_dim: 0 }"), "value_dim is 0"),
        (
            RAW.replace(" }", " mlp {} embedding_dim: 4 boundaries: 1 }"),
            "mlp and boundaries exclude",
        ),
        (
            RAW.replace(" }", " autodis { num_channels: 2 } embedding_dim: 4 value_dim: 2 }"),
            "autodis embeds one number",
        ),
        (ID.replace(" }", ' pooling: "max" }'), "pooling is 'max', must be sum or mean"),
        (ID.replace(" }", ' data_type: "FP8" }'), "data_type is 'FP8', must be FP32 or FP16"),
        (ID.replace(" }", ' init_fn: "print" }'), r"IdFeature\[cat\]: init_fn 'print'"),
        (ID.replace(" }", ' weighted: true pooling: "mean" }'), "weighted ids are summed"),
        (
            OWN_SEQUENCE.replace("sequence_length", "weighted: true sequence_length"),
            "weighted is not",
        ),
        (ID.replace("10 }", '1 vocab_list: ["a"] }'), "num_buckets 1 is smaller"),
    ],
)
def test_refused(text, message):
    with pytest.raises(ConfigError, match=message) as error:
        create_features([config(text)])
    assert str(error.value).startswith("feature_configs[0]")


def test_same_name_twice():
    with pytest.raises(
        ConfigError, match=r"feature_configs\[1\]: feature 'cat' is configured twice"
    ):
        create_features([config(ID), config(ID)])


def test_empty_multival_separator():
    with pytest.raises(ConfigError, match="fg_encoded_multival_sep is empty"):
        create_features([config(ID)], fg_encoded_multival_sep="")


@pytest.mark.parametrize(
    "text",
    [
        ID.replace("embedding_dim: 4", "embedding_dim: 0"),
        RAW.replace(" }", " boundaries: 1 }"),
        RAW.replace(" }", " mlp {} }"),
    ],
)
def test_an_embedded_feature_needs_a_width(text):
    (made,) = create_features([config(text)])
    with pytest.raises(ConfigError, match="embedding_dim is missing or 0"):
        _ = made.output_dim


def test_stubs_are_there_where_others_read_them():
    stub = config(ID.replace(" }", " stub_type: true }"))

    def names(mode):
        return [f.name for f in create_features([stub, config(RAW)], fg_mode=mode)]

    assert names(FgMode.FG_NONE) == names(FgMode.FG_BUCKETIZE) == ["price"]
    assert names(FgMode.FG_DAG) == ["cat", "price"]
    with pytest.raises(ConfigError, match="stub_type needs FG_DAG"):
        names(FgMode.FG_NORMAL)


def test_data_groups():
    configs = [config(text) for text in (ID, RAW, SEQUENCE)]

    def groups(**options):
        return [f.data_group for f in create_features(configs, **options)]

    base, neg = BASE_DATA_GROUP, NEG_DATA_GROUP
    assert groups() == [base] * 4
    assert groups(neg_fields=["cat", "click__price"]) == [neg, base, base, neg]
    assert groups(neg_fields=["cat"], force_base_data_group=True) == [base] * 4
    (forced, *_) = create_features(configs, neg_fields=["cat"], force_base_data_group=True)
    assert forced.reads_sampled_rows


def test_configs_come_back():
    configs = [config(text) for text in (RAW, SEQUENCE, ID, OWN_SEQUENCE)]
    features = create_features(configs)
    again = create_feature_configs(features)
    configs[1].sequence_feature.sequence_pk = "user:click"
    assert again == configs
    assert [f.name for f in create_features(again)] == [f.name for f in features]


def test_assets_move(tmp_path):
    (tmp_path / "words").write_text("a\nb\n")
    text = ID.replace(
        "num_buckets: 10", f'vocab_file: "{tmp_path}/words" default_bucketize_value: 0'
    )
    features = create_features([config(text), config(RAW)])
    moved, raw = create_feature_configs(features, asset_dir="assets")
    assert (moved.id_feature.asset_dir, moved.id_feature.vocab_file) == ("assets", "words")
    assert raw == config(RAW)
    assert create_feature_configs(features)[0] == config(text)
    (again,) = create_features([create_feature_configs(features, asset_dir=str(tmp_path))[0]])
    assert again.num_embeddings == 2


def test_features_travel_to_worker_processes():
    made = id_feature('init_fn: "nn.init.zeros_" default_value: "3" use_mask: true')
    again = pickle.loads(pickle.dumps(made))
    assert (again.name, again.num_embeddings, again.fg_encoded_default) == ("cat", 10, [3])
