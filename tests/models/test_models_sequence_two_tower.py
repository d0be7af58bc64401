"""SequenceTwoTower: contract of the house, all positions, shared tables."""

import numpy as np
import pytest
import torch
from causal_oracle import transform
from match_contract import (
    HARD,
    MATCH_CHECKS,
    SOFTMAX,
    MatchCase,
    in_batch,
    item_part,
    make_match_model,
    normalize,
    sampled_batch,
    sampled_rows,
    state_of,
)
from models_contract import group, linear, make_batch, make_rows, mlp, price
from scipy.special import logsumexp

from tzrec.errors import ConfigError
from tzrec.models.match_model import corrected
from tzrec.models.model import TrainWrapper

ITEM, HISTORY = group("i", "item price"), group("h", "click__item click__price", "SEQUENCE")
B, N = 9, 5
HARDS = "HardNegativeSampler"


def _case(*, heads=1, steps=4, user=True, layers=True, cosine=False, latest_first=False, more=""):
    def history(state, rows, r):
        items, prices = rows["click__item"][r], rows["click__price"][r]
        x = np.zeros((0, 9))
        if items:
            x = np.concatenate([state["seq:item_emb"][items], np.array(prices)[:, None]], 1)
        return x[::-1] if latest_first else x

    def finish(state, tower, x):
        if layers:
            x = linear(state, f"{tower}.output", mlp(state, f"{tower}.mlp", x))
        return normalize(x) if cosine else x

    def states(state, rows):
        """One (T, D) per row: the vectors after each step."""
        result = []
        for r in range(len(rows["user"])):
            x = transform(
                state, history(state, rows, r), heads=heads, prefix="user_tower.transformer."
            )
            if user:
                own = state["user_emb"][rows["user"][r]]
                x = np.concatenate([x, np.tile(own, (len(x), 1))], 1)
            result.append(finish(state, "user_tower", x))
        return result

    def users(state, rows, positives=None):
        return np.array([row[-1] for row in states(state, rows)])

    def items(state, rows):
        x = np.concatenate([state["seq:item_emb"][rows["item"]], price(rows)], 1)
        return finish(state, "item_tower", x)

    tower = "mlp { hidden_units: [32, 16] }" if layers else ""
    text = (
        f"{group('u', 'user') if user else ''}{ITEM}{HISTORY}sequence_two_tower {{ "
        f'user_tower {{ {"input: " + repr("u") if user else ""} history_input: "h" '
        f"max_seq_len: {steps} num_heads: {heads} dropout: 0 "
        f"latest_first: {str(latest_first).lower()} {tower} }} "
        f'item_tower {{ input: "i" {tower} }} {"output_dim: 4" if layers else ""} '
        f"{'similarity: COSINE' if cosine else ''} {more} %s }} "
    )
    case = MatchCase(text, users, items, shared_tables=True)
    case.states, case.history = states, history
    case.of_steps = lambda state, x: finish(state, "item_tower", x)
    return case


CASES = {
    "full": _case(heads=3),
    "sasrec": _case(user=False, layers=False, steps=20),
    "latest_first": _case(latest_first=True, cosine=True),
}
ALL = _case(more="all_positions: true")
PLAIN = _case(user=False, layers=False, more="all_positions: true")


