"""GDCN: contract of the house, knobs."""

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
MLP = "deep { hidden_units: [32, 16] }"
FINAL = "final { hidden_units: 16 }"


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _gdcn(*, layers, deep, stacked=False, final=False):
    def oracle(state, rows):
        features = np.concatenate([*ids(state, rows, "user item tags"), price(rows)], 1)
        x = features
        for i in range(layers):
            crossed = features * linear(state, f"cross.crosses.{i}", x)
            x = crossed * _sigmoid(linear(state, f"cross.gates.{i}", x)) + x
        if deep and stacked:
            x = mlp(state, "deep_mlp", x)
        elif deep:
            x = np.concatenate([x, mlp(state, "deep_mlp", features)], 1)
        if final:
            x = mlp(state, "final_mlp", x)
        return squeeze(linear(state, "output_mlp", x))

    return oracle


def _config(fields: str) -> str:
    return DEEP + f"gdcn {{ {fields} }}"


CASES = {
    "cross_only": Case(_config("cross { cross_num: 1 }"), _gdcn(layers=1, deep=False)),
    "parallel": Case(_config(f"cross {{ }} {MLP}"), _gdcn(layers=3, deep=True)),
    "parallel_final": Case(
        _config(f"cross {{ cross_num: 2 }} {MLP} {FINAL}"), _gdcn(layers=2, deep=True, final=True)
    ),
    "stacked": Case(
        _config(f"cross {{ cross_num: 2 }} {MLP} stacked: true"),
        _gdcn(layers=2, deep=True, stacked=True),
    ),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_contract(name, check):
    check(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_save_and_load(name, tmp_path):
    check_save_load(CASES[name], tmp_path / "model.pt")


def test_stacked_needs_an_mlp():
    with pytest.raises(ConfigError, match="stacked puts the MLP deep on the cross layers"):
        make_model(_config("cross { } stacked: true") + BCE)
    with pytest.raises(ConfigError, match="cross_num is 0"):
        make_model(_config("cross { cross_num: 0 }") + BCE)
