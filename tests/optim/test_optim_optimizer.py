"""What surrounds a step: parts, accumulation, penalties, clipping, scaling, states."""

import copy
import logging

import pytest
import torch
from google.protobuf import text_format
from torch import nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.optim.keyed import CombinedOptimizer
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from tzrec.errors import ConfigError
from tzrec.ops.cpu.collections import CpuEmbeddingBagCollection
from tzrec.ops.cpu.rule import UpdateRule
from tzrec.optim.optimizer import build_optimizer
from tzrec.protos.train_pb2 import TrainConfig

SPARSE = "sparse_optimizer { adagrad_optimizer { lr: 0.5 } constant_learning_rate {} }"


class Model(nn.Module):
    """A distributed model as far as `build_optimizer` looks: names start with ``model.``."""

    def __init__(self, tables=None):
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Module()
        self.model.tower = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
        self.model.unused = nn.Linear(2, 2)
        self.model.fixed = nn.Parameter(torch.ones(2), requires_grad=False)
        self.model.ebc = tables
        found = [("model.ebc", tables.fused_optimizer)] if tables is not None else []
        self.fused_optimizer = CombinedOptimizer(found)

    def forward(self, x):
        return (self.model.tower(x) ** 2).mean()


def train_config(dense="adam_optimizer { lr: 0.1 }", more="", schedule="constant_learning_rate {}"):
    text = f"{SPARSE} dense_optimizer {{ {dense} {schedule} }} {more}"
    return text_format.Parse(text, TrainConfig())


def inputs(seed=1, rows=8):
    return torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed))


def run(model, optimizer, seeds):
    for seed in seeds:
        optimizer.zero_grad()
        optimizer.backward(model(inputs(seed)))
        optimizer.step()


def dense_of(model):
    return {name: p.detach().clone() for name, p in model.model.tower.named_parameters()}


def assert_same(first, second):
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=1e-5, atol=1e-7)


def reference(make, seeds, *, change=None):
    """Trains with a torch optimizer and ``change(parameters)`` between backward and step."""
    model = Model()
    parameters = list(model.model.tower.parameters())
    optimizer = make(parameters)
    for seed in seeds:
        optimizer.zero_grad()
        model(inputs(seed)).backward()
        if change is not None:
            change(parameters)
        optimizer.step()
    return dense_of(model)


def trained(config, seeds=(1, 2, 3)):
    model = Model()
    run(model, build_optimizer(model, config), seeds)
    return dense_of(model)


def test_plain_training_is_torchs():
    expected = reference(lambda p: torch.optim.Adam(p, lr=0.1), (1, 2, 3))
    assert_same(trained(train_config()), expected)


def test_parameters_without_gradient_stay():
    model = Model()
    before = copy.deepcopy(model.model.unused.state_dict())
    run(model, build_optimizer(model, train_config()), [1])
    assert_same(before, model.model.unused.state_dict())
    assert torch.equal(model.model.fixed, torch.ones(2))


def test_dense_l2_is_added_to_weights_only():
    def penalise(parameters):
        for parameter in parameters:
            if parameter.dim() > 1:
                parameter.grad += 0.5 * parameter.detach()

    expected = reference(
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), (1, 2, 3), change=penalise
    )
    config = train_config("sgd_optimizer { lr: 0.1 }", "dense_l2: 0.5")
    assert_same(trained(config), expected)


@pytest.mark.parametrize(
    ("text", "change"),
    [
        (
            "clipping_type: 'NORM' max_gradient: 0.05",
            lambda p: nn.utils.clip_grad_norm_(p, 0.05),
        ),
        (
            "clipping_type: 'norm' max_gradient: 0.05 norm_type: 1",
            lambda p: nn.utils.clip_grad_norm_(p, 0.05, 1.0),
        ),
        (
            "clipping_type: 'value' max_gradient: 0.01",
            lambda p: nn.utils.clip_grad_value_(p, 0.01),
        ),
        ("clipping_type: 'none' max_gradient: 0.01", None),
        ("max_gradient: 0.01", None),
    ],
)
def test_clipping(text, change):
    expected = reference(lambda p: torch.optim.SGD(p, lr=0.1), (1, 2), change=change)
    config = train_config("sgd_optimizer { lr: 0.1 momentum: 0 }", f"grad_clipping {{ {text} }}")
    assert_same(trained(config, (1, 2)), expected)


