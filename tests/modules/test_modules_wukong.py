import math

import numpy as np
import pytest
import torch

from tzrec.modules.wukong import WuKongLayer

MLP = {"hidden_units": [6], "activation": "nn.Tanh"}


def _norm(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


@pytest.mark.parametrize("lcb", [1, 2])
def test_blocks_of_one_row(lcb):
    n, dim, fmb, k = 5, 4, 3, 2
    torch.manual_seed(0)
    layer = WuKongLayer(
        n,
        dim,
        lcb_feature_num=lcb,
        fmb_feature_num=fmb,
        compressed_feature_num=k,
        feature_num_mlp=MLP,
    ).double()
    assert layer.output_feature_num() == fmb + lcb
    features = torch.randn(3, n, dim, dtype=torch.float64, requires_grad=True)
    w = {name: p.detach().numpy() for name, p in layer.named_parameters()}
    # With as many features out as in there is nothing to project.
    assert ("residual_weight" in w) == (fmb + lcb != n)
    for row, found in zip(features.detach().numpy(), layer(features).detach(), strict=True):
        dots = _norm((row @ row.T @ w["fmb_weight"].T).reshape(-1))
        hidden = "fmb_mlp.mlp.0.perceptron.0"
        machine = np.tanh(w[f"{hidden}.weight"] @ dots + w[f"{hidden}.bias"])
        machine = w["fmb_linear.weight"] @ machine + w["fmb_linear.bias"]
        residual = w["residual_weight"] @ row if "residual_weight" in w else row
        blocks = np.concatenate([machine.reshape(fmb, dim), w["lcb_weight"] @ row])
        np.testing.assert_allclose(found, _norm(blocks + residual), rtol=1e-9)
    assert torch.autograd.gradcheck(layer, (features,))


def test_matrices_start_kaiming_uniform():
    torch.manual_seed(0)
    layer = WuKongLayer(50, 4, lcb_feature_num=40, fmb_feature_num=40, feature_num_mlp=MLP)
    bound = math.sqrt(6 / 50)
    for weight in (layer.lcb_weight, layer.fmb_weight, layer.residual_weight):
        assert 0.95 * bound < weight.abs().max() <= bound
