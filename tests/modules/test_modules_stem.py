"""STEM's experts: values of a mixture, gradients of a task's own."""

import numpy as np
import pytest
import torch

from tzrec.errors import ConfigError
from tzrec.modules.mlp import MLP
from tzrec.modules.stem import StemExperts


def make(**kwargs):
    torch.manual_seed(0)
    return StemExperts(4, [3, 5], {"hidden_units": [6, 2]}, **kwargs)


def inputs():
    return torch.randn(7, 4), [torch.randn(7, 3), torch.randn(7, 5)]


def parts(net, shared, tasks):
    """Outputs of the experts and gates, by their own forwards."""
    experts = [expert(shared) for expert in net.shared_experts]
    for x, own in zip(tasks, net.task_experts, strict=True):
        experts += [expert(x) for expert in own]
    gates = [gate(torch.cat([x, shared], 1)) for gate, x in zip(net.gates, tasks, strict=True)]
    return torch.stack(experts, 1), gates


@pytest.mark.parametrize("counts", [(1, 1), (2, 3)])
@pytest.mark.parametrize("serving", [False, True])
def test_values(counts, serving):
    shared_count, task_count = counts
    net = make(num_shared_expert=shared_count, num_task_expert=task_count)
    net.set_is_inference(serving)
    shared, tasks = inputs()
    experts, gates = parts(net, shared, tasks)
    assert (
        experts.shape
        == (7, shared_count + 2 * task_count, net.output_dim())
        == (*experts.shape[:2], 2)
    )
    for gate, found in zip(gates, net(shared, tasks), strict=True):
        expected = np.einsum("be,bed->bd", gate.detach().numpy(), experts.detach().numpy())
        np.testing.assert_allclose(found.detach(), expected, atol=1e-6)


def test_gradients_are_those_of_stopped_experts():
    net = make(num_shared_expert=2, num_task_expert=2)
    shared, tasks = inputs()
    found = torch.autograd.grad(
        net(shared, tasks)[1].square().sum(), list(net.parameters()), allow_unused=True
    )
    # The same by hand: experts 2 and 3 are those of the other task.
    experts, gates = parts(net, shared, tasks)
    experts = torch.cat([experts[:, :2], experts[:, 2:4].detach(), experts[:, 4:]], 1)
    own = (gates[1].unsqueeze(2) * experts).sum(1).square().sum()
    expected = torch.autograd.grad(own, list(net.parameters()), allow_unused=True)
    for (name, _), a, b in zip(net.named_parameters(), found, expected, strict=True):
        if b is None:
            assert a is None or (a == 0).all(), name
        else:
            torch.testing.assert_close(a, b, msg=name)


def test_gate_mlp():
    net = make(gate_mlp={"hidden_units": [3]})
    assert all(isinstance(gate.mlp, MLP) for gate in net.gates)


@pytest.mark.parametrize("field", ["num_shared_expert", "num_task_expert"])
def test_refuses(field):
    with pytest.raises(ConfigError, match=f"{field} 0"):
        make(**{field: 0})
