"""DLRM: contract of the house, its formula, its groups."""

import itertools

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


def _dlrm(*, dense=True, with_sparse=True):
    def oracle(state, rows):
        vectors = ids(state, rows, "user item tags")
        if dense:
            vectors = [mlp(state, "dense_mlp", price(rows)), *vectors]
        parts = [(a * b).sum(1, keepdims=True) for a, b in itertools.combinations(vectors, 2)]
        if with_sparse:
            parts += vectors
        elif dense:
            parts.append(vectors[0])
        x = mlp(state, "final_mlp", np.concatenate(parts, 1))
        return squeeze(linear(state, "output_mlp", x))

    return oracle


CASES = {
    "dlrm": Case(SPARSE + DENSE + f"dlrm {{ {DENSE_MLP} {FINAL} }}", _dlrm()),
    "without_sparse": Case(
        DENSE + SPARSE + f"dlrm {{ {DENSE_MLP} {FINAL} arch_with_sparse: false }}",
        _dlrm(with_sparse=False),
    ),
    "lone_group_is_sparse": Case(
        group("anything", "user item tags") + f"dlrm {{ {FINAL} }}", _dlrm(dense=False)
    ),
    "dots_alone": Case(
        SPARSE + f"dlrm {{ {FINAL} arch_with_sparse: false }}",
        _dlrm(dense=False, with_sparse=False),
    ),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_contract(name, check):
    check(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_save_and_load(name, tmp_path):
    check_save_load(CASES[name], tmp_path / "model.pt")


ENCODED = """sequence_groups { feature_names: ["item", "click__item"] }
sequence_encoders { simple_attention {} }"""


@pytest.mark.parametrize(
    ("groups", "more", "message"),
    [
        (group("sparse", "user price") + DENSE, DENSE_MLP, r"one width, not .*'price': 1"),
        (SPARSE + DENSE, "", "group dense, but no dense_mlp"),
        (SPARSE + DENSE, "dense_mlp { hidden_units: 16 }", "ends with 16 units, .* are 8 wide"),
        (group("sparse", "user", more=ENCODED), "", "takes no sequence_encoders"),
        (group("other", "user item") + DENSE, DENSE_MLP, "no feature group 'sparse'"),
        (group("sparse", "user"), "", "1 feature makes no pair"),
    ],
)
def test_groups_that_do_not_fit(groups, more, message):
    with pytest.raises(ConfigError, match=message):
        make_model(groups + f"dlrm {{ {more} {FINAL} }}" + BCE)
