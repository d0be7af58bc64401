"""The linear map of outer products, against the outer products written out."""

import numpy as np
import pytest
import torch

from tzrec.ops.outer_linear import outer_linear

H, F, O = 40, 50, 3  # noqa: E741
# One row of outer products has 2000 numbers, so a piece has 131 rows.
SIZES = [1, 131, 132, 400]


def _inputs(num_rows, dtype=torch.float64):
    generator = torch.Generator().manual_seed(num_rows)
    shapes = (num_rows, H), (num_rows, F), (O, H * F), (O,)
    return [
        torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes
    ]


@pytest.mark.parametrize("num_rows", SIZES)
def test_value_and_gradients(num_rows):
    inputs = _inputs(num_rows)
    a, b, weight, bias = (x.detach().numpy() for x in inputs)
    outer = np.einsum("ni,nj->nij", a, b)
    expected = np.einsum("nij,oij->no", outer, weight.reshape(O, H, F)) + bias
    found = outer_linear(*inputs)
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-9)

    g = np.random.default_rng(0).normal(size=(num_rows, O))
    found.backward(torch.from_numpy(g))
    w = weight.reshape(O, H, F)
    gradients = [
        np.einsum("no,oij,nj->ni", g, w, b),
        np.einsum("no,oij,ni->nj", g, w, a),
        np.einsum("no,nij->oij", g, outer).reshape(O, H * F),
        g.sum(0),
    ]
    for x, gradient in zip(inputs, gradients, strict=True):
        np.testing.assert_allclose(x.grad, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("num_rows", SIZES)
def test_scripted_gives_the_same_bits(num_rows):
    scripted = torch.jit.script(outer_linear)
    inputs = _inputs(num_rows, torch.float32)
    assert torch.equal(scripted(*inputs), outer_linear(*inputs))


def test_one_tensor_may_stand_on_both_sides():
    a = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 9, dtype=torch.float64)
    bias = torch.zeros(2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: outer_linear(x, x, weight, bias), (a,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_half_precision_and_returns_full_gradients(dtype):
    inputs = _inputs(400, torch.float32)
    with torch.autocast("cpu", dtype=dtype):
        half = outer_linear(*inputs)
    assert half.dtype == dtype
    full = outer_linear(*inputs)
    torch.testing.assert_close(half.float(), full, rtol=0, atol=0.02 * float(full.abs().max()))
    gradients = torch.autograd.grad(full.sum(), inputs)
    for x, expected in zip(torch.autograd.grad(half.sum(), inputs), gradients, strict=True):
        assert x.dtype == torch.float32
        torch.testing.assert_close(x, expected, rtol=0, atol=0.02 * float(expected.abs().max()))
