"""Learnt subspaces and interventions in them."""

import copy

import numpy as np
import pytest
import torch

from tzrec.errors import ConfigError
from tzrec.modules.intervention import Intervention, OrthonormalBasis


def gram_schmidt(weight):
    basis = []
    for column in weight.T:
        for found in basis:
            column = column - found * (found @ column)
        basis.append(column / np.linalg.norm(column))
    return np.stack(basis, 1)


def basis_of(weight):
    basis = OrthonormalBasis(*weight.shape).double()
    with torch.no_grad():
        basis.weight.copy_(weight)
    return basis


def test_starts_at_its_weight():
    basis = OrthonormalBasis(9, 4)
    torch.testing.assert_close(basis(), basis.weight.data)


@pytest.mark.parametrize("seed", range(5))
def test_is_the_gram_schmidt_basis(seed):
    weight = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed)).double() * 10**seed
    found = basis_of(weight)().detach().numpy()
    np.testing.assert_allclose(found.T @ found, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(found, gram_schmidt(weight.numpy()), atol=1e-10)


def test_is_smooth_where_a_decomposition_turns_its_signs():
    weight = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)).double()
    bases = []
    for first in (-1e-9, 1e-9):
        weight[0, 0] = first
        bases.append(basis_of(weight)().detach())
    torch.testing.assert_close(*bases, atol=1e-7, rtol=0)


def test_gradient():
    basis = OrthonormalBasis(5, 2).double()
    weight = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)

    def of(value):
        return torch.func.functional_call(basis, {"weight": value}, ())

    assert torch.autograd.gradcheck(of, (weight,))


def test_is_a_constant_when_served():
    basis = OrthonormalBasis(5, 2)
    assert basis().requires_grad
    basis.set_is_inference(True)
    assert not basis().requires_grad


def test_formula():
    torch.manual_seed(0)
    net = Intervention(6, 10, 3).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_()
    base, source = torch.randn(4, 6).double(), torch.randn(4, 10).double()
    r_b, r_s = [
        gram_schmidt(w.detach().numpy()) for w in (net.base_basis.weight, net.source_basis.weight)
    ]
    expected = base.numpy() + (base.numpy() @ r_b - source.numpy() @ r_s) @ r_b.T
    np.testing.assert_allclose(net(base, source).detach(), expected, atol=1e-10)
    assert net.output_dim() == 6


def test_the_source_does_not_learn():
    net = Intervention(6, 6, 2)
    base, source = torch.randn(4, 6, requires_grad=True), torch.randn(4, 6, requires_grad=True)
    net(base, source).sum().backward()
    assert base.grad is not None
    assert source.grad is None


def test_bases_stay_orthonormal_while_they_learn():
    torch.manual_seed(0)
    net = Intervention(6, 6, 2)
    start = copy.deepcopy(net)
    base, source, goal = (torch.randn(32, 6) for _ in range(3))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (net(base, source) - goal).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    for basis, old in ((net.base_basis, start.base_basis), (net.source_basis, start.source_basis)):
        found = basis()
        assert not torch.allclose(found, old())
        torch.testing.assert_close(found.T @ found, torch.eye(2), atol=1e-5, rtol=0)


def test_dropout():
    net = Intervention(64, 6, 2, dropout_ratio=0.5)
    base, source = torch.randn(8, 64), torch.randn(8, 6)
    assert 0.3 < (net(base, source) == 0).float().mean() < 0.7
    assert (net.eval()(base, source) != 0).all()


@pytest.mark.parametrize(("rank", "dim"), [(6, 6), (0, 9), (8, 6)])
def test_refuses(rank, dim):
    with pytest.raises(ConfigError, match=f"low_rank_dim is {rank}, .* below {dim}"):
        Intervention(9, dim, rank)
    with pytest.raises(ConfigError, match="dropout_ratio is 1"):
        Intervention(9, 9, 2, dropout_ratio=1.0)
