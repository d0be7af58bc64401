"""TDM: contract of the house, its formula, and the part that is exported for clustering."""

import numpy as np
import pytest
import torch
from models_contract import (
    BCE,
    CHECKS,
    Case,
    check_save_load,
    embed,
    group,
    linear,
    make_batch,
    make_model,
    make_rows,
    mlp,
    parse,
    script,
    squeeze,
    train,
)

from tzrec.errors import ConfigError

SEQ = group("seq", "item price click__item click__price", "SEQUENCE")
USER = group("u", "user tags")
OTHER = group("v", "price user")
WINDOWS = [1, 2, 4]
TDM = f"""tdm {{
  multiwindow_din {{ windows_len: {WINDOWS} attn_mlp {{ hidden_units: 8 activation: "nn.PReLU" }} }}
  final {{ hidden_units: [16, 8] }}
}}"""


def _prelu(state, name, x):
    return np.where(x > 0, x, state[name] * x)


def _windows(state, rows):
    """Mean of the scored steps of each window, then the query."""
    table = state["seq:item_emb"]
    result = np.zeros((len(rows["user"]), 9 * (len(WINDOWS) + 1)))
    for i, (items, prices) in enumerate(
        zip(rows["click__item"], rows["click__price"], strict=True)
    ):
        query = np.append(table[rows["item"][i]], rows["price"][i])
        parts, start = [], 0
        steps = np.concatenate([table[items], np.array(prices)[:, None]], 1) if items else None
        for length in WINDOWS:
            window = steps[start : start + length] if items else np.zeros((0, 9))
            start += length
            if not len(window):
                parts.append(np.zeros(9))
                continue
            q = np.tile(query, (len(window), 1))
            x = np.concatenate([window, q * window, q], 1)
            x = linear(state, "multiwindow_din.mlp.mlp.0.perceptron.0", x)
            x = _prelu(state, "multiwindow_din.mlp.mlp.0.perceptron.1.weight", x)
            score = linear(state, "multiwindow_din.linear", x)
            score = _prelu(state, "multiwindow_din.active.weight", score)
            parts.append((score * window).mean(0))
        result[i] = np.concatenate([*parts, query])
    return result


def _tdm(state, rows):
    user = embed(state["user_emb"], rows["user"])
    tags = embed(state["tags_emb"], rows["tags"], mean=True)
    price = np.array(rows["price"])[:, None]
    x = np.concatenate([_windows(state, rows), user, tags, price, user], 1)
    return squeeze(linear(state, "output_mlp", mlp(state, "final_mlp", x)))


CASE = Case(USER + SEQ + OTHER + TDM, _tdm)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check):
    check(CASE)


def test_save_and_load(tmp_path):
    check_save_load(CASE, tmp_path / "model.pt")


def test_every_knob_changes_the_parameters():
    def shapes(text):
        return [tuple(p.shape) for p in make_model(text + BCE).parameters()]

    text = CASE.config
    for old, new in (
        ("windows_len: [1, 2, 4]", "windows_len: [3, 4]"),
        ("hidden_units: 8", "hidden_units: 4"),
        ("hidden_units: [16, 8]", "hidden_units: 8"),
    ):
        assert old in text
        assert shapes(text.replace(old, new)) != shapes(text)


def test_which_steps_a_window_holds_matters():
    rows = make_rows(20)
    scores = []
    for windows in ("[1, 2, 4]", "[4, 2, 1]"):
        model = make_model(CASE.config.replace("[1, 2, 4]", windows) + BCE).eval()
        scores.append(model.predict(make_batch(model.features, rows))["logits"])
    assert not torch.allclose(*scores)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (USER, "one SEQUENCE group, there are 0"),
        (SEQ + group("seq2", "item click__item", "SEQUENCE"), "there are 2: seq, seq2"),
        (group("seq", "click__item", "SEQUENCE"), "no feature group 'seq.query'"),
    ],
)
def test_groups_that_do_not_fit(groups, words):
    with pytest.raises(ConfigError, match=words):
        make_model(groups + TDM + BCE)


def test_parts_of_the_export():
    model = make_model(CASE.config + BCE)
    train(model, make_batch(model.features, make_rows(64)), steps=3)
    parts = model.export_parts()
    assert list(parts) == ["model", "embedding"]
    assert parts["model"] is model
    part = parts["embedding"]
    assert [feature.name for feature in part.features] == ["item", "price"]
    rows = make_rows(20, seed=5)
    expected = np.concatenate(
        [model.state_dict()[_TABLE][rows["item"]].numpy(), np.array(rows["price"])[:, None]], 1
    )
    found = part.eval().predict(make_batch(part.features, rows, [], ()))
    assert list(found) == ["item_emb"]
    np.testing.assert_array_equal(found["item_emb"].detach(), expected)
    scripted = script(part)(parse(part.features, rows))
    np.testing.assert_array_equal(scripted["item_emb"].detach(), expected)


_TABLE = "embedding_group.seq_emb_impls.__BASE__.ec_dict.8.embeddings.item_emb.weight"


def test_the_exported_vector_is_the_query_that_the_model_reads():
    """Also of a feature with several values."""
    groups = group("seq", "tags price click__item click__price", "SEQUENCE")
    model = make_model(groups + TDM + BCE)
    batch = make_batch(model.features, make_rows(30))
    query = model.embedding_group(batch)["seq.query"]
    vectors = model.export_parts()["embedding"].predict(batch)["item_emb"]
    torch.testing.assert_close(vectors, query, rtol=0, atol=1e-6)


def test_a_query_wider_than_the_steps():
    groups = group("seq", "tags item click__item", "SEQUENCE")
    with pytest.raises(ConfigError, match="larger than sequence dim"):
        make_model(groups + TDM + BCE)
