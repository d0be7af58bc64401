from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tzrec.config.messages import config_to_kwargs
from tzrec.errors import ConfigError
from tzrec.modules.mlp import MLP, Perceptron
from tzrec.modules.task_tower import TaskTower
from tzrec.protos import module_pb2


def layer(x: np.ndarray, linear: nn.Linear, norm: str = "") -> np.ndarray:
    y = x @ linear.weight.detach().double().numpy().T
    if linear.bias is not None:
        y = y + linear.bias.detach().double().numpy()
    if norm == "bn":
        y = (y - y.mean(0)) / np.sqrt(y.var(0) + 1e-5)
    if norm == "ln":
        y = (y - y.mean(1, keepdims=True)) / np.sqrt(y.var(1, keepdims=True) + 1e-5)
    return np.maximum(y, 0)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("norm", ["", "bn", "ln"])
def test_formula(dim: int, norm: str) -> None:
    torch.manual_seed(0)
    mlp = MLP(4, [6, 3], use_bn=norm == "bn", use_ln=norm == "ln", dim=dim)
    x = torch.randn((7, 5, 4) if dim == 3 else (7, 4))
    y = x.reshape(-1, 4).double().numpy()
    for perceptron in mlp.mlp:
        y = layer(y, perceptron.perceptron[0], norm)
    out = mlp(x)
    assert out.shape == (*x.shape[:-1], 3)
    np.testing.assert_allclose(out.detach().reshape(-1, 3), y, atol=1e-5)


def test_layer_order_and_parameter_names() -> None:
    mlp = MLP(4, [6, 3], use_bn=True, dropout_ratio=[0.5, 0.0], activation="nn.Sigmoid")
    kinds = [[type(m).__name__ for m in p.perceptron] for p in mlp.mlp]
    layers = ["Linear", "BatchNorm", "Sigmoid", "Dropout"]
    assert kinds == [layers, layers[:3]]
    names = [name for name, _ in mlp.named_parameters()]
    assert names[:3] == [
        "mlp.0.perceptron.0.weight",
        "mlp.0.perceptron.1.weight",
        "mlp.0.perceptron.1.bias",
    ]
    assert "mlp.0.perceptron.0.bias" not in names  # batch norm removes it
    assert "mlp.0.perceptron.0.bias" in dict(MLP(4, [6], use_ln=True).named_parameters())
    assert "mlp.0.perceptron.0.bias" not in dict(MLP(4, [6], bias=False).named_parameters())


def test_no_activation_is_linear() -> None:
    torch.manual_seed(0)
    mlp = MLP(3, [2], activation="")
    assert (mlp(torch.randn(50, 3)) < 0).any()
    assert len(mlp.mlp[0].perceptron) == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, [0, 0]),
        ([], [0, 0]),
        ([0.3], [0.3, 0.3]),
        (0.2, [0.2, 0.2]),
        ([0.1, 0.4], [0.1, 0.4]),
    ],
)
def test_dropout_ratios(given: Any, expected: list[float]) -> None:
    mlp = MLP(3, [4, 4], dropout_ratio=given)
    found = [[m.p for m in p.perceptron if isinstance(m, nn.Dropout)] for p in mlp.mlp]
    assert found == [[ratio] if ratio else [] for ratio in expected]


def test_dropout_only_while_training() -> None:
    torch.manual_seed(0)
    mlp = MLP(3, [200], dropout_ratio=[0.5], activation="")
    x = torch.randn(20, 3)
    assert 0.4 < (mlp(x) == 0).float().mean() < 0.6
    assert not (mlp.eval()(x) == 0).any()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"use_bn": True, "use_ln": True}, "use_bn and use_ln"),
        ({"dropout_ratio": [0.1, 0.2, 0.3]}, "3 values for 2"),
        ({"dropout_ratio": [1.0]}, "dropout_ratio"),
        ({"hidden_units": []}, "hidden_units"),
        ({"hidden_units": [4, 0]}, "hidden_units"),
        ({"activation": "nn.Nope"}, "nn.Nope"),
        ({"dim": 4}, "2 or 3"),
    ],
)
def test_wrong_settings(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MLP(3, **{"hidden_units": [4, 4], **kwargs})


def test_hidden_layers() -> None:
    mlp = MLP(3, [5, 2], return_hidden_layer_feature=True)
    hidden = mlp(torch.randn(4, 3))
    assert {key: tuple(value.shape) for key, value in hidden.items()} == {
        "hidden_layer0": (4, 5),
        "hidden_layer1": (4, 2),
        "hidden_layer_end": (4, 2),
    }
    assert mlp.output_dim() == 2


def test_after_first_linear_is_the_rest() -> None:
    torch.manual_seed(0)
    mlp = MLP(3, [5, 2], use_ln=True)
    x = torch.randn(4, 3)
    assert torch.equal(mlp.after_first_linear(mlp.first_linear()(x)), mlp(x))


def test_batch_statistics() -> None:
    assert not MLP(3, [5], use_ln=True).uses_batch_statistics()
    assert MLP(3, [5], use_bn=True).uses_batch_statistics()
    assert MLP(3, [5], activation="Dice").uses_batch_statistics()


@pytest.mark.parametrize("config", [{"use_bn": True}, {"activation": "Dice"}])
def test_one_row_is_normalised_by_the_running_statistics(config) -> None:
    torch.manual_seed(0)
    mlp = MLP(3, [5, 2], **config)
    mlp(torch.randn(40, 3))  # statistics that are not the initial ones
    before = {name: value.clone() for name, value in mlp.state_dict().items()}
    x = torch.randn(1, 3)
    found = mlp(x)
    found.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in mlp.parameters())
    assert all(torch.equal(before[name], value) for name, value in mlp.state_dict().items())
    torch.testing.assert_close(found, mlp.eval()(x))


def test_config_message_fits() -> None:
    config = module_pb2.MLP(hidden_units=[4, 2], dropout_ratio=[0.5], use_ln=True)
    mlp = MLP(3, **config_to_kwargs(config))
    assert [type(m).__name__ for m in mlp.mlp[1].perceptron] == [
        "Linear",
        "LayerNorm",
        "ReLU",
        "Dropout",
    ]


def test_meta_device() -> None:
    mlp = MLP(3, [4], use_bn=True, activation="Dice", device="meta")
    assert all(p.is_meta for p in mlp.parameters())


def test_perceptron_alone() -> None:
    torch.manual_seed(0)
    perceptron = Perceptron(3, 2)
    x = torch.randn(4, 3)
    expected = layer(x.double().numpy(), perceptron.perceptron[0])
    np.testing.assert_allclose(perceptron(x).detach(), expected, atol=1e-6)


def test_task_tower() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 3)
    tower = TaskTower(3, 2, mlp={"hidden_units": [4]})
    hidden = layer(x.double().numpy(), tower.tower_mlp.mlp[0].perceptron[0])
    expected = hidden @ tower.linear.weight.detach().double().numpy().T
    expected += tower.linear.bias.detach().double().numpy()
    np.testing.assert_allclose(tower(x).detach(), expected, atol=1e-5)
    plain = TaskTower(3, 2)
    assert [name for name, _ in plain.named_parameters()] == ["linear.weight", "linear.bias"]
    assert plain(x).shape == (6, 2)
