"""WuKong: contract of the house, its formula, its groups."""

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

SPARSE = group("sparse", "user item tags")
DENSE = group("dense", "price")
DENSE_MLP = "dense_mlp { hidden_units: [16, 8] }"
FINAL = "final { hidden_units: [32, 16] }"
LAYER = """wukong_layers { lcb_feature_num: 3 fmb_feature_num: 2 compressed_feature_num: 4
  feature_num_mlp { hidden_units: 16 } }"""
# As many features out as in: the residual needs no projection.
SAME = """wukong_layers { lcb_feature_num: 2 fmb_feature_num: 3
  feature_num_mlp { hidden_units: [16, 12] } }"""


def _norm(state, name, x):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * state[f"{name}.weight"] + state[f"{name}.bias"]


def _layer(state, name, x, num_fmb):
    rows, _, dim = x.shape
    dots = np.stack([v @ v.T @ state[f"{name}.fmb_weight"].T for v in x]).reshape(rows, -1)
    fmb = mlp(state, f"{name}.fmb_mlp", _norm(state, f"{name}.fmb_norm", dots))
    fmb = linear(state, f"{name}.fmb_linear", fmb).reshape(rows, num_fmb, dim)
    lcb = np.stack([state[f"{name}.lcb_weight"] @ v for v in x])
    residual = x
    if f"{name}.residual_weight" in state:
        residual = np.stack([state[f"{name}.residual_weight"] @ v for v in x])
    return _norm(state, f"{name}.norm", np.concatenate([fmb, lcb], 1) + residual)


def _wukong(dense, fmbs):
    def oracle(state, rows):
        vectors = ids(state, rows, "user item tags")
        if dense:
            vectors = [mlp(state, "dense_mlp", price(rows)), *vectors]
        x = np.stack(vectors, 1)
        for i, num_fmb in enumerate(fmbs):
            assert (f"layers.{i}.residual_weight" in state) == (i == 0)
            x = _layer(state, f"layers.{i}", x, num_fmb)
        x = mlp(state, "final_mlp", x.reshape(len(x), -1))
        return squeeze(linear(state, "output_mlp", x))

    return oracle


CASES = {
    "wukong": Case(
        SPARSE + DENSE + f"wukong {{ {DENSE_MLP} {LAYER} {SAME} {FINAL} }}", _wukong(True, [2, 3])
    ),
    "lone_group_is_sparse": Case(
        group("anything", "user item tags") + f"wukong {{ {LAYER} {FINAL} }}", _wukong(False, [2])
    ),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_contract(name, check):
    check(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_save_and_load(name, tmp_path):
    check_save_load(CASES[name], tmp_path / "model.pt")


def test_compressed_feature_num_is_16_by_default():
    model = make_model(SPARSE + f"wukong {{ {SAME} {FINAL} }}" + BCE)
    assert model.layers[0].fmb_weight.shape == (16, 3)


@pytest.mark.parametrize(
    ("groups", "more", "message"),
    [
        (group("sparse", "user price"), LAYER, r"one width, not .*'price': 1"),
        (SPARSE + DENSE, LAYER, "group dense, but no dense_mlp"),
        (SPARSE, "", "no wukong_layers"),
    ],
)
def test_configs_that_do_not_fit(groups, more, message):
    with pytest.raises(ConfigError, match=message):
        make_model(groups + f"wukong {{ {more} {FINAL} }}" + BCE)
