"""Gates, MMoE and extraction networks against their formulas in NumPy."""

import numpy as np
import pytest
import torch

from tzrec.errors import ConfigError
from tzrec.modules.expert_gate import ExpertGate, mix_experts
from tzrec.modules.extraction_net import ExtractionNet
from tzrec.modules.mmoe import MMoE

EXPERT = {"hidden_units": [6, 4], "activation": "nn.Tanh"}
SHARED = {"hidden_units": [5, 4], "activation": "nn.Tanh"}


def _state(module):
    return {name: value.double().numpy() for name, value in module.state_dict().items()}


def _linear(state, name, x):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _mlp(state, name, x):
    for i in range(2):
        x = np.tanh(_linear(state, f"{name}.mlp.{i}.perceptron.0", x))
    return x


def _gate(state, name, x):
    z = np.exp(_linear(state, f"{name}.linear", x))
    return z / z.sum(1, keepdims=True)


def _mix(gate, experts):
    return sum(gate[:, i : i + 1] * expert for i, expert in enumerate(experts))


def _input(*widths, rows=5):
    torch.manual_seed(0)
    tensors = [torch.randn(rows, width) for width in widths]
    return tensors, [tensor.double().numpy() for tensor in tensors]


@pytest.mark.parametrize("mlp", [None, {"hidden_units": [3, 3], "activation": "nn.Tanh"}])
def test_gate(mlp):
    (x,), (raw,) = _input(7)
    gate = ExpertGate(7, 3, mlp=mlp)
    state = _state(gate)
    hidden = _mlp(state, "mlp", raw) if mlp else raw
    z = np.exp(hidden @ state["linear.weight"].T + state["linear.bias"])
    expected = z / z.sum(1, keepdims=True)
    np.testing.assert_allclose(gate(x).detach(), expected, rtol=1e-5, atol=1e-6)


def test_a_gate_of_one_expert_is_open_and_learns_nothing():
    gate = ExpertGate(7, 1, mlp={"hidden_units": [3]})
    assert not list(gate.parameters())
    assert torch.equal(gate(torch.randn(5, 7)), torch.ones(5, 1))


@pytest.mark.parametrize("num_expert", [1, 4])
def test_mixture(num_expert):
    tensors, raw = _input(*[3] * num_expert, num_expert, num_expert)
    experts, gates = tensors[:num_expert], tensors[num_expert:]
    mixed = mix_experts(gates, experts)
    assert len(mixed) == 2
    for found, gate in zip(mixed, raw[num_expert:], strict=True):
        np.testing.assert_allclose(found, _mix(gate, raw[:num_expert]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 5])
def test_mmoe(rows):
    (x,), (raw,) = _input(7, rows=rows)
    mmoe = MMoE(7, EXPERT, num_expert=3, num_task=2)
    state = _state(mmoe)
    experts = [_mlp(state, f"experts.{e}", raw) for e in range(3)]
    outputs = mmoe(x)
    assert len(outputs) == 2
    assert mmoe.output_dim() == 4
    for t, output in enumerate(outputs):
        expected = _mix(_gate(state, f"gates.{t}", raw), experts)
        np.testing.assert_allclose(output.detach(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("numbers", [(0, 2), (3, 0)])
def test_mmoe_needs_experts_and_tasks(numbers):
    with pytest.raises(ConfigError, match="needs experts and tasks"):
        MMoE(7, EXPERT, *numbers)


@pytest.mark.parametrize("share_num", [0, 1, 2])
@pytest.mark.parametrize("has_shared_output", [True, False])
def test_extraction_net(share_num, has_shared_output):
    (a, b, s), raw = _input(7, 6, 5)
    net = ExtractionNet(
        [7, 6],
        5,
        expert_num_per_task=2,
        task_expert_net=EXPERT,
        share_num=share_num,
        share_expert_net=SHARED if share_num else None,
        has_shared_output=has_shared_output,
    )
    state = _state(net)
    own = [[_mlp(state, f"task_experts.{t}.{e}", raw[t]) for e in range(2)] for t in range(2)]
    shared = [_mlp(state, f"share_experts.{e}", raw[2]) for e in range(share_num)]
    tasks, last = net([a, b], s)
    assert net.output_dim() == 4
    for t, output in enumerate(tasks):
        expected = _mix(_gate(state, f"task_gates.{t}", raw[t]), own[t] + shared)
        np.testing.assert_allclose(output.detach(), expected, rtol=1e-4, atol=1e-6)
    if has_shared_output:
        expected = _mix(_gate(state, "share_gate", raw[2]), own[0] + own[1] + shared)
        np.testing.assert_allclose(last.detach(), expected, rtol=1e-4, atol=1e-6)
    else:
        assert last is s
        assert not any(name.startswith("share_gate") for name in state)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"expert_num_per_task": 0}, "at least one expert"),
        ({"share_num": 1}, "no share_expert_net"),
        ({"share_num": 1, "share_expert_net": {"hidden_units": [3]}}, "4 wide and shared ones 3"),
    ],
)
def test_extraction_net_refuses(fields, message):
    fields = {"expert_num_per_task": 1, "task_expert_net": EXPERT, **fields}
    with pytest.raises(ConfigError, match=message):
        ExtractionNet([7], 7, **fields)
