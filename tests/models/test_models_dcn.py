"""DCN v1 and v2: contract of the house, each against its formula."""

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

# The first group is read, whatever its name; the second is not.
FIRST = group("all_of_them", "user price item tags")
DEEP = "deep { hidden_units: [32, 16] }"
BACKBONE = "backbone { hidden_units: [24, 12] }"
FINAL = "final { hidden_units: [32, 16] }"


def _features(state, rows):
    user, item, tags = ids(state, rows, "user item tags")
    return np.concatenate([user, price(rows), item, tags], 1)


def _head(state, parts):
    assert "output_mlp.bias" not in state
    x = mlp(state, "final_mlp", np.concatenate(parts, 1))
    return squeeze(linear(state, "output_mlp", x))


def _dcn_v1(state, rows):
    x0 = x = _features(state, rows)
    for w, b in zip(state["cross.weight"], state["cross.bias"], strict=True):
        x = (x @ w)[:, None] * x0 + b + x
    return _head(state, [x, mlp(state, "deep_mlp", x0)])


def _dcn_v2(*, backbone=False, deep=False, layers=3, low_rank=True):
    def oracle(state, rows):
        features = _features(state, rows)
        x0 = x = mlp(state, "backbone", features) if backbone else features
        for i in range(layers):
            if low_rank:
                u, v = (f"cross.layers.{i}.{j}" for j in (0, 1))
                assert f"{u}.bias" not in state
                x = x0 * linear(state, v, linear(state, u, x)) + x
            else:
                x = x0 * linear(state, f"cross.layers.{i}", x) + x
        assert f"cross.layers.{layers}.0.weight" not in state
        return _head(state, [x, mlp(state, "deep_mlp", features)] if deep else [x])

    return oracle


CASES = {
    "dcn_v1": Case(FIRST + f"dcn_v1 {{ cross {{}} {DEEP} {FINAL} }}", _dcn_v1),
    "dcn_v1_one_layer": Case(
        FIRST + f"dcn_v1 {{ cross {{ cross_num: 1 }} {DEEP} {FINAL} }}", _dcn_v1
    ),
    "dcn_v2": Case(FIRST + f"dcn_v2 {{ cross {{}} {FINAL} }}", _dcn_v2()),
    "dcn_v2_stacked_and_parallel": Case(
        FIRST + f"dcn_v2 {{ {BACKBONE} cross {{ cross_num: 2 low_rank: 4 }} {DEEP} {FINAL} }}",
        _dcn_v2(backbone=True, deep=True, layers=2),
    ),
    "dcn_v2_whole_matrix": Case(
        FIRST + f"dcn_v2 {{ cross {{ cross_num: 1 low_rank: 0 }} {FINAL} }}",
        _dcn_v2(layers=1, low_rank=False),
    ),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_contract(name, check):
    check(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_save_and_load(name, tmp_path):
    check_save_load(CASES[name], tmp_path / "model.pt")


def test_three_layers_of_rank_32_are_the_defaults():
    v1 = make_model(FIRST + f"dcn_v1 {{ cross {{}} {DEEP} {FINAL} }}" + BCE)
    assert v1.cross.weight.shape == (3, 25)
    v2 = make_model(FIRST + f"dcn_v2 {{ cross {{}} {FINAL} }}" + BCE)
    assert [layer[0].weight.shape for layer in v2.cross.layers] == [(32, 25)] * 3
