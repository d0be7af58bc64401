"""MaskNet against its formula in NumPy."""

import numpy as np
import pytest
import torch

from tzrec.errors import ConfigError
from tzrec.modules.masknet import MaskBlock, MaskNetModule

MASK = {"hidden_dim": 6}
TOP = {"hidden_units": [4]}


def _state(module):
    return {name: value.double().numpy() for name, value in module.state_dict().items()}


def _linear(state, name, x):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _layer_norm(state, name, x):
    x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    return x * state[f"{name}.weight"] + state[f"{name}.bias"]


def _block(state, name, x, features):
    hidden = np.maximum(_linear(state, f"{name}.mask_generator.0", features), 0)
    masked = x * _linear(state, f"{name}.mask_generator.2", hidden)
    masked = _linear(state, f"{name}.hidden_layer.0", masked)
    return np.maximum(_layer_norm(state, f"{name}.hidden_layer.1", masked), 0)


def _randomise(module):
    """So that norms scale and shift."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    return module


@pytest.mark.parametrize("top_mlp", [None, TOP])
@pytest.mark.parametrize("use_parallel", [True, False])
def test_formula(use_parallel, top_mlp):
    torch.manual_seed(0)
    net = MaskNetModule(
        10, n_mask_blocks=3, mask_block=MASK, top_mlp=top_mlp, use_parallel=use_parallel
    )
    _randomise(net)
    features = torch.randn(5, 10)
    state, raw = _state(net), features.double().numpy()
    x = _layer_norm(state, "ln_emb", raw)
    if use_parallel:
        x = np.concatenate([_block(state, f"mask_blocks.{i}", x, raw) for i in range(3)], 1)
    else:
        for i in range(3):
            x = _block(state, f"mask_blocks.{i}", x, raw)
    if top_mlp:
        x = np.maximum(_linear(state, "top_mlp.mlp.0.perceptron.0", x), 0)
    assert x.shape == (5, net.output_dim())
    assert net.output_dim() == (4 if top_mlp else 18 if use_parallel else 6)
    np.testing.assert_allclose(net(features).detach(), x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "units"),
    [
        ({}, 10),
        ({"reduction_ratio": 3.0}, 30),
        ({"reduction_ratio": 0.25}, 2),
        ({"reduction_ratio": 2.0, "aggregation_dim": 7}, 20),
        ({"reduction_ratio": 0.0, "aggregation_dim": 7}, 7),
    ],
)
def test_hidden_units_of_the_mask(fields, units):
    block = MaskBlock(4, 10, hidden_dim=5, **fields)
    assert block.mask_generator[0].weight.shape == (units, 10)
    assert block.mask_generator[2].weight.shape == (4, units)
    assert block(torch.ones(2, 4), torch.ones(2, 10)).shape == (2, block.output_dim()) == (2, 5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_dim": 0}, "hidden_dim is 0"),
        ({"hidden_dim": 4, "reduction_ratio": 0.0}, "without hidden units"),
        ({"hidden_dim": 4, "reduction_ratio": 0.05}, "0.05 of 10 columns"),
    ],
)
def test_blocks_that_cannot_be_built(fields, message):
    with pytest.raises(ConfigError, match=message):
        MaskBlock(10, 10, **fields)
    with pytest.raises(ConfigError, match="n_mask_blocks is 0"):
        MaskNetModule(10, n_mask_blocks=0, mask_block=MASK)
