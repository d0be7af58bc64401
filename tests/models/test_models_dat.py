"""DAT: contract of the house, augmented vectors and their losses."""

import numpy as np
import pytest
import torch
from match_contract import (
    MATCH_CHECKS,
    SOFTMAX,
    MatchCase,
    in_batch,
    make_match_model,
    normalize,
    own,
    sampled_batch,
    sampled_rows,
    state_of,
)
from models_contract import group, ids, linear, make_batch, make_rows, mlp, price

from tzrec.errors import ConfigError
from tzrec.models.model import TrainWrapper

GROUPS = (
    group("u", "user click__item")
    + group("i", "item tags price")
    + group("au", "user", more='embedding_name_suffix: "augment"')
    + group("ai", "item", more='embedding_name_suffix: "augment"')
)
MLP = "mlp { hidden_units: [32, 16] }"
WEIGHTS = "amm_u_weight: 0.25 amm_i_weight: 0.5"


def _vectors(state, tower, parts, augment, *, cosine):
    x = np.concatenate([*parts, augment], 1)
    y = linear(state, f"{tower}.output", mlp(state, f"{tower}.mlp", x))
    return normalize(y) if cosine else y


def _case(*, cosine=False, temperature=1.0):
    def vectors(state, rows, positives=None):
        state = own(state, "user_tower")
        history = np.array([state["item_emb"][h].sum(0) for h in rows["click__item"]])
        augment = ids(state, rows, "user", "_emb_augment")[0]
        parts = [*ids(state, rows, "user"), history]
        return _vectors(state, "user_tower", parts, augment, cosine=cosine)

    def items(state, rows):
        state = own(state, "item_tower")
        augment = ids(state, rows, "item", "_emb_augment")[0]
        parts = [*ids(state, rows, "item tags"), price(rows)]
        return _vectors(state, "item_tower", parts, augment, cosine=cosine)

    text = (
        f'{GROUPS}dat {{ user_tower {{ input: "u" augment_input: "au" {MLP} }} '
        f'item_tower {{ input: "i" augment_input: "ai" {MLP} }} output_dim: 8 {WEIGHTS} '
        f"similarity: {'COSINE' if cosine else 'INNER_PRODUCT'} temperature: {temperature} %s }} "
    )
    users = lambda *args: vectors(*args) / temperature  # noqa: E731
    return MatchCase(text, users, items, user_parts=vectors)


CASES = {"dat": _case(), "dat_cosine": _case(cosine=True, temperature=0.2)}


@pytest.mark.parametrize("check", MATCH_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_contract(name, check):
    check(CASES[name])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("sampled", [False, True])
def test_augment_losses(sampled, weighted):
    """Of positive pairs only; a sum over rows, or with weights their mean."""
    case, weights = CASES["dat_cosine"], ["weight"] if weighted else None
    if sampled:
        model = make_match_model(case.text(), sampler="HardNegativeSampler", weights=weights)
        rows = sampled_rows(9, 5)
        batch = sampled_batch(model, rows)
    else:
        model = make_match_model(in_batch(case), weights=weights)
        rows = make_rows(9)
        batch = make_batch(model.features, rows)
    _, (losses, predictions, _) = TrainWrapper(model)(batch)
    assert list(predictions) == [
        "similarity", "user_augment", "item_augment", "user_tower_emb", "item_tower_emb",
    ]  # fmt: skip
    assert list(losses) == ["softmax_cross_entropy", "amm_loss_u", "amm_loss_i"]
    state = state_of(model)
    users = case.user_parts(state, rows | {"item": rows["item"][:9]})
    items = case.items(state, rows)[:9]
    pairs = {"u": ("user_tower", "user", items, 0.25), "i": ("item_tower", "item", users, 0.5)}
    weight = np.array(rows["weight"], np.float64)
    for side, (tower, name, other, factor) in pairs.items():
        augment = ids(own(state, tower), rows, name, "_emb_augment")[0][:9]
        distance = ((normalize(augment) - other) ** 2).sum(1)
        expected = (distance * weight).mean() / weight.mean() if weighted else distance.sum()
        assert float(losses[f"amm_loss_{side}"]) == pytest.approx(factor * expected, rel=1e-4)


def test_augment_losses_move_the_augmented_vectors_only():
    model = make_match_model(in_batch(CASES["dat"]))
    batch = make_batch(model.features, make_rows(32))
    model.init_loss()
    losses = model.loss(model.predict(batch), batch)
    (losses["amm_loss_u"] + losses["amm_loss_i"]).backward()
    moved = {
        name.split(".")[-2]
        for name, p in model.named_parameters()
        if p.grad is not None and (p.grad != 0).any()
    }
    assert moved == {"user_emb_augment", "item_emb_augment"}


def test_evaluation_has_no_augment_losses():
    model = make_match_model(in_batch(CASES["dat"])).eval()
    batch = make_batch(model.features, make_rows(32))
    _, (losses, predictions, _) = TrainWrapper(model)(batch)
    assert list(losses) == ["softmax_cross_entropy"]
    assert list(predictions) == ["similarity"]


def test_an_augment_group_is_as_wide_as_the_other_vectors():
    text = CASES["dat"].config.replace("output_dim: 8", "output_dim: 4")
    with pytest.raises(ConfigError, match=r"'au' is 8 wide, .* of size 4"):
        make_match_model(text % "in_batch_negative: true" + SOFTMAX)


def test_variational_dropout_of_all_groups():
    model = make_match_model(in_batch(CASES["dat"], objectives=SOFTMAX + "variational_dropout {}"))
    batch = make_batch(model.features, make_rows(32))
    _, (losses, _, _) = TrainWrapper(model)(batch)
    assert [name for name in losses if "feature_p" in name] == [
        "u_feature_p_loss",
        "i_feature_p_loss",
    ]
    assert all(torch.isfinite(value) for value in losses.values())
