import numpy as np
import pytest
import torch

from tzrec.errors import ConfigError
from tzrec.modules.cin import CIN

B, F, D = 5, 3, 4


def test_products_of_all_maps_with_all_features():
    torch.manual_seed(0)
    cin = CIN(F, [6, 2]).double()
    features = torch.randn(B, F, D, dtype=torch.float64, requires_grad=True)
    x0 = maps = features.detach().numpy()
    sums = []
    for layer, before, after in zip(cin.layers, [F, 6], [6, 2], strict=True):
        weight = layer.weight.detach().numpy().reshape(after, before, F)
        bias = layer.bias.detach().numpy()[None, :, None]
        maps = np.einsum("hij,bid,bjd->bhd", weight, maps, x0) + bias
        sums.append(maps.sum(2))
    np.testing.assert_allclose(cin(features).detach(), np.concatenate(sums, 1), rtol=1e-10)
    assert cin.output_dim() == 8
    assert torch.autograd.gradcheck(cin, (features,))


@pytest.mark.parametrize("sizes", [[], [4, 0]])
def test_layers_have_a_size(sizes):
    with pytest.raises(ConfigError, match="cin_layer_size"):
        CIN(F, sizes)
