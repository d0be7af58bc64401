"""`linear` and `ragged_linear` give what torch's does, with other addresses and shapes."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tzrec.models.precision import has_fast_bfloat16
from tzrec.modules.linear import Linear, RaggedLinear
from tzrec.ops.linear import linear, padded_rows, ragged_linear


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


# --- rows whose number changes -----------------------------------------------------------------


def _narrow_gradients(function, x, weight, bias, upstream):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = function(x, weight, bias)
    given = [t for t in (x, weight, bias) if t is not None]
    return [result, *torch.autograd.grad(result, given, upstream)]


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 64, 65, 1000])
def test_ragged_products_are_those_of_single_precision_but_for_rounding(rows, with_bias):
    torch.manual_seed(0)
    x, weight = torch.randn(rows, 24, requires_grad=True), torch.randn(12, 24, requires_grad=True)
    bias = torch.randn(12, requires_grad=True) if with_bias else None
    upstream = torch.randn(rows, 12).bfloat16()
    found = _narrow_gradients(ragged_linear, x, weight, bias, upstream)
    leaves = [t.detach() if t is not None else None for t in (x, weight, bias)]
    exact = _gradients(F.linear, *leaves, upstream.float())
    assert [t.dtype for t in found] == [torch.bfloat16] + [torch.float32] * (2 + with_bias)
    for ours, theirs in zip(found, exact, strict=True):
        assert ours.shape == theirs.shape
        size = float(theirs.abs().max()) if theirs.numel() else 0.0
        # Inputs and results are rounded to 8 bits each.
        torch.testing.assert_close(ours.float(), theirs, rtol=0, atol=size * 2.0**-6)


def test_ragged_products_leave_frozen_weights_and_inputs_alone():
    x, weight = torch.randn(5, 8), torch.randn(3, 8, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ragged_linear(x, weight, torch.zeros(3)).sum().backward()
        frozen = ragged_linear(x.requires_grad_(), weight.detach(), None)
    frozen.sum().backward()
    torch.testing.assert_close(weight.grad, x.sum(0).expand(3, 8).detach(), rtol=0.05, atol=0.05)
    assert x.grad is not None


def test_without_autocast_ragged_products_are_torchs():
    x, weight = torch.randn(5, 8, requires_grad=True), torch.randn(3, 8)
    result = ragged_linear(x, weight, None)
    assert torch.equal(result, F.linear(x, weight))
    assert "Ragged" not in type(result.grad_fn).__name__


def test_ragged_products_of_double_precision_stay_so():
    x, weight = torch.randn(5, 8, dtype=torch.float64), torch.randn(3, 8, dtype=torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ragged_linear(x, weight, None), F.linear(x, weight))


def test_few_numbers_of_rows_at_little_more():
    sizes = {rows: padded_rows(rows) for rows in range(1, 200_000, 37)}
    assert all(rows <= size <= max(rows + 63, rows * 17 / 16) for rows, size in sizes.items())
    assert len({size for rows, size in sizes.items() if rows > 100_000}) <= 32
    assert len(set(sizes.values())) < 200


def test_ragged_layer_is_torchs_and_can_be_scripted_and_traced():
    torch.manual_seed(0)
    theirs = nn.Linear(17, 5)
    torch.manual_seed(0)
    ours = RaggedLinear(17, 5)
    x = torch.randn(6, 17)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    traced = torch.fx.GraphModule(ours, torch.fx.Tracer().trace(ours))
    for layer in (ours, torch.jit.script(ours), torch.jit.script(traced)):
        assert torch.equal(layer(x), theirs(x))


GROWTH = """
import resource, sys, torch
from torch.nn import functional as F
from tzrec.ops.linear import ragged_linear
function = {"torch": F.linear, "ours": ragged_linear}[sys.argv[1]]
weight, rows = torch.randn(64, 64, requires_grad=True), torch.randn(40_000, 64)
kept = 0
for number in range(120):
    x = rows[: 20_000 + 7919 * number % 20_000].requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        function(x, weight, None).float().sum().backward()
    rows.grad = weight.grad = None
    if number == 20:
        kept = int(open("/proc/self/statm").read().split()[1])
print((int(open("/proc/self/statm").read().split()[1]) - kept) * resource.getpagesize() >> 20)
"""


@pytest.mark.slow
@pytest.mark.skipif(not has_fast_bfloat16(torch.device("cpu")), reason="no BF16 products here")
def test_memory_does_not_grow_with_the_numbers_of_rows_met():
    """100 new numbers: torch's products keep 2 to 10 MB for each."""

    def growth(name):
        command = [sys.executable, "-c", GROWTH, name]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert growth("ours") < 100 < growth("torch")