@pytest.mark.parametrize("check", MATCH_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_contract(name, check):
    if check.__name__ == "check_overfits" and name != "full":
        pytest.skip("users known by their history only, or a temperature of 1 for cosines")
    check(CASES[name])


@pytest.mark.parametrize("check", MATCH_CHECKS, ids=lambda check: check.__name__)
def test_contract_of_all_positions(check):
    if check.__name__ == "check_overfits":
        pytest.skip("most of what it learns are steps that are random")
    check(ALL)


# --- all positions -----------------------------------------------------------------------------


def queries(case, state, rows, num_rows):
    """(vector, positive, row, is_latest, id) of every step that is learnt."""
    found = []
    items = case.items(state, rows)
    for r, vectors in enumerate(case.states(state, item_part(rows, slice(num_rows)))):
        steps = case.history(state, rows, r)[-len(vectors) :]
        ids = list(rows["click__item"][r])[-len(vectors) :]
        for t, vector in enumerate(vectors):
            last = t == len(vectors) - 1
            positive = items[r] if last else case.of_steps(state, steps[t + 1 : t + 2])[0]
            found.append((vector, positive, r, last, rows["item"][r] if last else ids[t + 1]))
    return found, items


def learnt(case, negatives="", *, sampler="", weights=None, infos=None):
    text = f"negatives {{ {negatives} }}"
    text = case.text(text) if sampler else in_batch(case, text)
    model = make_match_model(text, sampler=sampler, shared=bool(sampler), weights=weights)
    rows = sampled_rows(B, N, hard=sampler == HARDS) if sampler else make_rows(B)
    # An item that a row learns on the way is another row's own.
    r = next(r for r in range(B) if len(rows["click__item"][r]) > 1)
    rows["item"][(r + 1) % B] = rows["click__item"][r][-1]
    if sampler:
        batch = sampled_batch(model, rows, hard=sampler == HARDS, shared=True)
    else:
        batch = make_batch(model.features, rows)
    batch.additional_infos.update(infos or {})
    _, (losses, predictions, _) = TrainWrapper(model)(batch)
    return model, rows, losses, predictions


@pytest.mark.parametrize("case", [ALL, PLAIN], ids=["full", "sasrec"])
@pytest.mark.parametrize("sampler", ["NegativeSampler", HARDS])
def test_every_step_learns_the_next_item(case, sampler):
    _, rows, losses, predictions = (result := learnt(case, sampler=sampler))
    state = state_of(result[0])
    found, items = queries(case, state, rows, B)
    assert len(found) > B
    table = []
    for vector, positive, r, last, _ in found:
        row = [vector @ positive, *(vector @ item for item in items[B : B + N])]
        if sampler == HARDS:
            own = {
                c: vector @ items[B + N + h] for h, (at, c) in enumerate(HARD) if at == r and last
            }
            row += [own.get(c, -1e32) for c in range(2)]
        table.append(row)
    expected = np.array(table)
    np.testing.assert_allclose(predictions["similarity"], expected, rtol=1e-3, atol=1e-4)
    assert predictions["query_rows"].tolist() == [r for _, _, r, _, _ in found]
    loss = (logsumexp(expected, axis=1) - expected[:, 0]).mean()
    assert float(losses["softmax_cross_entropy"]) == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sampler", ["", "NegativeSampler"])
def test_negatives_in_the_batch_are_the_items_of_other_rows(sampler, masked):
    text = "in_batch_and_sampled: true " if sampler else ""
    text += "mask_accidental_hits: true item_id_feature: 'item'" if masked else ""
    model, rows, _, predictions = learnt(ALL, text, sampler=sampler)
    found, items = queries(ALL, state_of(model), rows, B)
    table = []
    for vector, positive, r, _, own in found:
        row = [vector @ positive]
        for c in range(B + (N if sampler else 0)):
            gone = c == r or (masked and rows["item"][c] == own)
            row.append(-1e32 if gone else vector @ items[c])
        table.append(row)
    expected = np.array(table)
    np.testing.assert_allclose(predictions["similarity"], expected, rtol=1e-3, atol=1e-4)
    assert (expected[:, 1:] < -1e31).sum() > len(found) or not masked


def test_correction_in_the_batch():
    text = "logq_correction: true item_id_feature: 'item'"
    _, rows, losses, predictions = learnt(ALL, text)
    counts = np.bincount(rows["item"], minlength=30)
    count = np.where(counts > 0, counts, 1.0)  # an item never seen is the next to come
    scores = predictions["similarity"].double().numpy().copy()
    scores[:, 0] -= np.log(count[predictions["query_ids"].numpy()])
    scores[:, 1:] -= np.log(count[rows["item"]])
    loss = (logsumexp(scores, axis=1) - scores[:, 0]).mean()
    assert float(losses["softmax_cross_entropy"]) == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("mixed", [False, True])
def test_correction_of_drawn_items(mixed):
    """Negatives by how often they are expected in the pool, the positive as it is."""
    rng = np.random.default_rng(0)
    of_rows, drawn = (rng.normal(-4, 1, size) for size in (B, N))
    infos = {"pos_log_q": of_rows, "neg_log_q": drawn}
    text = "logq_correction: true mask_accidental_hits: true item_id_feature: 'item' "
    _, rows, losses, predictions = learnt(
        ALL,
        text + ("in_batch_and_sampled: true" if mixed else ""),
        sampler="NegativeSampler",
        infos={name: torch.from_numpy(value).float() for name, value in infos.items()},
    )
    expected = N * np.exp(drawn)
    if mixed:
        counts = np.bincount(rows["item"][:B], minlength=30).astype(float)
        in_batch_counts = np.where(counts > 0, counts, 1.0)[rows["item"][: B + N]]
        expected = in_batch_counts + N * np.exp(np.concatenate([of_rows, drawn]))
    scores = predictions["similarity"].double().detach().numpy().copy()
    scores[:, 1:] -= np.log(expected)
    loss = (logsumexp(scores, axis=1) - scores[:, 0]).mean()
    assert float(losses["softmax_cross_entropy"]) == pytest.approx(loss, rel=1e-4)


def test_correction_adds_up_to_all_items():
    """Over many draws: the positive, and negatives by 1 / (N q) without it, are all items."""
    rng = np.random.default_rng(1)
    scores, q = rng.normal(0, 1, 30), rng.dirichlet(np.ones(30))
    own = int(q.argmax())
    drawn = rng.choice(30, (4000, N), p=q)
    table = np.where(drawn == own, -1e32, scores[drawn])
    found = [
        corrected(
            torch.from_numpy(np.concatenate([[scores[own]], row])[None]),
            torch.zeros(1, dtype=torch.float64),
            torch.from_numpy(np.log(N * q[items])),
            in_batch=False,
        )
        for row, items in zip(table, drawn, strict=True)
    ]
    total = float(torch.cat(found).exp().sum(1).mean())
    assert total == pytest.approx(np.exp(scores).sum(), rel=0.05)


def test_rows_weigh_all_their_steps():
    _, rows, losses, predictions = learnt(ALL, sampler="NegativeSampler", weights=["weight"])
    scores = predictions["similarity"].double().numpy()
    weight = np.array(rows["weight"], np.float64)[predictions["query_rows"].numpy()]
    loss = logsumexp(scores, axis=1) - scores[:, 0]
    expected = (loss * weight).mean() / weight.mean()
    assert float(losses["softmax_cross_entropy"]) == pytest.approx(expected, rel=1e-4)


def test_evaluation_is_of_the_latest_step():
    model = make_match_model(in_batch(ALL)).eval()
    batch = make_batch(model.features, make_rows(B))
    _, (_, predictions, _) = TrainWrapper(model)(batch)
    assert list(predictions) == ["similarity"]
    assert predictions["similarity"].shape == (B, B)


def test_all_positions_learn_from_histories_alone():
    """After item k comes item k + 1 in every history; the rows' own items are random."""

    def rows_of(starts, items):
        num = len(starts)
        rows = make_rows(num) | {"item": list(items), "price": [0.0] * num}
        histories = [[(s + t) % 30 for t in range(4)] for s in starts]
        return rows | {"click__item": histories, "click__price": [[0.0] * 4] * num}

    recall = {}
    for case in (PLAIN, _case(user=False, layers=False)):
        text = in_batch(case, "", SOFTMAX + "metrics { recall_at_k { top_k: 3 } }")
        model, rng = make_match_model(text), np.random.default_rng(0)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        wrapper = TrainWrapper(model)
        for _ in range(25):
            optimizer.zero_grad()
            rows = rows_of(rng.integers(0, 30, 64), rng.integers(0, 30, 64))
            wrapper(make_batch(model.features, rows))[0].backward()
            optimizer.step()
        model.eval()
        batch = make_batch(model.features, rows_of(range(30), [(s + 4) % 30 for s in range(30)]))
        model.update_metric(model.predict(batch), batch)
        recall[case is PLAIN] = float(model.compute_metric()["recall@3"])
    assert recall[True] > 0.7
    assert recall[False] < 0.3


# --- tables and parts --------------------------------------------------------------------------


def test_items_and_steps_have_one_table():
    model = make_match_model(in_batch(CASES["full"]))
    tables = [name for name in model.state_dict() if "item_emb" in name]
    assert tables == ["embedding_group.seq_emb_impls.__BASE__.ec_dict.8.embeddings.item_emb.weight"]
    part = model.export_parts()["item"]
    (own,) = [value for name, value in part.state_dict().items() if "item_emb" in name]
    assert own.data_ptr() == model.state_dict()[tables[0]].data_ptr()


def test_dropout_and_width():
    text = in_batch(CASES["sasrec"]).replace("dropout: 0", "dropout: 0.5 ffn_dim: 7 num_layers: 3")
    model = make_match_model(text)
    batch = make_batch(model.features, make_rows(B))
    a, b = (model.predict(batch)["similarity"] for _ in range(2))
    assert not torch.equal(a, b)
    assert len(model.user_tower.transformer.layers) == 3
    assert model.user_tower.transformer.layers[0].linear1.out_features == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (in_batch(_case(heads=2)), "num_heads is 2, it must divide"),
        (
            in_batch(_case(user=False, layers=False)).replace('"item", "price"', '"item"'),
            "size 9, the item tower of size 8",
        ),
        (in_batch(ALL).replace('"item", "price"', '"item"'), "a step of the history is 9 wide"),
    ],
)
def test_what_does_not_fit(text, message):
    with pytest.raises(ConfigError, match=message):
        make_match_model(text)
