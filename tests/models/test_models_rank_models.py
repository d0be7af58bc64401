"""The ranking models: contract of the house, each against its formula."""

import numpy as np
import pytest
from models_contract import (
    CHECKS,
    Case,
    check_save_load,
    embed,
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
DEEP_IDS = group("deep", "user item tags")
FM = group("fm", "user tags item")
SEQ = group("seq", "item price click__item click__price", "SEQUENCE")
USER = group("u", "user")
ITEM = group("i", "item tags price")


def _wide(state, rows):
    return np.concatenate(ids(state, rows, "user item tags", "_emb_wide"), 1).sum(1, keepdims=True)


def _head(state, x, final):
    return squeeze(linear(state, "output_mlp", mlp(state, "final_mlp", x) if final else x))


def _wide_and_deep(final):
    def oracle(state, rows):
        deep = np.concatenate([*ids(state, rows, "user item tags"), price(rows)], 1)
        deep = mlp(state, "deep_mlp", deep)
        wide = _wide(state, rows)
        if final:
            return _head(state, np.concatenate([wide, deep], 1), True)
        return squeeze(wide + linear(state, "output_mlp", deep))

    return oracle


def _deepfm(final, fm_names):
    def oracle(state, rows):
        deep_parts = ids(state, rows, "user item tags")
        if fm_names:
            deep_parts.append(price(rows))
        deep = mlp(state, "deep_mlp", np.concatenate(deep_parts, 1))
        vectors = ids(state, rows, fm_names or "user item tags")
        # The definition: products of all pairs.
        fm = sum(vectors[i] * vectors[j] for i in range(3) for j in range(i))
        wide = _wide(state, rows)
        if final:
            return _head(state, np.concatenate([wide, fm, deep], 1), True)
        return squeeze(wide + fm.sum(1, keepdims=True) + linear(state, "output_mlp", deep))

    return oracle


def _multi_tower(state, rows):
    user = mlp(state, "towers.u", embed(state["user_emb"], rows["user"]))
    item = np.concatenate([*ids(state, rows, "item tags"), price(rows)], 1)
    return _head(state, np.concatenate([user, mlp(state, "towers.i", item)], 1), True)


def _identity_tower(state, rows):
    user = embed(state["user_emb"], rows["user"])
    item = np.concatenate([*ids(state, rows, "item tags"), price(rows)], 1)
    return _head(state, np.concatenate([user, mlp(state, "towers.i", item)], 1), True)


def _din(state, rows):
    table = state["seq:item_emb"]
    result = np.zeros((len(rows["user"]), 9))
    for i, (items, prices) in enumerate(
        zip(rows["click__item"], rows["click__price"], strict=True)
    ):
        if not items:
            continue
        query = np.append(table[rows["item"][i]], rows["price"][i])
        steps = np.concatenate([table[items], np.array(prices)[:, None]], 1)
        q = np.tile(query, (len(items), 1))
        x = np.concatenate([q, steps, q - steps, q * steps], 1)
        scores = linear(state, "din_towers.seq.linear", mlp(state, "din_towers.seq.mlp", x))[:, 0]
        weights = np.exp(scores - scores.max())
        result[i] = (weights / weights.sum()) @ steps
    return result


def _multi_tower_din(state, rows):
    user = mlp(state, "towers.u", embed(state["user_emb"], rows["user"]))
    item = np.concatenate([*ids(state, rows, "item tags"), price(rows)], 1)
    item = mlp(state, "towers.i", item)
    return _head(state, np.concatenate([user, item, _din(state, rows)], 1), True)


TOWERS = """
towers { input: "u" mlp { hidden_units: [32, 16] } }
towers { input: "i" mlp { hidden_units: 16 } }
"""
FINAL = "final { hidden_units: [32, 16] }"
BARE_TOWERS = 'towers { input: "u" } towers { input: "i" mlp { hidden_units: 16 } }'
DIN_TOWER = 'din_towers { input: "seq" attn_mlp { hidden_units: [16, 8] } }'
TWO_LAYERS = "deep { hidden_units: [32, 8] }"
CASES = {
    "wide_and_deep": Case(WIDE + DEEP + f"wide_and_deep {{ {TWO_LAYERS} }}", _wide_and_deep(False)),
    "wide_and_deep_final": Case(
        WIDE + DEEP + f"wide_and_deep {{ {TWO_LAYERS} {FINAL} }}",
        _wide_and_deep(True),
    ),
    "deepfm": Case(WIDE + DEEP_IDS + f"deepfm {{ {TWO_LAYERS} }}", _deepfm(False, "")),
    "deepfm_fm_group_final": Case(
        WIDE + DEEP + FM + f"deepfm {{ {TWO_LAYERS} {FINAL} }}",
        _deepfm(True, "user tags item"),
    ),
    "multi_tower": Case(USER + ITEM + f"multi_tower {{ {TOWERS} {FINAL} }}", _multi_tower),
    "multi_tower_without_mlp": Case(
        USER + ITEM + f"multi_tower {{ {BARE_TOWERS} {FINAL} }}",
        _identity_tower,
    ),
    "multi_tower_din": Case(
        USER + ITEM + SEQ + f"multi_tower_din {{ {TOWERS} {DIN_TOWER} {FINAL} }}",
        _multi_tower_din,
    ),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_contract(name, check):
    check(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_save_and_load(name, tmp_path):
    check_save_load(CASES[name], tmp_path / "model.pt")


def test_wide_dim_and_init_of_wide_tables():
    text = (
        WIDE
        + DEEP
        + """wide_and_deep { deep { hidden_units: 8 } wide_embedding_dim: 3
        wide_init_fn: "nn.init.constant_,val=0.5" } losses { binary_cross_entropy {} }"""
    )
    tables = {
        name.split(".")[-2]: p
        for name, p in make_model(text).named_parameters()
        if "embedding_bags" in name
    }
    assert tables["user_emb_wide"].shape == (40, 3)
    assert (tables["user_emb_wide"] == 0.5).all()
    assert tables["user_emb"].shape == (40, 8)
    assert not (tables["user_emb"] == 0.5).any()


def test_fm_needs_one_width():
    with pytest.raises(ConfigError, match=r"one width, not .*'price': 1"):
        make_model(WIDE + DEEP + "deepfm { deep { hidden_units: 8 } }")


def test_a_group_has_one_tower():
    text = USER + f'multi_tower {{ towers {{ input: "u" }} towers {{ input: "u" }} {FINAL} }}'
    with pytest.raises(ConfigError, match="two towers read the feature group 'u'"):
        make_model(text)


def test_din_needs_a_query():
    history = group("seq", "click__item", "SEQUENCE")
    text = f"multi_tower_din {{ {DIN_TOWER} {FINAL} }}"
    with pytest.raises(ConfigError, match="query"):
        make_model(history + text)