def test_clipping_type_that_is_none():
    with pytest.raises(ConfigError, match="'norms', it must be one of none, norm, value; did you"):
        build_optimizer(Model(), train_config(more="grad_clipping { clipping_type: 'norms' }"))


def test_accumulation_is_one_step_on_all_rows():
    model = Model()
    config = train_config(more="gradient_accumulation_steps: 3")
    optimizer = build_optimizer(model, config)
    before = dense_of(model)
    run(model, optimizer, [1, 2])
    assert_same(dense_of(model), before)
    run(model, optimizer, [3, 4, 5, 6])

    expected = Model()
    adam = torch.optim.Adam(expected.model.tower.parameters(), lr=0.1)
    for seeds in ((1, 2, 3), (4, 5, 6)):
        adam.zero_grad()
        expected(torch.cat([inputs(seed) for seed in seeds])).backward()
        adam.step()
    assert_same(dense_of(model), dense_of(expected))


PARTS = """
part_optimizers {
  regex_pattern: "model\\\\.tower\\\\.2\\\\.(weight|bias)"
  sgd_optimizer { lr: 0.5 momentum: 0 }
  cosine_annealing_learning_rate { T_max: 2 }
}
part_optimizers { regex_pattern: "model\\\\.tower.*" adagrad_optimizer { lr: 0.25 } }
part_optimizers { regex_pattern: "tower" sgd_optimizer { lr: 0.125 } }
"""


def test_parts_take_the_parameters_that_match_whole():
    model = Model()
    optimizer = build_optimizer(model, train_config("adam_optimizer { lr: 0.1 } " + PARTS))
    main, first, second = optimizer.param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    assert [names[id(p)] for p in main["params"]] == ["model.unused.weight", "model.unused.bias"]
    assert [names[id(p)] for p in first["params"]] == [
        "model.tower.2.weight",
        "model.tower.2.bias",
    ]
    assert [names[id(p)] for p in second["params"]] == [
        "model.tower.0.weight",
        "model.tower.0.bias",
    ]
    assert optimizer.learning_rates() == pytest.approx([0.1, 0.5, 0.25])


def test_a_part_without_parameters_is_told(caplog):
    caplog.set_level(logging.WARNING, logger="tzrec")
    build_optimizer(Model(), train_config("adam_optimizer { lr: 0.1 } " + PARTS))
    (record,) = caplog.records
    assert "'tower' is no whole name of a parameter (such as model.unused.weight)" in record.message


def test_parts_have_their_own_formula_and_schedule():
    model = Model()
    schedule = "exponential_decay_learning_rate { decay_size: 1 decay_factor: 0.5 }"
    config = train_config("adam_optimizer { lr: 0.1 } " + PARTS, schedule=schedule)
    optimizer = build_optimizer(model, config)
    before = dense_of(model)
    optimizer.zero_grad()
    optimizer.backward(model(inputs()))
    gradient = model.model.tower[2].weight.grad.clone()
    optimizer.step()
    torch.testing.assert_close(
        model.model.tower[2].weight.detach(), before["2.weight"] - 0.5 * gradient
    )
    for scheduler in optimizer.schedulers:
        scheduler.step()
    # main and second part follow the main schedule, the first part has its own
    assert optimizer.learning_rates() == pytest.approx([0.05, 0.25, 0.125])


DENSE = [
    "adam_optimizer { lr: 0.1 weight_decay: 0.1 }",
    "adam_optimizer { lr: 0.1 amsgrad: true fused: false }",
    "adamw_optimizer { lr: 0.1 weight_decay: 0.1 }",
    "sgd_optimizer { lr: 0.1 weight_decay: 0.1 }",
    "sgd_optimizer { lr: 0.1 momentum: 0 }",
    "adagrad_optimizer { lr: 0.1 weight_decay: 0.1 }",
    "adadelta_optimizer { lr: 0.1 }",
    "rmsprop_optimizer { lr: 0.1 }",
]


