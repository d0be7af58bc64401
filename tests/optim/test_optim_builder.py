"""Optimizer messages against what the schema's reference says they are."""

import math

import pytest
import torch
from google.protobuf import text_format

from tzrec.config.specs import SPARSE_OPTIMIZERS
from tzrec.errors import ConfigError
from tzrec.ops.cpu.rule import UpdateRule
from tzrec.optim.optimizer_builder import (
    create_dense_optimizer,
    create_part_optimizers,
    create_sparse_optimizer,
)
from tzrec.protos.optimizer_pb2 import DenseOptimizer, SparseOptimizer


def sparse(text, **kwargs):
    return create_sparse_optimizer(text_format.Parse(text, SparseOptimizer()), **kwargs)


def dense(text):
    return create_dense_optimizer(text_format.Parse(text, DenseOptimizer()))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("sgd_optimizer { lr: 0.5 }", UpdateRule("sgd", 0.5)),
        ("adagrad_optimizer { lr: 0.5 }", UpdateRule("adagrad", 0.5)),
        (
            "adagrad_optimizer { lr: 0.5 initial_accumulator_value: 0.25 }",
            UpdateRule("adagrad", 0.5, initial_accumulator_value=0.25),
        ),
        ("rowwise_adagrad_optimizer { lr: 0.5 }", UpdateRule("rowwise_adagrad", 0.5)),
        (
            "rowwise_adagrad_optimizer { lr: 0.5 weight_decay: 0.25 weight_decay_mode: L2 }",
            UpdateRule("rowwise_adagrad", 0.5, weight_decay=0.25, weight_decay_mode="l2"),
        ),
        (
            "rowwise_adagrad_optimizer { lr: 0.5 weight_decay: 0.25 weight_decay_mode: DECOUPLE }",
            UpdateRule("rowwise_adagrad", 0.5, weight_decay=0.25, weight_decay_mode="decoupled"),
        ),
        (
            "adam_optimizer { lr: 0.5 beta1: 0.25 beta2: 0.75 weight_decay: 0.125 }",
            UpdateRule(
                "adam",
                0.5,
                beta1=0.25,
                beta2=0.75,
                weight_decay=0.125,
                weight_decay_mode="decoupled",
            ),
        ),
        (
            "partial_rowwise_adam_optimizer"
            " { lr: 0.5 beta1: 0.25 beta2: 0.75 weight_decay: 0.125 }",
            UpdateRule(
                "partial_rowwise_adam",
                0.5,
                beta1=0.25,
                beta2=0.75,
                weight_decay=0.125,
                weight_decay_mode="decoupled",
            ),
        ),
        *(
            (
                f"{kind}_optimizer {{ lr: 0.5 beta1: 0.25 beta2: 0.75 weight_decay: 0.125 }}",
                UpdateRule(
                    kind,
                    0.5,
                    beta1=0.25,
                    beta2=0.75,
                    weight_decay=0.125,
                    weight_decay_mode="own",
                ),
            )
            for kind in ("lamb", "partial_rowwise_lamb")
        ),
        (
            "lars_sgd_optimizer { lr: 0.5 momentum: 0.25 weight_decay: 0.125 }",
            UpdateRule("lars_sgd", 0.5, momentum=0.25, weight_decay=0.125, weight_decay_mode="own"),
        ),
        (
            "adadelta_optimizer { lr: 0.5 rho: 0.25 eps: 0.125 weight_decay: 0.5 }",
            UpdateRule(
                "adadelta", 0.5, rho=0.25, eps=0.125, weight_decay=0.5, weight_decay_mode="l2"
            ),
        ),
        (
            "rmsprop_optimizer { lr: 0.5 alpha: 0.25 eps: 0.125 weight_decay: 0.5 }",
            UpdateRule(
                "rmsprop", 0.5, alpha=0.25, eps=0.125, weight_decay=0.5, weight_decay_mode="l2"
            ),
        ),
        (
            "sgd_optimizer { lr: 0.5 gradient_clipping: true max_gradient: 0.25 }",
            UpdateRule("sgd", 0.5, max_gradient=0.25),
        ),
        (
            "sgd_optimizer { lr: 0.5 gradient_clipping: false max_gradient: 0.25 }",
            UpdateRule("sgd", 0.5),
        ),
    ],
)
def test_sparse_optimizers(text, rule):
    assert sparse(text) == rule


