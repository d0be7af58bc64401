"""MMoE and SimpleMultiTask: contract of the house, each against its formula."""

import numpy as np
import pytest
from models_contract import embed, group, linear, mlp, squeeze
from multi_task_contract import CHECKS, CTR, KIND, WATCH, MultiCase

GROUP = group("all", "user item tags price")
# What models read the first of.
OTHER = group("other", "user")
TOWERS = f"""
task_towers {{ {CTR} mlp {{ hidden_units: [32, 16] }} }}
task_towers {{ {WATCH} mlp {{ hidden_units: 32 }} }}
task_towers {{ {KIND} }}
"""
DEEP_TOWERS = TOWERS.replace(KIND, f"{KIND} mlp {{ hidden_units: 32 }}")
EXPERT = "expert_mlp { hidden_units: [64, 32] }"
GATE = "gate_mlp { hidden_units: 16 }"


def first_group(state, rows):
    parts = [embed(state[f"{name}_emb"], rows[name]) for name in ("user", "item")]
    parts.append(embed(state["tags_emb"], rows["tags"], mean=True))
    return np.concatenate([*parts, np.array(rows["price"], np.float64)[:, None]], 1)


def towers(state, inputs):
    """{name of a prediction: logits or y}; ``inputs`` are those of ctr, watch and kind."""
    found = {}
    keys = ("logits_ctr", "y_watch", "logits_kind")
    for key, x in zip(keys, inputs, strict=True):
        tower = f"task_towers.{key.split('_')[1]}"
        if f"{tower}.tower_mlp.mlp.0.perceptron.0.weight" in state:
            x = mlp(state, f"{tower}.tower_mlp", x)
        found[key] = squeeze(linear(state, f"{tower}.linear", x))
    return found


def softmax(x):
    z = np.exp(x - x.max(1, keepdims=True))
    return z / z.sum(1, keepdims=True)


def _mmoe(num_expert, has_gate_mlp):
    def oracle(state, rows):
        x = first_group(state, rows)
        experts = [mlp(state, f"mmoe.experts.{e}", x) for e in range(num_expert)]
        mixed = []
        for t in range(3):
            if num_expert == 1:
                mixed.append(experts[0])
                continue
            hidden = mlp(state, f"mmoe.gates.{t}.mlp", x) if has_gate_mlp else x
            gate = softmax(linear(state, f"mmoe.gates.{t}.linear", hidden))
            mixed.append(np.einsum("be,ebd->bd", gate, np.stack(experts)))
        return towers(state, mixed)

    return oracle


CASES = {
    "mmoe": MultiCase(GROUP + f"mmoe {{ {EXPERT} num_expert: 3 {TOWERS} }}", _mmoe(3, False)),
    "mmoe_gate_mlp": MultiCase(
        GROUP + OTHER + f"mmoe {{ {EXPERT} {GATE} num_expert: 2 {TOWERS} }}", _mmoe(2, True)
    ),
    "mmoe_one_expert": MultiCase(
        GROUP + f"mmoe {{ {EXPERT} num_expert: 1 {TOWERS} }}", _mmoe(1, False)
    ),
    "simple_multi_task": MultiCase(
        GROUP + f"simple_multi_task {{ {DEEP_TOWERS} }}",
        lambda state, rows: towers(state, [first_group(state, rows)] * 3),
    ),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_contract(name, check):
    check(CASES[name])


def test_number_of_experts_is_3_if_it_is_not_written():
    model = MultiCase(GROUP + f"mmoe {{ {EXPERT} {TOWERS} }}", _mmoe(3, False)).model()
    assert len(model.mmoe.experts) == 3
