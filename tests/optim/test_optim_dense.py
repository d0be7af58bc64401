"""Every dense optimizer and each of its fields against `torch.optim`."""

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from test_optim_optimizer import Model, assert_same, build_optimizer, reference, run, train_config

from tzrec.protos.optimizer_pb2 import DenseOptimizer, PartOptimizer

SEEDS = (1, 2, 3, 4, 5)

CASES = [
    ("sgd_optimizer { lr: 0.1 }", "SGD", {"momentum": 0.9}),
    ("sgd_optimizer { lr: 0.1 momentum: 0.5 }", "SGD", {"momentum": 0.5}),
    ("sgd_optimizer { lr: 0.1 weight_decay: 0.3 }", "SGD", {"momentum": 0.9, "weight_decay": 0.3}),
    ("sgd_optimizer { lr: 0.1 dampening: 0.4 }", "SGD", {"momentum": 0.9, "dampening": 0.4}),
    ("sgd_optimizer { lr: 0.1 nesterov: true }", "SGD", {"momentum": 0.9, "nesterov": True}),
    ("adagrad_optimizer { lr: 0.1 }", "Adagrad", {}),
    ("adagrad_optimizer { lr: 0.1 weight_decay: 0.3 }", "Adagrad", {"weight_decay": 0.3}),
    (
        "adagrad_optimizer { lr: 0.1 initial_accumulator_value: 0.5 }",
        "Adagrad",
        {"initial_accumulator_value": 0.5},
    ),
    ("adagrad_optimizer { lr: 0.1 eps: 0.1 }", "Adagrad", {"eps": 0.1}),
    ("adam_optimizer { lr: 0.1 }", "Adam", {}),
    ("adam_optimizer { lr: 0.1 beta1: 0.5 beta2: 0.6 }", "Adam", {"betas": (0.5, 0.6)}),
    ("adam_optimizer { lr: 0.1 weight_decay: 0.3 }", "Adam", {"weight_decay": 0.3}),
    ("adam_optimizer { lr: 0.1 eps: 0.1 }", "Adam", {"eps": 0.1}),
    (
        "adam_optimizer { lr: 0.1 beta2: 0.2 amsgrad: true }",
        "Adam",
        {"betas": (0.9, 0.2), "amsgrad": True},
    ),
    ("adamw_optimizer { lr: 0.1 }", "AdamW", {"weight_decay": 0.0}),
    ("adamw_optimizer { lr: 0.1 weight_decay: 0.3 }", "AdamW", {"weight_decay": 0.3}),
    (
        "adamw_optimizer { lr: 0.1 beta1: 0.5 beta2: 0.6 eps: 0.1 }",
        "AdamW",
        {"weight_decay": 0.0, "betas": (0.5, 0.6), "eps": 0.1},
    ),
    (
        "adamw_optimizer { lr: 0.1 beta2: 0.2 amsgrad: true }",
        "AdamW",
        {"weight_decay": 0.0, "betas": (0.9, 0.2), "amsgrad": True},
    ),
    ("adadelta_optimizer { lr: 0.1 }", "Adadelta", {"rho": 0.95, "eps": 1e-6}),
    (
        "adadelta_optimizer { lr: 0.1 rho: 0.5 eps: 0.1 weight_decay: 0.3 }",
        "Adadelta",
        {"rho": 0.5, "eps": 0.1, "weight_decay": 0.3},
    ),
    ("rmsprop_optimizer { lr: 0.1 }", "RMSprop", {"alpha": 0.99}),
    (
        "rmsprop_optimizer { lr: 0.1 alpha: 0.5 eps: 0.1 weight_decay: 0.3 }",
        "RMSprop",
        {"alpha": 0.5, "eps": 0.1, "weight_decay": 0.3},
    ),
]


def _as_in_the_config(value):
    """Rounds to single precision, as the config's fields are."""
    if isinstance(value, tuple):
        return tuple(map(_as_in_the_config, value))
    return float(np.float32(value)) if isinstance(value, float) else value


def _trained(config):
    model = Model()
    run(model, build_optimizer(model, config), SEEDS)
    return {name: p.detach().clone() for name, p in model.model.tower.named_parameters()}


@pytest.mark.parametrize(("text", "name", "kwargs"), CASES, ids=[case[0] for case in CASES])
def test_update_is_torchs(text, name, kwargs):
    optimizer = getattr(torch.optim, name)
    kwargs = {key: _as_in_the_config(value) for key, value in kwargs.items()}
    rate = _as_in_the_config(0.1)
    expected = reference(lambda p: optimizer(p, lr=rate, foreach=False, **kwargs), SEEDS)
    assert_same(_trained(train_config(text)), expected)


@pytest.mark.parametrize("name", ["sgd", "adagrad", "adam", "adamw"])
def test_fused_kernels_give_the_same_update(name):
    fused, plain = (
        _trained(train_config(f"{name}_optimizer {{ lr: 0.1 fused: {fused} }}"))
        for fused in ("true", "false")
    )
    assert_same(fused, plain)


@pytest.mark.parametrize("message", [DenseOptimizer, PartOptimizer])
def test_every_optimizer_of_the_schema_is_tried_with_every_field(message):
    tried = {}
    for text, _, _ in CASES:
        config = text_format.Parse(text, DenseOptimizer())
        name = config.WhichOneof("optimizer")
        fields = {field.name for field, _ in getattr(config, name).ListFields()}
        tried.setdefault(name, {"fused"}).update(fields)
    for field in message.DESCRIPTOR.oneofs_by_name["optimizer"].fields:
        assert {f.name for f in field.message_type.fields} <= tried[field.name], field.name


def test_a_part_optimizer_updates_as_the_same_optimizer_alone():
    part = "part_optimizers { regex_pattern: 'model.tower.*' rmsprop_optimizer { lr: 0.1 } }"
    rate, alpha = _as_in_the_config((0.1, 0.99))
    expected = reference(lambda p: torch.optim.RMSprop(p, lr=rate, alpha=alpha), SEEDS)
    assert_same(_trained(train_config("sgd_optimizer { lr: 9 } " + part)), expected)
