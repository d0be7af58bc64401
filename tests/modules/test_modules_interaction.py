import itertools

import numpy as np
import pytest
import torch

from tzrec.errors import ConfigError
from tzrec.modules.interaction import InteractionArch


def test_dots_of_all_pairs_in_order():
    torch.manual_seed(0)
    v = torch.randn(5, 4, 3, dtype=torch.float64, requires_grad=True)
    x = v.detach().numpy()
    expected = [(x[:, i] * x[:, j]).sum(1) for i, j in itertools.combinations(range(4), 2)]
    module = InteractionArch(4)
    np.testing.assert_allclose(module(v).detach(), np.stack(expected, 1), atol=1e-12)
    assert module.output_dim() == 6
    assert torch.autograd.gradcheck(module, (v,))
    assert not module.state_dict()


def test_one_feature_has_no_pair():
    with pytest.raises(ConfigError, match="1 feature makes no pair"):
        InteractionArch(1)