@pytest.mark.parametrize("dense", DENSE)
def test_a_restored_optimizer_goes_on_bit_by_bit(dense):
    config = train_config(dense)
    model = Model()
    optimizer = build_optimizer(model, config)
    run(model, optimizer, (1, 2))
    stored_model = copy.deepcopy(model.state_dict())
    stored = copy.deepcopy(optimizer.state_dict())
    run(model, optimizer, (3, 4))

    second = Model()
    restored = build_optimizer(second, config)
    second.load_state_dict(stored_model)
    restored.init_state()
    state = restored.state_dict()
    for name, values in stored["state"].items():
        state["state"][name] = values
    restored.load_state_dict(state)
    run(second, restored, (3, 4))
    for name, value in dense_of(model).items():
        assert torch.equal(value, dense_of(second)[name])


@pytest.mark.parametrize("dense", DENSE)
def test_init_state_changes_nothing(dense):
    config = train_config(dense)
    plain, prepared = Model(), Model()
    first, second = build_optimizer(plain, config), build_optimizer(prepared, config)
    second.init_state()
    assert_same(dense_of(plain), dense_of(prepared))
    assert second.learning_rates() == first.learning_rates()
    for seeds in ((1, 2),):
        run(plain, first, seeds)
        run(prepared, second, seeds)
    for name, value in dense_of(plain).items():
        assert torch.equal(value, dense_of(prepared)[name])


SCALER = " grad_scaler { init_scale: 1024 growth_interval: 2 }"


@pytest.mark.parametrize("dense", ["adam_optimizer { lr: 0.1 }", "sgd_optimizer { lr: 0.1 }"])
@pytest.mark.parametrize(
    "more", ["", "dense_l2: 0.5", "grad_clipping { clipping_type: 'norm' max_gradient: 0.05 }"]
)
def test_grad_scaler_does_not_change_the_update(dense, more):
    assert_same(trained(train_config(dense, more)), trained(train_config(dense, more + SCALER)))


def test_grad_scaler_skips_what_overflowed_and_grows_again():
    model = Model()
    optimizer = build_optimizer(model, train_config(more=SCALER))
    before = dense_of(model)
    optimizer.zero_grad()
    optimizer.backward(model(inputs()) * float("inf"))
    optimizer.step()
    for name, value in dense_of(model).items():
        assert torch.equal(value, before[name])
    assert optimizer.state_dict()["grad_scaler"]["scale"] == 512
    run(model, optimizer, (1, 2))
    state = optimizer.state_dict()
    assert state["grad_scaler"]["scale"] == 1024
    second = build_optimizer(model, train_config(more=SCALER))
    second.init_state()
    second.load_state_dict(state | {"state": second.state_dict()["state"]})
    assert second.state_dict()["grad_scaler"] == state["grad_scaler"]


def tables():
    torch.manual_seed(0)
    config = EmbeddingBagConfig(name="t", num_embeddings=5, embedding_dim=3, feature_names=["f"])
    collection = EmbeddingBagCollection(tables=[config], device=torch.device("cpu"))
    return CpuEmbeddingBagCollection(collection, UpdateRule("adagrad", 0.5))


def sparse_step(more, *, factor=1.0):
    model = Model(tables())
    optimizer = build_optimizer(model, train_config(more=more))
    kjt = KeyedJaggedTensor(["f"], torch.tensor([1, 1, 2]), lengths=torch.tensor([1, 2]))
    optimizer.zero_grad()
    optimizer.backward((model.model.ebc(kjt).values() ** 2).mean() * factor)
    optimizer.step()
    return model, optimizer


def test_tables_come_first_and_have_their_schedule():
    _, optimizer = sparse_step("")
    assert optimizer.learning_rates() == pytest.approx([0.5, 0.1])
    assert len(optimizer.schedulers) == 2
    assert "model.ebc.embedding_bags.t.weight" in optimizer.state_dict()["state"]
    assert "model.ebc.embedding_bags.t.weight" in optimizer.params


def test_tables_do_not_see_the_grad_scaler():
    expected, _ = sparse_step("")
    actual, _ = sparse_step(SCALER)
    assert torch.equal(
        actual.model.ebc.embedding_bags["t"].weight, expected.model.ebc.embedding_bags["t"].weight
    )


def test_tables_skip_what_overflowed():
    actual, _ = sparse_step(SCALER, factor=float("inf"))
    assert torch.equal(
        actual.model.ebc.embedding_bags["t"].weight, tables().embedding_bags["t"].weight
    )
