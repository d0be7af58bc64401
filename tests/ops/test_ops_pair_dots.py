"""`pair_dots` against sums in float64."""

import itertools

import numpy as np
import pytest
import torch

from tzrec.modules.interaction import InteractionArch
from tzrec.ops.cpu import parallel
from tzrec.ops.pair_dots import pair_dots


def _reference(vectors, upstream):
    """Returns the dots, and the gradient of ``(dots * upstream).sum()``."""
    v, g = vectors.double().numpy(), upstream.double().numpy()
    of_v = np.zeros_like(v)
    dots = []
    for at, (i, j) in enumerate(itertools.combinations(range(v.shape[1]), 2)):
        dots.append((v[:, i] * v[:, j]).sum(1))
        of_v[:, i] += g[:, at, None] * v[:, j]
        of_v[:, j] += g[:, at, None] * v[:, i]
    return np.stack(dots, 1), of_v


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(1, 2, 1), (7, 3, 5), (130, 27, 16), (0, 4, 8)])
def test_dots_and_gradient(monkeypatch, shape, threads):
    monkeypatch.setattr(parallel, "_LEAST", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.manual_seed(0)
        vectors = torch.randn(*shape, requires_grad=True)
        pairs = shape[1] * (shape[1] - 1) // 2
        upstream = torch.randn(shape[0], pairs)
        dots = pair_dots(vectors)
        dots.backward(upstream)
    finally:
        torch.set_num_threads(before)
    expected, of_vectors = _reference(vectors.detach(), upstream)
    np.testing.assert_allclose(dots.detach(), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(vectors.grad, of_vectors, rtol=1e-5, atol=1e-4)


def test_a_gradient_that_is_not_contiguous():
    vectors = torch.randn(6, 4, 3, requires_grad=True)
    wide = torch.randn(6, 10)
    pair_dots(vectors).backward(wide[:, 2:8])
    _, expected = _reference(vectors.detach(), wide[:, 2:8])
    np.testing.assert_allclose(vectors.grad, expected, rtol=1e-5, atol=1e-5)


def test_autocast_multiplies_16_bits_and_gives_32():
    vectors = torch.randn(64, 27, 16, requires_grad=True)
    upstream = torch.randn(64, 351)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        dots = pair_dots(vectors)
    dots.backward(upstream)
    # What 16 bits make of the factors is known, the sums are of 32.
    expected, of_vectors = _reference(vectors.detach().bfloat16(), upstream.bfloat16())
    assert dots.dtype == vectors.grad.dtype == torch.float32
    np.testing.assert_allclose(dots.detach(), expected, rtol=0.01, atol=0.01)
    np.testing.assert_allclose(vectors.grad, of_vectors, rtol=0.01, atol=0.05)
    for value in (dots, vectors.grad):
        assert torch.equal(value, value.bfloat16().float())


def test_training_takes_it_and_evaluation_does_not():
    module, vectors = InteractionArch(5), torch.randn(9, 5, 4, requires_grad=True)
    assert "PairDots" in type(module(vectors).grad_fn).__name__
    trained = module(vectors)
    evaluated = module.eval()(vectors)
    assert "PairDots" not in type(evaluated.grad_fn).__name__
    torch.testing.assert_close(trained, evaluated)


def _exported(module):
    return torch.export.export(module, (torch.randn(9, 5, 4),)).module()


def _compiled(module):
    return torch.compile(module, backend="eager", fullgraph=True)


@pytest.mark.parametrize("trace", [torch.fx.symbolic_trace, _exported, _compiled])
def test_a_graph_of_training_holds_plain_products(trace):
    module, vectors = InteractionArch(5), torch.randn(9, 5, 4, requires_grad=True)
    dots = trace(module)(vectors)
    assert "PairDots" not in type(dots.grad_fn).__name__
    torch.testing.assert_close(dots, module(vectors))
