"""TransAct: contract of the house, knobs."""

import numpy as np
import pytest
import torch
from models_contract import (
    BCE,
    CHECKS,
    Case,
    check_save_load,
    group,
    ids,
    layer_norm,
    linear,
    make_batch,
    make_model,
    make_rows,
    mlp,
    price,
    squeeze,
    train,
)

from tzrec.errors import ConfigError
from tzrec.models.wrappers import TrainWrapper

SEQ = group("seq", "item price click__item click__price", "SEQUENCE")
DEEP = group("u", "user tags") + group("i", "item price")
FINAL = "final { hidden_units: [32, 16] }"
SMALL = "num_layers: 1 num_heads: 3 num_latest: 2 max_seq_length: 4"


def _softmax(scores):
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def _layer(state, name, x, heads):
    """A transformer layer on the steps (T, D) of one row."""
    query, key, value = np.split(linear(state, f"{name}.in_proj", x), 3, axis=1)
    size = x.shape[1] // heads
    attended = []
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        weights = _softmax(query[:, part] @ key[:, part].T / np.sqrt(size))
        attended.append(weights @ value[:, part])
    x = x + linear(state, f"{name}.out_proj", np.concatenate(attended, 1))
    x = layer_norm(state, f"{name}.norm1", x)
    hidden = np.maximum(linear(state, f"{name}.linear1", x), 0)
    return layer_norm(state, f"{name}.norm2", x + linear(state, f"{name}.linear2", hidden))


def _history(state, rows, *, layers, heads, latest, steps, oldest_first):
    table = state["seq:item_emb"]
    result = np.zeros((len(rows["user"]), (latest + 1) * 18))
    for row, (items, prices) in enumerate(
        zip(rows["click__item"], rows["click__price"], strict=True)
    ):
        if not items:
            continue
        query = np.append(table[rows["item"][row]], rows["price"][row])
        x = np.concatenate([table[items], np.array(prices)[:, None]], 1)
        x = np.concatenate([x, np.tile(query, (len(items), 1))], 1)
        x = (x[::-1] if oldest_first else x)[: steps or None]
        for i in range(layers):
            x = _layer(state, f"transact_towers.seq.layers.{i}", x, heads)
        result[row, : 18 * min(latest, len(x))] = x[:latest].ravel()
        result[row, 18 * latest :] = x.max(0)
    return result


def _transact(*, crosses=0, deep=True, **tower):
    tower = {"layers": 2, "heads": 2, "latest": 10, "steps": 0, "oldest_first": False} | tower

    def oracle(state, rows):
        user, item, tags = ids(state, rows, "user item tags") if deep else (None,) * 3
        parts = [user, tags, item, price(rows)] if deep else []
        x = first = np.concatenate([*parts, _history(state, rows, **tower)], 1)
        for i in range(crosses):
            down = linear(state, f"cross.layers.{i}.0", x)
            x = first * linear(state, f"cross.layers.{i}.1", down) + x
        return squeeze(linear(state, "output_mlp", mlp(state, "final_mlp", x)))

    return oracle


def _config(tower: str = "", more: str = "", groups: str = DEEP + SEQ) -> str:
    return groups + f'transact {{ transact_towers {{ input: "seq" {tower} }} {more} {FINAL} }}'


# Without dropout, which the oracle does not draw.
CASES = {
    "transact": Case(
        _config("dropout_ratio: 0", "cross { cross_num: 2 low_rank: 4 }"), _transact(crosses=2)
    ),
    "small": Case(
        _config(f"dropout_ratio: 0 {SMALL}"), _transact(layers=1, heads=3, latest=2, steps=4)
    ),
    "history_only": Case(
        _config("dropout_ratio: 0 num_latest: 0", groups=SEQ), _transact(latest=0, deep=False)
    ),
    "oldest_first": Case(
        _config(f"dropout_ratio: 0 {SMALL} latest_first: false"),
        _transact(layers=1, heads=3, latest=2, steps=4, oldest_first=True),
    ),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_contract(name, check):
    if check.__name__ == "check_overfits" and name != "small":
        pytest.skip("takes seconds, and a row without history tells history_only nothing")
    check(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_save_and_load(name, tmp_path):
    check_save_load(CASES[name], tmp_path / "model.pt")


@pytest.mark.parametrize("precision", [None, "BF16"])
def test_trains_without_any_history(precision):
    """The history adds nothing, and no gradient is broken."""
    model = make_model(CASES["transact"].config + BCE)
    rows = make_rows(9)
    rows["click__item"] = rows["click__price"] = [[]] * 9
    batch = make_batch(model.features, rows)
    wrapper = TrainWrapper(model, mixed_precision=precision)
    wrapper(batch)[0].backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert found
    assert all(torch.isfinite(gradient).all() for gradient in found.values())


def test_dropout_is_of_training_only():
    def losses(ratio):
        model = make_model(_config(f"dropout_ratio: {ratio}") + BCE)
        batch = make_batch(model.features, make_rows(64))
        return model, batch, train(model, batch, steps=1)

    model, batch, first = losses(0.5)
    assert first != losses(0)[2]
    model.eval()
    assert torch.equal(model(batch)["logits"], model(batch)["logits"])


def test_feedforward_dim():
    state = make_model(_config("feedforward_dim: 5") + BCE).state_dict()
    assert state["transact_towers.seq.layers.0.linear1.weight"].shape == (5, 18)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_config("num_heads: 4"), r"num_heads is 4, it must divide .* 9 \+ 9 = 18"),
        (_config("num_layers: 0"), "num_layers is 0"),
        (_config(more='transact_towers { input: "seq" }'), "two towers read .*'seq'"),
        (_config(groups=group("seq", "click__item", "SEQUENCE")), "needs a query"),
    ],
)
def test_what_does_not_fit(text, message):
    with pytest.raises(ConfigError, match=message):
        make_model(text + BCE)
