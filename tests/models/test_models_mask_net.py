"""MaskNet: contract of the house, knobs."""

import numpy as np
import pytest
from models_contract import (
    BCE,
    CHECKS,
    Case,
    check_save_load,
    group,
    ids,
    layer_norm,
    linear,
    make_model,
    mlp,
    price,
    squeeze,
)

DEEP = group("features", "user item tags price")
TOP = "top_mlp { hidden_units: [32, 16] }"


def _block(state, name, x, features):
    mask = np.maximum(linear(state, f"{name}.mask_generator.0", features), 0)
    mask = linear(state, f"{name}.mask_generator.2", mask)
    hidden = linear(state, f"{name}.hidden_layer.0", x * mask)
    return np.maximum(layer_norm(state, f"{name}.hidden_layer.1", hidden), 0)


def _mask_net(*, parallel, num_blocks, top):
    def oracle(state, rows):
        features = np.concatenate([*ids(state, rows, "user item tags"), price(rows)], 1)
        x = layer_norm(state, "mask_net.ln_emb", features)
        blocks = [f"mask_net.mask_blocks.{i}" for i in range(num_blocks)]
        if parallel:
            x = np.concatenate([_block(state, name, x, features) for name in blocks], 1)
        else:
            for name in blocks:
                x = _block(state, name, x, features)
        if top:
            x = mlp(state, "mask_net.top_mlp", x)
        assert "output_mlp.bias" not in state
        return squeeze(linear(state, "output_mlp", x))

    return oracle


def _config(fields: str, block: str = "hidden_dim: 16") -> str:
    return DEEP + f"mask_net {{ mask_net_module {{ mask_block {{ {block} }} {fields} }} }}"


CASES = {
    "parallel": Case(
        _config(f"n_mask_blocks: 3 {TOP}"), _mask_net(parallel=True, num_blocks=3, top=True)
    ),
    "serial": Case(
        _config(f"n_mask_blocks: 2 use_parallel: false {TOP}"),
        _mask_net(parallel=False, num_blocks=2, top=True),
    ),
    "without_top_mlp": Case(
        _config("n_mask_blocks: 2"), _mask_net(parallel=True, num_blocks=2, top=False)
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
    ("block", "width"),
    [
        ("", 25),
        ("reduction_ratio: 2", 50),
        ("aggregation_dim: 7", 25),
        ("reduction_ratio: 0 aggregation_dim: 7", 7),
    ],
)
def test_hidden_units_of_the_masks(block, width):
    model = make_model(_config("n_mask_blocks: 2", f"hidden_dim: 16 {block}") + BCE)
    state = model.state_dict()
    assert state["mask_net.mask_blocks.1.mask_generator.0.weight"].shape == (width, 25)


def test_reads_the_first_group():
    more = group("other", "user")
    state = make_model(_config("n_mask_blocks: 2") + more + BCE).state_dict()
    assert state["mask_net.ln_emb.weight"].shape == (25,)
    state = make_model(more + _config("n_mask_blocks: 2") + BCE).state_dict()
    assert state["mask_net.ln_emb.weight"].shape == (8,)
