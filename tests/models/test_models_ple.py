"""PLE: contract of the house, against its formula."""

import numpy as np
import pytest
from models_contract import linear, make_model, mlp
from multi_task_contract import CHECKS, LABELS, MultiCase
from test_models_mmoe import GROUP, TOWERS, first_group, softmax, towers

from tzrec.errors import ConfigError


def _network(name, own, shared=0):
    more = f"share_num: {shared} share_expert_net {{ hidden_units: [24, 32] }}" if shared else ""
    return f"""extraction_networks {{ network_name: "{name}" expert_num_per_task: {own}
    task_expert_net {{ hidden_units: [32] }} {more} }}"""


def _oracle(*networks):
    """Networks are (name, experts per task, shared experts, has a shared output)."""

    def oracle(state, rows):
        shared = first_group(state, rows)
        tasks = [shared] * 3
        for name, num_own, num_shared, has_output in networks:
            net = f"extraction_nets.{name}"
            own = [
                [mlp(state, f"{net}.task_experts.{t}.{e}", x) for e in range(num_own)]
                for t, x in enumerate(tasks)
            ]
            common = [mlp(state, f"{net}.share_experts.{e}", shared) for e in range(num_shared)]
            if has_output:
                gate = softmax(linear(state, f"{net}.share_gate.linear", shared))
                shared = np.einsum(
                    "be,ebd->bd", gate, np.stack([*own[0], *own[1], *own[2], *common])
                )
            for t, x in enumerate(tasks):
                experts = np.stack(own[t] + common)
                gate = np.ones((len(x), 1))
                if len(experts) > 1:
                    gate = softmax(linear(state, f"{net}.task_gates.{t}.linear", x))
                tasks[t] = np.einsum("be,ebd->bd", gate, experts)
        return towers(state, tasks)

    return oracle


CASES = {
    "one_layer": MultiCase(
        GROUP + f"ple {{ {_network('cgc', 2, 1)} {TOWERS} }}", _oracle(("cgc", 2, 1, False))
    ),
    "two_layers": MultiCase(
        GROUP + f"ple {{ {_network('a', 1, 2)} {_network('b', 2, 1)} {TOWERS} }}",
        _oracle(("a", 1, 2, True), ("b", 2, 1, False)),
    ),
    # The shared output lives as long as a later layer has shared experts.
    "gaps": MultiCase(
        GROUP + f"ple {{ {_network('a', 2)} {_network('b', 1, 1)} {_network('c', 1)} {TOWERS} }}",
        _oracle(("a", 2, 0, True), ("b", 1, 1, False), ("c", 1, 0, False)),
    ),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_contract(name, check):
    if name == "gaps" and check.__name__ == "check_overfits":
        pytest.skip("is about the path of the shared output; takes long")
    check(CASES[name])


@pytest.mark.parametrize(
    ("networks", "message"),
    [
        ("", "no extraction_networks"),
        (_network("a", 1) + _network("a", 1), "two extraction networks are called 'a'"),
        (_network("a.b", 1), "becomes part of parameter names"),
    ],
)
def test_networks_are_there_and_have_names(networks, message):
    with pytest.raises(ConfigError, match=message):
        make_model(GROUP + f"ple {{ {networks} {TOWERS} }}", labels=LABELS)
