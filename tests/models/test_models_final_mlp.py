"""FinalMLP: contract of the house, knobs."""

import numpy as np
import pytest
from models_contract import (
    BCE,
    CHECKS,
    Case,
    check_save_load,
    group,
    ids,
    linear,
    make_model,
    mlp,
    price,
    squeeze,
)

from tzrec.errors import ConfigError

DEEP = group("features", "user item tags price")
FS1, FS2 = group("fs1", "user"), group("fs2", "item price")
STREAMS = "mlp1 { hidden_units: [32, 8] } mlp2 { hidden_units: [16, 12] }"
GATES = "feature_selection { hidden_units: 8 }"


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _gate(state, name, context, x):
    context = state[f"{name}.context"] if context is None else np.concatenate(context, 1)
    return 2 * _sigmoid(linear(state, f"{name}.linear", mlp(state, f"{name}.mlp", context))) * x


def _final_mlp(*, heads=1, gates=False, contexts=(False, False)):
    def oracle(state, rows):
        user, item, tags = ids(state, rows, "user item tags")
        x1 = x2 = np.concatenate([user, item, tags, price(rows)], 1)
        if gates:
            x1 = _gate(state, "gate1", [user] if contexts[0] else None, x1)
            x2 = _gate(state, "gate2", [item, price(rows)] if contexts[1] else None, x2)
        o1, o2 = mlp(state, "mlp1", x1), mlp(state, "mlp2", x2)
        y = linear(state, "fusion.linear_x", o1) + linear(state, "fusion.linear_y", o2)
        size, width = 8 // heads, 12 // heads
        for h in range(heads):
            left = o1[:, h * size : (h + 1) * size]
            right = o2[:, h * width : (h + 1) * width]
            for c in range(y.shape[1]):
                weight = state["fusion.weight"][h][:, c * width : (c + 1) * width]
                y[:, c] += np.einsum("bi,ij,bj->b", left, weight, right)
        return squeeze(y)

    return oracle


CASES = {
    "streams": Case(DEEP + f"final_mlp {{ {STREAMS} }}", _final_mlp()),
    "heads": Case(DEEP + f"final_mlp {{ {STREAMS} num_heads: 4 }}", _final_mlp(heads=4)),
    "gates": Case(
        DEEP + FS1 + FS2 + f"final_mlp {{ {STREAMS} {GATES} }}",
        _final_mlp(gates=True, contexts=(True, True)),
    ),
    "constant_contexts": Case(
        DEEP + f"final_mlp {{ {STREAMS} {GATES} num_heads: 2 }}", _final_mlp(heads=2, gates=True)
    ),
    "one_constant_context": Case(
        DEEP + FS2 + f"final_mlp {{ {STREAMS} {GATES} }}",
        _final_mlp(gates=True, contexts=(False, True)),
    ),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_contract(name, check):
    check(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_save_and_load(name, tmp_path):
    check_save_load(CASES[name], tmp_path / "model.pt")


def test_a_constant_context_is_as_wide_as_the_widest_feature():
    state = make_model(CASES["constant_contexts"].config + BCE).state_dict()
    assert state["gate1.context"].shape == state["gate2.context"].shape == (1, 8)
    assert not np.array_equal(state["gate1.context"], state["gate2.context"])


def test_heads_divide_the_streams():
    with pytest.raises(ConfigError, match=r"num_heads is 3, .*\(8 and 12 units\)"):
        make_model(DEEP + f"final_mlp {{ {STREAMS} num_heads: 3 }}" + BCE)


@pytest.mark.parametrize("field", ["use_bn: true", 'activation: "Dice"'])
def test_a_constant_context_has_no_batch_statistics(field):
    gates = f"feature_selection {{ hidden_units: 8 {field} }}"
    text = f"final_mlp {{ {STREAMS} {gates} }}" + BCE
    make_model(DEEP + FS1 + FS2 + text)
    with pytest.raises(ConfigError, match="feature_selection normalises over the batch"):
        make_model(DEEP + FS1 + text)
