"""DSSM and DSSMV2: contract of the house, sizes, shared tables."""

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
)
from models_contract import embed, group, ids, linear, make_batch, make_rows, mlp, price

from tzrec.errors import ConfigError

USER, ITEM = group("u", "user click__item"), group("i", "item tags price")
MLP = "mlp { hidden_units: [32, 16] }"


def _tower(state, name, x, *, hidden=True, output=True, cosine=False):
    x = mlp(state, f"{name}.mlp", x) if hidden else x
    x = linear(state, f"{name}.output", x) if output else x
    return normalize(x) if cosine else x


def _case(model, *, temperature=1.0, scale=1.0, shared=False, **tower):
    fields = {"hidden": True, "output": True, "cosine": False} | tower
    layers = MLP if fields["hidden"] else ""

    def users(state, rows, positives=None):
        state = state if shared else own(state, "user_tower")
        history = embed(state["item_emb"], rows["click__item"])
        x = np.concatenate([*ids(state, rows, "user"), history], 1)
        return _tower(state, "user_tower", x, **fields) / temperature

    def items(state, rows):
        state = state if shared else own(state, "item_tower")
        x = np.concatenate([*ids(state, rows, "item tags"), price(rows)], 1)
        return _tower(state, "item_tower", x, **fields)

    text = (
        f'{USER}{ITEM}{model} {{ user_tower {{ input: "u" {layers} }} '
        f'item_tower {{ input: "i" {layers} }} output_dim: {4 if fields["output"] else 0} '
        f"similarity: {'COSINE' if fields['cosine'] else 'INNER_PRODUCT'} "
        f"temperature: {temperature} %s }} "
    )
    parts = lambda state, rows: users(state, rows) * temperature  # noqa: E731
    return MatchCase(text, users, items, shared_tables=shared, user_parts=parts)


CASES = {
    "dssm": _case("dssm"),
    "dssm_cosine": _case("dssm", cosine=True, temperature=0.25),
    "dssm_no_output": _case("dssm", output=False),
    "dssm_v2": _case("dssm_v2", shared=True),
    "dssm_v2_linear": _case("dssm_v2", shared=True, hidden=False),
}


@pytest.mark.parametrize("check", MATCH_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_contract(name, check):
    check(CASES[name])


def _tables(model):
    return {
        name.split(".")[-2]: value
        for name, value in model.state_dict().items()
        if "embedding_bags" in name
    }


def test_towers_share_tables_in_v2_only():
    for name, number in (("dssm", 4), ("dssm_v2", 3)):
        model = make_match_model(in_batch(CASES[name]))
        tables = [key for key in model.state_dict() if "embedding_bags" in key]
        assert len(tables) == number
        items = [key for key in tables if "item_emb" in key]
        assert len(items) == (2 if name == "dssm" else 1)


def test_exported_parts_hold_the_tables_themselves():
    model = make_match_model(in_batch(CASES["dssm_v2"]))
    table = _tables(model)["item_emb"]
    for part in model.export_parts().values():
        assert _tables(part)["item_emb"].data_ptr() == table.data_ptr()


def test_vectors_need_one_size():
    text = CASES["dssm_no_output"].config.replace("[32, 16]", "[32, 4]", 1)
    with pytest.raises(ConfigError, match="size 4, the item tower of size 16"):
        make_match_model(text % "in_batch_negative: true" + SOFTMAX)


@pytest.mark.parametrize("name", ["dssm", "dssm_v2"])
def test_variational_dropout(name):
    more = SOFTMAX + "variational_dropout { regularization_lambda: 0.5 }"
    model = make_match_model(in_batch(CASES[name], objectives=more))
    batch = make_batch(model.features, make_rows(64))
    model.init_loss()
    losses = model.loss(model.predict(batch), batch)
    assert list(losses) == ["softmax_cross_entropy", "u_feature_p_loss", "i_feature_p_loss"]
    for tower, key, entries in (("user", "u", 2), ("item", "i", 3)):
        logits = getattr(model, f"{tower}_tower").group_variational_dropouts[key].feature_p
        assert logits.shape == (entries,)
        keep = 1 - torch.sigmoid(logits)
        torch.testing.assert_close(losses[f"{key}_feature_p_loss"], 0.5 * keep.sum() / 64)
    parts = model.eval().export_parts()
    expected = model.predict(batch)["similarity"]
    users, items = (parts[side](batch)[f"{side}_tower_emb"] for side in ("user", "item"))
    torch.testing.assert_close(users @ items.T, expected)


def test_rows_that_users_lack_are_in_no_statistics_and_penalty():
    layers = "mlp { hidden_units: 8 use_bn: true }"
    text = (
        f'{USER}{ITEM}dssm_v2 {{ user_tower {{ input: "u" {layers} }} '
        f'item_tower {{ input: "i" {layers} }} output_dim: 4 }} '
        f"variational_dropout {{ regularization_lambda: 0.5 }} {SOFTMAX}"
    )
    model = make_match_model(text, sampler="NegativeSampler", shared=True).train()
    rows = sampled_rows(9, 5, hard=False)
    batch = sampled_batch(model, rows, hard=False, shared=True)
    kept = []
    (tower,) = model.user_tower.group_variational_dropouts.values()
    tower.register_forward_hook(lambda _, given, out: kept.append((given[0], out)))
    model.predict(batch)
    ((entered, (left, penalty)),) = kept
    assert len(entered) == 9
    alive = 1 - torch.sigmoid(tower.feature_p)
    torch.testing.assert_close(penalty, 0.5 / 9 * alive.sum())
    state = model.state_dict()
    (weight,) = (v for k, v in state.items() if k.startswith("user_tower.mlp") and v.dim() == 2)
    (mean,) = (v for k, v in state.items() if k.startswith("user_tower") and "running_mean" in k)
    torch.testing.assert_close(mean, 0.1 * (left @ weight.t()).mean(0))
