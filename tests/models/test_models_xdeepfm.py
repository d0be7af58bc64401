"""xDeepFM: contract of the house, its formula."""

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

WIDE = group("wide", "user item tags", "WIDE")
DEEP = group("deep", "user item tags price")
MLPS = "deep { hidden_units: [32, 8] } final { hidden_units: [32, 16] }"


def _cin(state, x0, sizes):
    """The definition, pair by pair."""
    maps, sums = x0, []
    for k, size in enumerate(sizes):
        weight = state[f"cin.layers.{k}.weight"].reshape(size, maps.shape[1], x0.shape[1])
        bias = state[f"cin.layers.{k}.bias"]
        maps = np.stack(
            [
                bias[h]
                + sum(
                    weight[h, i, j] * maps[:, i] * x0[:, j]
                    for i in range(maps.shape[1])
                    for j in range(x0.shape[1])
                )
                for h in range(size)
            ],
            1,
        )
        sums.append(maps.sum(2))
    return np.concatenate(sums, 1)


def _xdeepfm(*sizes):
    def oracle(state, rows):
        x0 = np.stack(ids(state, rows, "user item tags", "_emb_wide"), 1)
        deep = np.concatenate([*ids(state, rows, "user item tags"), price(rows)], 1)
        parts = [_cin(state, x0, sizes), mlp(state, "deep_mlp", deep)]
        return squeeze(linear(state, "output_mlp", mlp(state, "final_mlp", np.hstack(parts))))

    return oracle


CASES = {
    "xdeepfm": Case(
        WIDE + DEEP + f"xdeepfm {{ cin {{ cin_layer_size: [4, 3] }} {MLPS} }}", _xdeepfm(4, 3)
    ),
    "one_layer": Case(
        WIDE + DEEP + f"xdeepfm {{ cin {{ cin_layer_size: 5 }} wide_embedding_dim: 8 {MLPS} }}",
        _xdeepfm(5),
    ),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_contract(name, check):
    check(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_save_and_load(name, tmp_path):
    check_save_load(CASES[name], tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("more", "dim", "constant"),
    [
        ("", 16, False),
        ('wide_embedding_dim: 4 wide_init_fn: "nn.init.constant_,val=0.5"', 4, True),
    ],
)
def test_wide_dim_and_init_of_wide_tables(more, dim, constant):
    text = f"xdeepfm {{ cin {{ cin_layer_size: 5 }} {MLPS} {more} }}"
    tables = {
        name.split(".")[-2]: p
        for name, p in make_model(WIDE + DEEP + text + BCE).named_parameters()
        if "embedding_bags" in name
    }
    assert tables["user_emb_wide"].shape == (40, dim)
    assert bool((tables["user_emb_wide"] == 0.5).all()) == constant
    assert tables["user_emb"].shape == (40, 8)


def test_cin_needs_layers():
    with pytest.raises(ConfigError, match="cin_layer_size"):
        make_model(WIDE + DEEP + f"xdeepfm {{ cin {{}} {MLPS} }}" + BCE)
