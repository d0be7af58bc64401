"""`linear` gives what torch's does, and a gradient whose rows begin at cache lines."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tzrec.modules.linear import Linear
from tzrec.ops.linear import linear


def _gradients(function, x, weight, bias, upstream):
    leaves = [t.clone().requires_grad_() if t is not None else None for t in (x, weight, bias)]
    result = function(*leaves)
    given = [t for t in leaves if t is not None]
    return [result, *torch.autograd.grad(result, given, upstream)]


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("shape", [(300, 429, 64), (7, 17, 5), (64, 32, 8), (1, 1, 1)])
def test_value_and_gradients_are_those_of_torch(shape, with_bias):
    torch.manual_seed(0)
    rows, width, out = shape
    x, weight = torch.randn(rows, width), torch.randn(out, width)
    bias = torch.randn(out) if with_bias else None
    upstream = torch.randn(rows, out)
    ours = _gradients(linear, x, weight, bias, upstream)
    theirs = _gradients(F.linear, x, weight, bias, upstream)
    assert len(ours) == 3 + with_bias
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-5)


def test_rows_of_the_gradient_begin_at_cache_lines():
    x = torch.randn(8, 429)
    _, of_x, _ = _gradients(linear, x, torch.randn(16, 429), None, torch.randn(8, 16))
    assert of_x.stride() == (432, 1)


@pytest.mark.parametrize("shape", [(4, 3, 17), (4, 16)], ids=["three axes", "whole lines"])
def test_other_inputs_take_the_way_of_torch(shape):
    x = torch.randn(*shape, requires_grad=True)
    assert "Linear" not in type(linear(x, torch.randn(5, shape[-1]), None).grad_fn).__name__


def test_autocast_rules():
    x, weight = torch.randn(4, 17, requires_grad=True), torch.randn(5, 17)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(x, weight, None).dtype == torch.bfloat16


def test_frozen_weights_get_no_gradient():
    x = torch.randn(4, 17, requires_grad=True)
    weight = torch.randn(5, 17)
    linear(x, weight, torch.zeros(5)).sum().backward()
    torch.testing.assert_close(x.grad, weight.sum(0).expand(4, 17))
    assert weight.grad is None


def test_layer_is_torchs_with_its_names_and_can_be_scripted():
    torch.manual_seed(0)
    theirs = nn.Linear(17, 5)
    torch.manual_seed(0)
    ours = Linear(17, 5)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = torch.randn(6, 17, requires_grad=True)
    assert "_Linear" in type(ours(x).grad_fn).__name__
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(torch.jit.script(ours)(x), theirs(x))
    traced = torch.fx.Tracer().trace(ours)
    assert torch.equal(torch.fx.GraphModule(ours, traced)(x), theirs(x))
    ours.eval()
    assert "_Linear" not in type(ours(x).grad_fn).__name__