@pytest.mark.parametrize("name", SPARSE_OPTIMIZERS)
def test_sparse_defaults(name):
    """The schema's reference: what each optimizer is when only the learning rate is given."""
    rule = sparse(f"{name} {{ lr: 0.5 gradient_clipping: true }}")
    assert name == f"{rule.kind}_optimizer"
    assert rule.max_gradient == 1.0
    assert (rule.beta1, rule.beta2) == pytest.approx((0.9, 0.999))
    assert (rule.momentum, rule.rho, rule.alpha) == pytest.approx((0.9, 0.95, 0.99))
    assert rule.eps == pytest.approx(1e-6 if rule.kind == "adadelta" else 1e-8)
    assert rule.weight_decay == rule.initial_accumulator_value == 0
    assert math.isinf(sparse(f"{name} {{ lr: 0.5 }}").max_gradient)


def test_every_sparse_optimizer_of_the_schema_is_built():
    oneof = SparseOptimizer.DESCRIPTOR.oneofs_by_name["optimizer"]
    assert {field.name for field in oneof.fields} == set(SPARSE_OPTIMIZERS)


def test_embedding_l2_is_part_of_the_rule():
    assert sparse("sgd_optimizer { lr: 0.5 }", embedding_l2=0.25).embedding_l2 == 0.25


def test_no_optimizer():
    with pytest.raises(ConfigError, match="sparse_optimizer selects no optimizer"):
        sparse("")
    with pytest.raises(ConfigError, match="dense_optimizer selects no optimizer"):
        dense("")
    with pytest.raises(ConfigError, match=r"part_optimizers\[0\] selects no optimizer"):
        create_part_optimizers(
            text_format.Parse("part_optimizers { regex_pattern: 'x' }", DenseOptimizer())
        )


@pytest.mark.parametrize(
    ("text", "optimizer_class", "expected"),
    [
        (
            "sgd_optimizer { lr: 0.5 }",
            torch.optim.SGD,
            {"momentum": 0.9, "weight_decay": 0, "dampening": 0, "nesterov": False},
        ),
        (
            "sgd_optimizer { lr: 0.5 momentum: 0.25 nesterov: true }",
            torch.optim.SGD,
            {"momentum": 0.25, "nesterov": True},
        ),
        (
            "adagrad_optimizer { lr: 0.5 initial_accumulator_value: 0.25 }",
            torch.optim.Adagrad,
            {"initial_accumulator_value": 0.25, "eps": 1e-10, "weight_decay": 0},
        ),
        (
            "adam_optimizer { lr: 0.5 weight_decay: 0.25 amsgrad: true }",
            torch.optim.Adam,
            {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.25, "amsgrad": True},
        ),
        (
            "adamw_optimizer { lr: 0.5 beta1: 0.5 }",
            torch.optim.AdamW,
            {"betas": (0.5, 0.999), "weight_decay": 0},
        ),
        ("adadelta_optimizer { lr: 0.5 }", torch.optim.Adadelta, {"rho": 0.95, "eps": 1e-6}),
        ("rmsprop_optimizer { lr: 0.5 }", torch.optim.RMSprop, {"alpha": 0.99, "eps": 1e-8}),
    ],
)
def test_dense_optimizers(text, optimizer_class, expected):
    optimizer = dense(text).build([torch.nn.Parameter(torch.ones(2))])
    assert type(optimizer) is optimizer_class
    (group,) = optimizer.param_groups
    assert group["lr"] == 0.5
    for name, value in expected.items():
        assert group[name] == pytest.approx(value, rel=1e-6), name


@pytest.mark.parametrize(
    ("text", "fused"), [("", True), ("fused: true", True), ("fused: false", False)]
)
def test_fused_unless_the_config_says_no(text, fused):
    assert dense(f"adam_optimizer {{ lr: 0.5 {text} }}").kwargs["fused"] is fused


def test_part_optimizers():
    config = text_format.Parse(
        """
        adam_optimizer { lr: 0.5 }
        constant_learning_rate {}
        part_optimizers { regex_pattern: "a.*" sgd_optimizer { lr: 0.25 } }
        part_optimizers {
          regex_pattern: "b"
          adagrad_optimizer { lr: 0.125 }
          cosine_annealing_learning_rate { T_max: 3 }
        }
        """,
        DenseOptimizer(),
    )
    first, second = create_part_optimizers(config)
    assert first.optimizer_class is torch.optim.SGD
    assert first.config is config  # the main schedule
    assert first.pattern.fullmatch("abc")
    assert second.config.WhichOneof("learning_rate") == "cosine_annealing_learning_rate"


def test_a_pattern_that_is_none():
    config = text_format.Parse(
        "part_optimizers { regex_pattern: 'a(' sgd_optimizer { lr: 1 } }", DenseOptimizer()
    )
    with pytest.raises(ConfigError, match=r"part_optimizers\[0\]\.regex_pattern 'a\('"):
        create_part_optimizers(config)
