import numpy as np
import pytest
import torch
from torch import nn

from tzrec.errors import ConfigError
from tzrec.modules.activation import Dice, get_activation


@pytest.mark.parametrize(
    ("text", "function"),
    [
        ("nn.ReLU", lambda x: np.maximum(x, 0)),
        ("torch.nn.ReLU", lambda x: np.maximum(x, 0)),
        ("nn.ReLU()", lambda x: np.maximum(x, 0)),
        ("nn.LeakyReLU(negative_slope=0.1)", lambda x: np.where(x > 0, x, 0.1 * x)),
        (" nn.LeakyReLU( 0.2 ) ", lambda x: np.where(x > 0, x, 0.2 * x)),
        ("nn.Sigmoid", lambda x: 1 / (1 + np.exp(-x))),
        ("nn.Hardtanh(min_val=-0.5, max_val=+0.5)", lambda x: np.clip(x, -0.5, 0.5)),
    ],
)
def test_named_activations(text: str, function: object) -> None:
    x = np.linspace(-2, 2, 9, dtype=np.float32)
    activation = get_activation(text)
    assert activation is not None
    np.testing.assert_allclose(activation(torch.from_numpy(x)), function(x), atol=1e-6)


def test_empty_text_is_no_activation() -> None:
    assert get_activation("") is None
    assert get_activation("  ") is None


def test_device_reaches_weights() -> None:
    for text in ("nn.PReLU", "Dice"):
        module = get_activation(text, 3, device="meta")
        assert module is not None
        assert all(p.is_meta for p in module.parameters())


@pytest.mark.parametrize(
    "text",
    [
        "nn.ReLu",
        "ReLU",
        "nn.functional",
        "nn.ReLU(",
        "nn.LeakyReLU(negative_slope=__import__('os').getpid())",
        "nn.LeakyReLU(negative_slope=x)",
        "lambda x: x",
        "[nn.ReLU][0]",
        "nn.ReLU(no_such=1)",
        "nn.ReLU(**{})",
        "Dice(3)",
    ],
)
def test_wrong_text_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError, match="activation"):
        get_activation(text)


def test_wrong_case_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'nn\.ReLU'"):
        get_activation("nn.ReLu")


def test_own_class_by_path() -> None:
    assert isinstance(get_activation("torch.nn.modules.activation.ReLU6"), nn.ReLU6)
    with pytest.raises(ConfigError):
        get_activation("collections.OrderedDict")


@pytest.mark.parametrize("dim", [2, 3])
def test_dice_formula(dim: int) -> None:
    torch.manual_seed(0)
    x = torch.randn((40, 5, 3) if dim == 3 else (40, 3))
    dice = Dice(3, dim)
    assert torch.equal(dice.alpha, torch.zeros(3))
    with torch.no_grad():
        dice.alpha.copy_(torch.tensor([0.5, -1.0, 2.0]))
    flat = x.reshape(-1, 3).double().numpy()
    normed = (flat - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5)
    p = 1 / (1 + np.exp(-normed))
    expected = np.array([0.5, -1.0, 2.0]) * (1 - p) * flat + p * flat
    np.testing.assert_allclose(dice(x).detach().reshape(-1, 3), expected, atol=1e-5)
    # In eval the running statistics are used.
    dice.eval()
    mean, var = dice.bn.running_mean.numpy(), dice.bn.running_var.numpy()
    p = 1 / (1 + np.exp(-(flat - mean) / np.sqrt(var + 1e-5)))
    expected = np.array([0.5, -1.0, 2.0]) * (1 - p) * flat + p * flat
    np.testing.assert_allclose(dice(x).detach().reshape(-1, 3), expected, atol=1e-5)


def test_dice_refuses_other_ranks() -> None:
    with pytest.raises(ConfigError, match="2 or 3 axes"):
        Dice(3, 4)
