"""AutoInt and AutoInt+: contract of the house, knobs."""

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

FEATURES = group("features", "user item tags")
DEEP = group("deep", "item price")
MLP = "deep { hidden_units: [32, 16] }"
FINAL = "final { hidden_units: 16 }"


def _layer(state, name, x, heads, size, residual):
    """One pair of features of one row after the other."""
    width = heads * size
    query, key, value, *rest = np.split(
        state[f"{name}.projection.weight"], 4 if residual else 3, axis=0
    )
    result = np.zeros((*x.shape[:2], width))
    for row, vectors in enumerate(x):
        for m, e in enumerate(vectors):
            for h in range(heads):
                part = slice(h * size, (h + 1) * size)
                scores = np.array([(query[part] @ e) @ (key[part] @ k) for k in vectors])
                weights = np.exp(scores) / np.exp(scores).sum()
                result[row, m, part] = sum(
                    w * (value[part] @ k) for w, k in zip(weights, vectors, strict=True)
                )
            if residual:
                result[row, m] += rest[0] @ e
    return np.maximum(result, 0)


def _autoint(*, layers, heads=2, size=16, residual=True, deep="", final=False):
    def oracle(state, rows):
        parts = dict(zip(["user", "item", "tags"], ids(state, rows, "user item tags"), strict=True))
        x = np.stack(list(parts.values()), 1)
        for i in range(layers):
            x = _layer(state, f"layers.{i}", x, heads, size, residual)
        x = x.reshape(len(x), -1)
        if deep:
            parts["price"] = price(rows)
            raw = np.concatenate([parts[name] for name in deep.split()], 1)
            x = np.concatenate([x, mlp(state, "deep_mlp", raw)], 1)
        if final:
            x = mlp(state, "final_mlp", x)
        return squeeze(linear(state, "output_mlp", x))

    return oracle


SMALL = "num_layers: 2 num_heads: 3 attention_dim: 4"
CASES = {
    "autoint": Case(FEATURES + f"autoint {{ {SMALL} }}", _autoint(layers=2, heads=3, size=4)),
    "autoint_plus": Case(
        FEATURES + f"autoint {{ {MLP} }}", _autoint(layers=3, deep="user item tags")
    ),
    "deep_group_final": Case(
        FEATURES + DEEP + f"autoint {{ {SMALL} use_residual: false {MLP} {FINAL} }}",
        _autoint(layers=2, heads=3, size=4, residual=False, deep="item price", final=True),
    ),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_contract(name, check):
    check(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_save_and_load(name, tmp_path):
    check_save_load(CASES[name], tmp_path / "model.pt")


def test_features_have_one_width():
    with pytest.raises(ConfigError, match=r"one width, not .*'price': 1"):
        make_model(group("features", "user item price") + "autoint { }" + BCE)
    with pytest.raises(ConfigError, match="attention_dim 0"):
        make_model(FEATURES + "autoint { attention_dim: 0 }" + BCE)
