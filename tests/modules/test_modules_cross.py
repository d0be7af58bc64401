import numpy as np
import pytest
import torch

from tzrec.errors import ConfigError
from tzrec.modules.cross import Cross, CrossV2

X = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def _randomise(module):
    torch.manual_seed(1)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module.double()


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_vector_layers_one_by_one(layers):
    cross = _randomise(Cross(7, layers))
    x0 = x = X.numpy()
    for w, b in zip(cross.weight.detach().numpy(), cross.bias.detach().numpy(), strict=True):
        x = (x @ w)[:, None] * x0 + b + x
    np.testing.assert_allclose(cross(X).detach(), x, rtol=1e-10, atol=1e-10)
    assert cross.output_dim() == 7
    assert torch.autograd.gradcheck(cross, (X.clone().requires_grad_(),))


def test_vectors_start_xavier_uniform_and_biases_at_zero():
    torch.manual_seed(0)
    cross = Cross(1000, 4)
    bound = (6 / 1001) ** 0.5
    for weight in cross.weight.detach():
        assert 0.95 * bound < weight.max() <= bound
        assert -bound <= weight.min() < -0.95 * bound
    assert not cross.bias.any()


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("layers", [1, 3])
def test_matrix_layers_one_by_one(layers, rank):
    cross = _randomise(CrossV2(7, layers, low_rank=rank))
    x0 = x = X.numpy()
    for layer in cross.layers:
        *down, up = layer if rank else [layer]
        weight = up.weight.detach().numpy()
        for linear in down:
            assert linear.bias is None
            assert linear.weight.shape == (rank, 7)
            weight = weight @ linear.weight.detach().numpy()
        x = x0 * (x @ weight.T + up.bias.detach().numpy()) + x
    np.testing.assert_allclose(cross(X).detach(), x, rtol=1e-9)
    assert len(cross.layers) == layers
    assert cross.output_dim() == 7
    assert torch.autograd.gradcheck(cross, (X.clone().requires_grad_(),))


@pytest.mark.parametrize("kind", [Cross, CrossV2])
def test_there_is_a_layer(kind):
    with pytest.raises(ConfigError, match="cross_num is 0, it must be at least 1"):
        kind(7, 0)
