import itertools

import numpy as np
import torch

from tzrec.modules.fm import FactorizationMachine


def test_sum_of_products_of_all_pairs() -> None:
    torch.manual_seed(0)
    v = torch.randn(5, 4, 3, dtype=torch.float64, requires_grad=True)
    x = v.detach().numpy()
    expected = sum(x[:, i] * x[:, j] for i, j in itertools.combinations(range(4), 2))
    out = FactorizationMachine()(v)
    np.testing.assert_allclose(out.detach(), expected, atol=1e-12)
    assert torch.autograd.gradcheck(FactorizationMachine(), (v,))
