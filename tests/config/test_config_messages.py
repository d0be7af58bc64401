"""Messages as keyword arguments, and the facts tables against the schema."""

from __future__ import annotations

import struct

import pytest
from config_samples import DEEPFM, DIN
from google.protobuf import text_format

from tzrec.config import config_to_kwargs, which_field, which_msg
from tzrec.config import specs as config_specs
from tzrec.config.messages import shortest_float, walk
from tzrec.config.model_facts import MODELS
from tzrec.config.schema import _messages
from tzrec.config.validate import MESSAGE_RULES
from tzrec.config.validate.bounds import BOUNDS, CASELESS_CHOICES, CHOICES, describe, inside
from tzrec.config.validate.required import _OPTIONAL
from tzrec.protos import feature_pb2, loss_pb2, metric_pb2, model_pb2, module_pb2, optimizer_pb2
from tzrec.protos.pipeline_pb2 import EasyRecConfig


def test_mlp_with_defaults():
    mlp = module_pb2.MLP(hidden_units=[8, 4], dropout_ratio=[0.1])
    assert config_to_kwargs(mlp) == {
        "hidden_units": [8, 4],
        "dropout_ratio": [0.1],
        "activation": "nn.ReLU",
        "use_bn": False,
        "bias": True,
        "use_ln": False,
    }


def test_messages_and_oneof_members_appear_only_when_set():
    raw = feature_pb2.RawFeature(feature_name="a")
    kwargs = config_to_kwargs(raw)
    assert "autodis" not in kwargs
    assert "embedding_constraints" not in kwargs
    assert kwargs["embedding_dim"] == 0
    assert kwargs["default_value"] == "0"
    raw.autodis.num_channels = 3
    assert config_to_kwargs(raw)["autodis"] == {
        "num_channels": 3,
        "temperature": 0.1,
        "keep_prob": 0.8,
    }


def test_maps_enums_structs_and_big_numbers():
    feature = feature_pb2.IdFeature(num_buckets=2**63)
    feature.vocab_dict["a"] = 7
    kwargs = config_to_kwargs(feature)
    assert kwargs["vocab_dict"] == {"a": 7}
    assert kwargs["num_buckets"] == 2**63
    adagrad = optimizer_pb2.FusedRowWiseAdagradOptimizer(weight_decay_mode=optimizer_pb2.DECOUPLE)
    assert config_to_kwargs(adagrad)["weight_decay_mode"] == "DECOUPLE"
    assert config_to_kwargs(adagrad)["lr"] == 0.002
    custom = model_pb2.CustomModel(class_path="a.B")
    custom.params.update({"units": [8, 4], "rate": 0.5, "deep": {"on": True, "x": None}})
    assert config_to_kwargs(custom)["params"] == {
        "units": [8, 4],
        "rate": 0.5,
        "deep": {"on": True, "x": None},
    }


@pytest.mark.parametrize("value", [0.1, 1e-12, 3.4028235e38, 16777217.0, -0.0, 1e-45, 0.002])
def test_shortest_float_is_the_same_32_bit_number(value):
    (single,) = struct.unpack("<f", struct.pack("<f", value))
    short = shortest_float(single)
    assert struct.pack("<f", short) == struct.pack("<f", single)
    assert len(repr(short)) <= len(repr(single))
    assert shortest_float(float("inf")) == float("inf")


def test_which():
    config = text_format.Parse(DEEPFM, EasyRecConfig())
    assert which_msg(config.model_config, "model") == "DeepFM"
    assert which_field(config.model_config, "model") == "deepfm"
    assert which_msg(config.model_config.losses[0], "loss") == "BinaryCrossEntropy"
    assert which_msg(config.data_config, "sampler") == ""
    assert which_field(config.data_config, "sampler") is None


def test_walk_reaches_every_message():
    config = text_format.Merge(DIN, EasyRecConfig())
    paths = dict(walk(config))
    assert paths[""] is config
    assert "feature_configs[2].sequence_feature.features[1].raw_feature" in paths
    assert "model_config.feature_groups[0].sequence_encoders[0].simple_attention" in paths


@pytest.mark.parametrize("name", [*BOUNDS, *CHOICES, *CASELESS_CHOICES, *sorted(_OPTIONAL)])
def test_tables_of_rules_name_fields_that_exist(name):
    message, field = name.split(".")
    assert field in _messages()[message].fields_by_name


def test_defaults_of_the_schema_are_inside_their_bounds():
    for name, bound in BOUNDS.items():
        message, field_name = name.split(".")
        field = _messages()[message].fields_by_name[field_name]
        if field.has_default_value:
            assert inside(field.default_value, bound) or name == "DataConfig.sample_mask_prob"


def test_message_rules_name_messages_that_exist():
    assert set(MESSAGE_RULES) <= set(_messages())


@pytest.mark.parametrize(
    ("bound", "number", "is_inside", "words"),
    [
        ("[1, inf)", 1, True, "at least 1"),
        ("[1, inf)", float("inf"), False, "at least 1"),
        ("(0, inf)", 0, False, "above 0"),
        ("(0, 1]", 1, True, "above 0 and at most 1"),
        ("[0, 1)", 1, False, "at least 0 and below 1"),
        ("[0, 1]", float("nan"), False, "between 0 and 1"),
    ],
)
def test_bounds(bound, number, is_inside, words):
    assert inside(number, bound) == is_inside
    assert describe(bound) == words


@pytest.mark.parametrize(
    ("table", "descriptor", "oneof"),
    [
        (config_specs.LOSSES, loss_pb2.LossConfig, "loss"),
        (config_specs.METRICS, metric_pb2.MetricConfig, "metric"),
        (config_specs.TRAIN_METRICS, metric_pb2.TrainMetricConfig, "metric"),
    ],
)
def test_specs_cover_the_schema(table, descriptor, oneof):
    fields = descriptor.DESCRIPTOR.oneofs_by_name[oneof].fields
    assert {field.name: field.message_type.name for field in fields} == {
        name: facts.message for name, facts in table.items()
    }


def test_optimizers_of_the_schema():
    sparse = optimizer_pb2.SparseOptimizer.DESCRIPTOR.fields_by_name
    dense = optimizer_pb2.DenseOptimizer.DESCRIPTOR.fields_by_name
    assert set(config_specs.SPARSE_OPTIMIZERS) <= set(sparse)
    assert set(config_specs.DENSE_OPTIMIZERS) <= set(dense)


def test_models_are_messages_of_the_oneof():
    fields = model_pb2.ModelConfig.DESCRIPTOR.oneofs_by_name["model"].fields
    assert set(MODELS) <= {field.message_type.name for field in fields}


def test_activations_are_those_of_torch():
    activation = pytest.importorskip("torch.nn.modules.activation")
    layers = set(activation.__all__) - {"MultiheadAttention"} | {"Identity"}
    assert set(config_specs.ACTIVATIONS) == layers
