"""Gates, EPNet and PPNet against their formulas in NumPy."""

import numpy as np
import pytest
import torch

from tzrec.errors import ConfigError
from tzrec.modules.gate import Gate
from tzrec.modules.pepnet import EPNet, PPNet


def _state(module):
    return {name: value.double().numpy() for name, value in module.state_dict().items()}


def _linear(state, name, x):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _gate(state, name, x, gamma):
    hidden = np.maximum(_linear(state, f"{name}hidden", x), 0)
    return gamma / (1 + np.exp(-_linear(state, f"{name}linear", hidden)))


@pytest.mark.parametrize("hidden", [None, 3])
@pytest.mark.parametrize("gamma", [2.0, 0.5])
def test_gate(hidden, gamma):
    torch.manual_seed(0)
    gate = Gate(6, 4, hidden_features=hidden, gamma=gamma)
    assert gate.hidden.weight.shape == (hidden or 4, 6)
    x = torch.randn(5, 6) * 3
    found = gate(x)
    expected = _gate(_state(gate), "", x.double().numpy(), gamma)
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-5)
    assert (found > 0).all()
    assert (found < gamma).all()


def test_gate_refuses():
    with pytest.raises(ConfigError, match="gamma of a gate is 0, it must be above 0"):
        Gate(3, 3, gamma=0)
    with pytest.raises(ConfigError, match="sizes of at least 1, got 0 and 3"):
        Gate(3, 3, hidden_features=0)


def test_epnet_scales_and_stops_the_gradient():
    torch.manual_seed(0)
    net = EPNet(4, 3, hidden_unit=5, gamma=1.5)
    x, domain = torch.randn(6, 4, requires_grad=True), torch.randn(6, 3, requires_grad=True)
    gate = _gate(_state(net.gate), "", torch.cat([domain, x], 1).detach().double().numpy(), 1.5)
    out = net(x, domain)
    np.testing.assert_allclose(out.detach(), gate * x.detach().numpy(), rtol=1e-5, atol=1e-7)
    out.sum().backward()
    np.testing.assert_allclose(x.grad, gate, rtol=1e-5)
    assert (domain.grad != 0).any()


def test_ppnet_has_layers_per_task():
    torch.manual_seed(0)
    net = PPNet(4, 3, 2, hidden_units=[6, 5], activation="nn.Tanh", gamma=3)
    x, uia = torch.randn(7, 4), torch.randn(7, 3)
    state, known = _state(net), np.concatenate([uia, x], 1).astype(np.float64)
    outputs = net(x, uia)
    assert len(outputs) == 2
    for task, found in enumerate(outputs):
        h = x.double().numpy()
        for i in range(2):
            h = np.tanh(_linear(state, f"layers.{task}.{i}.perceptron.0", h))
            h = h * _gate(state, f"gates.{task}.{i}.", known, 3)
        assert found.shape == (7, net.output_dim()) == (7, 5)
        np.testing.assert_allclose(found.detach(), h, rtol=1e-4, atol=1e-6)


def test_ppnet_drops_after_the_gate():
    net = PPNet(4, 3, 1, hidden_units=[64], activation="", dropout_ratio=[0.5])
    x, uia = torch.randn(8, 4), torch.randn(8, 3)
    (dropped,), (kept,) = net(x, uia), net.eval()(x, uia)
    zero = dropped == 0
    assert 0.3 < zero.float().mean() < 0.7
    torch.testing.assert_close(dropped[~zero], 2 * kept[~zero])


def test_ppnet_refuses():
    with pytest.raises(ConfigError, match="ppnet_hidden_units is empty"):
        PPNet(4, 3, 1, hidden_units=[])
    with pytest.raises(ConfigError, match="ppnet_dropout_ratio has 3 values for 2"):
        PPNet(4, 3, 1, hidden_units=[2, 2], dropout_ratio=[0, 0, 0])
