"""`MatchModel`: negatives, corrections, weights, metrics, and what does not fit."""

import numpy as np
import pytest
import torch
from match_contract import (
    HARD,
    SOFTMAX,
    in_batch,
    make_match_model,
    sampled_batch,
    sampled_rows,
    sampled_scores,
    state_of,
)
from models_contract import make_batch, make_rows, train
from scipy.special import logsumexp, softmax
from test_models_dssm import CASES

from tzrec.errors import ConfigError, DataError
from tzrec.models.match_model import _sim_with_sampler
from tzrec.models.model import TrainWrapper

DSSM, V2 = CASES["dssm"], CASES["dssm_v2"]
B, N = 9, 5
HARDS = "HardNegativeSampler"


def make(negatives="", *, sampler="", case=DSSM, weights=None, more="", objectives=SOFTMAX):
    text = f"{more} negatives {{ {negatives} }}"
    text = case.text(text, objectives) if sampler else in_batch(case, text, objectives)
    shared = case.shared_tables and bool(sampler)
    model = make_match_model(text, sampler=sampler, shared=shared, weights=weights)
    model.init_loss()
    model.init_metric()
    return model


def plain_scores(model, rows, *, mixed=False, hard=True):
    """Scores without any correction, from the oracle of the towers."""
    state = state_of(model)
    items = DSSM.items(state, rows)
    own = {name: rows[name][:B] for name in ("item", "tags", "price")}
    users = DSSM.users(state, rows | own)
    return sampled_scores(users, items, B, mixed=mixed, hard=hard)


def cross_entropy(scores, target, weight=None):
    rows = logsumexp(scores, axis=1) - scores[np.arange(len(scores)), target]
    return rows.mean() if weight is None else (rows * weight).mean() / weight.mean()


# --- which negatives ---------------------------------------------------------------------------


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("hard", [False, True])
def test_loss_and_scores_of_sampled_negatives(mixed, hard):
    model = make(f"in_batch_and_sampled: {str(mixed).lower()}", sampler=HARDS)
    rows = sampled_rows(B, N, hard=hard)
    batch = sampled_batch(model, rows, hard=hard)
    predictions = model.predict(batch)
    expected = plain_scores(model, rows, mixed=mixed, hard=hard)
    assert expected.shape == (B, (B if mixed else 1) + N + 2 * hard)
    np.testing.assert_allclose(predictions["similarity"].detach(), expected, rtol=1e-4, atol=1e-5)
    target = np.arange(B) if mixed else np.zeros(B, np.int64)
    loss = model.loss(predictions, batch)["softmax_cross_entropy"]
    assert float(loss) == pytest.approx(cross_entropy(expected, target), rel=1e-4)


@pytest.mark.parametrize("hard", [False, True])
def test_scores_by_the_name_of_the_interface(hard):
    rng = np.random.default_rng(0)
    num = B + N + len(HARD) * hard
    users, items = (rng.normal(size=(n, 6)).astype(np.float32) for n in (B, num))
    found = _sim_with_sampler(
        torch.from_numpy(users), torch.from_numpy(items), torch.tensor(HARD) if hard else None
    )
    expected = sampled_scores(users, items, B, hard=hard)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_loss_of_negatives_in_the_batch():
    model = make()
    batch = make_batch(model.features, make_rows(B))
    predictions = model.predict(batch)
    scores = predictions["similarity"].detach().double().numpy()
    found = float(model.loss(predictions, batch)["softmax_cross_entropy"])
    assert found == pytest.approx(cross_entropy(scores, np.arange(B)), rel=1e-5)


@pytest.mark.parametrize("sampler", ["", "NegativeSampler"])
def test_sample_weights_and_loss_weight(sampler):
    objectives = "losses { softmax_cross_entropy {} weight: 3 }"
    model = make(sampler=sampler, weights=["weight"], objectives=objectives)
    rows = sampled_rows(B, N, hard=False) if sampler else make_rows(B)
    batch = sampled_batch(model, rows, hard=False) if sampler else make_batch(model.features, rows)
    predictions = model.predict(batch)
    scores = predictions["similarity"].detach().double().numpy()
    target = np.zeros(B, np.int64) if sampler else np.arange(B)
    expected = 3 * cross_entropy(scores, target, np.array(rows["weight"], np.float64))
    found = float(model.loss(predictions, batch)["softmax_cross_entropy"])
    assert found == pytest.approx(expected, rel=1e-5)


def test_labels_are_not_read():
    model = make().eval()
    rows = make_rows(B)
    losses = []
    for labels in (rows["clk"], [7] * B):
        batch = make_batch(model.features, rows | {"clk": labels})
        losses.append(float(model.loss(model.predict(batch), batch)["softmax_cross_entropy"]))
    assert losses[0] == losses[1]


def test_label_smoothing_changes_nothing():
    found = []
    for text in ("", "label_smoothing: 0.3"):
        model = make(objectives=f"losses {{ softmax_cross_entropy {{ {text} }} }}")
        batch = make_batch(model.features, make_rows(B))
        found.append(float(model.loss(model.predict(batch), batch)["softmax_cross_entropy"]))
    assert found[0] == found[1]


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_euclidean_distance(temperature):
    text = DSSM.config.replace("INNER_PRODUCT", "EUCLID")
    text = text.replace("temperature: 1.0", f"temperature: {temperature}")
    model = make_match_model(text % "in_batch_negative: true" + SOFTMAX).eval()
    rows = make_rows(B)
    state = state_of(model)
    users, items = DSSM.users(state, rows), DSSM.items(state, rows)
    expected = -((users[:, None] - items[None]) ** 2).sum(2) / temperature
    found = model.predict(make_batch(model.features, rows))["similarity"].detach()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_sampled_mode_in_evaluation_and_without_hard_negatives():
    """A batch without hard negatives has no hard_neg_indices."""
    model = make(sampler=HARDS).eval()
    batch = sampled_batch(model, sampled_rows(B, N, hard=False), hard=False)
    assert model.predict(batch)["similarity"].shape == (B, 1 + N)


# --- accidental hits ---------------------------------------------------------------------------

MASK = "mask_accidental_hits: true item_id_feature: 'item'"


@pytest.mark.parametrize("case", [DSSM, V2], ids=["own_rows", "padded_rows"])
@pytest.mark.parametrize("mixed", [False, True])
def test_accidental_hits_are_left_out(mixed, case):
    negatives = f"{MASK} in_batch_and_sampled: {str(mixed).lower()}"
    rows = sampled_rows(B, N)
    rows["item"] = [3, 3, 4, 5, 6, 7, 8, 9, 10, 5, 3, 20, 20, 11, 3, 12, 6]
    shared = case.shared_tables
    found, plain = (
        model.predict(sampled_batch(model, rows, shared=shared))["similarity"]
        for model in (
            make(text, sampler=HARDS, case=case)
            for text in (negatives, negatives.replace("hits: true", "hits: false"))
        )
    )
    first = B if mixed else 1
    gone = {(3, first), (0, first + 1), (1, first + 1), (1, first + N), (4, first + N)}
    if mixed:
        gone |= {(0, 1), (1, 0)}
    assert {tuple(at) for at in (found != plain).nonzero().tolist()} == gone
    assert all(found[at] < -1e31 for at in gone)


def test_rows_without_an_id_are_nobodys():
    model = make(MASK.replace("'item'", "'tags'"))
    rows = make_rows(B) | {"tags": [[]] * B}
    scores = model.predict(make_batch(model.features, rows))["similarity"]
    assert float(scores.min()) > -1e31


# --- corrections -------------------------------------------------------------------------------


def log_q(batch, seed=0):
    rng = np.random.default_rng(seed)
    found = {"pos_log_q": rng.normal(-5, 1, B), "neg_log_q": rng.normal(-5, 1, N)}
    for name, values in found.items():
        batch.additional_infos[name] = torch.from_numpy(values).float()
    return found["pos_log_q"], found["neg_log_q"]


def corrected_loss(scores, positive, shared, mixed):
    """Scores minus the log of the expected count; hard negatives are expected once."""
    scores = scores.copy()
    if mixed:
        scores[:, :B] -= positive
    else:
        scores[:, 0] -= positive
    first = B if mixed else 1
    scores[:, first : first + N] -= shared
    return cross_entropy(scores, np.arange(B) if mixed else np.zeros(B, np.int64))


def test_correction_of_sampled_negatives():
    model = make("logq_correction: true", sampler=HARDS)
    rows = sampled_rows(B, N)
    batch = sampled_batch(model, rows)
    positive, shared = log_q(batch)
    predictions = model.predict(batch)
    np.testing.assert_allclose(
        predictions["similarity"].detach(), plain_scores(model, rows), rtol=1e-4, atol=1e-5
    )
    loss = float(model.loss(predictions, batch)["softmax_cross_entropy"])
    n = np.log(N)
    expected = corrected_loss(plain_scores(model, rows), positive + n, shared + n, False)
    assert loss == pytest.approx(expected, rel=1e-4)
    assert loss != pytest.approx(cross_entropy(plain_scores(model, rows), 0), rel=1e-3)
    predictions["similarity"].retain_grad()
    model.loss(predictions, batch)["softmax_cross_entropy"].backward()
    weights = plain_scores(model, rows)
    weights[:, 0] -= positive + n
    weights[:, 1 : 1 + N] -= shared + n
    gradient = softmax(weights, axis=1)
    gradient[:, 0] -= 1
    np.testing.assert_allclose(predictions["similarity"].grad, gradient / B, rtol=1e-3, atol=1e-6)


def test_an_item_that_the_sampler_never_draws():
    model = make("logq_correction: true", sampler="NegativeSampler")
    batch = sampled_batch(model, sampled_rows(B, N, hard=False), hard=False)
    log_q(batch)
    batch.additional_infos["pos_log_q"][2] = -torch.inf
    assert torch.isfinite(model.loss(model.predict(batch), batch)["softmax_cross_entropy"])


def test_a_positive_rarer_than_all_that_was_drawn_keeps_its_probability():
    model = make("logq_correction: true", sampler="NegativeSampler")
    rows = sampled_rows(B, N, hard=False)
    batch = sampled_batch(model, rows, hard=False)
    positive, shared = log_q(batch)
    positive[:] = np.linspace(-9, -7, B) + shared.min()
    batch.additional_infos["pos_log_q"] = torch.from_numpy(positive).float()
    loss = model.loss(model.predict(batch), batch)["softmax_cross_entropy"].detach()
    scores = plain_scores(model, rows, hard=False)
    expected = corrected_loss(scores, positive + np.log(N), shared + np.log(N), False)
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_a_batch_without_probabilities_is_refused():
    model = make("logq_correction: true", sampler="NegativeSampler")
    batch = sampled_batch(model, sampled_rows(B, N, hard=False), hard=False)
    with pytest.raises(DataError, match="no pos_log_q"):
        model.loss(model.predict(batch), batch)


def test_correction_in_the_batch_follows_the_stream():
    model = make("logq_correction: true item_id_feature: 'item'")
    for seed in range(6):
        rows = make_rows(B, seed)
        batch = make_batch(model.features, rows)
        predictions = model.predict(batch)
        loss = float(model.loss(predictions, batch)["softmax_cross_entropy"])
    counts = np.bincount([i for seed in range(6) for i in make_rows(B, seed)["item"]], minlength=30)
    last = {i: seed + 1 for seed in range(6) for i in make_rows(B, seed)["item"]}
    share = np.array([counts[i] / (B * last[i]) for i in rows["item"]])
    scores = predictions["similarity"].detach().double().numpy() - np.log(B * share)
    assert loss == pytest.approx(cross_entropy(scores, np.arange(B)), rel=1e-4)
    model.eval()
    before = model.item_frequency.num_rows.clone()
    assert float(model.loss(predictions, batch)["softmax_cross_entropy"]) == pytest.approx(loss)
    assert model.item_frequency.num_rows == before


def test_correction_of_both_kinds():
    """An item's expected count is the sum over both sources."""
    model = make(
        "logq_correction: true in_batch_and_sampled: true item_id_feature: 'item'", sampler=HARDS
    )
    rows = sampled_rows(B, N)
    batch = sampled_batch(model, rows)
    positive, shared = log_q(batch)
    predictions = model.predict(batch)
    loss = float(model.loss(predictions, batch)["softmax_cross_entropy"])
    counts = np.bincount(rows["item"][:B], minlength=30).astype(float)
    in_batch_counts = np.where(counts > 0, counts, 1.0)[rows["item"][: B + N]]
    expected = np.log(in_batch_counts + N * np.exp(np.concatenate([positive, shared])))
    scores = plain_scores(model, rows, mixed=True)
    assert loss == pytest.approx(corrected_loss(scores, expected[:B], expected[B:], True), rel=1e-4)


def test_knobs_of_the_estimate():
    text = "logq_correction: true item_id_feature: 'item'"
    shapes, gaps = [], []
    for more in ("", "frequency_entries: 8", "frequency_decay: 0.9"):
        model = make(f"{text} {more}")
        for seed in range(3):
            batch = make_batch(model.features, make_rows(B, seed))
            model.loss(model.predict(batch), batch)
        shapes.append(tuple(model.item_frequency.gap.shape))
        gaps.append(model.item_frequency.gap)
    assert shapes == [(1, 30), (2, 8), (1, 30)]
    assert not torch.equal(gaps[0], gaps[2])


def test_the_estimate_is_saved():
    model = make("logq_correction: true item_id_feature: 'item'")
    names = {name for name in model.state_dict() if name.startswith("item_frequency.")}
    assert {name.split(".")[1] for name in names} == {"num_rows", "last_row", "gap", "num_seen"}
    assert make().item_frequency is None
    assert make("logq_correction: true", sampler="NegativeSampler").item_frequency is None


def test_correction_learns_the_softmax_over_all_items():
    """Of items that are chosen whoever the user is, the score is the log of how often."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, 31)
    share /= share.sum()
    chosen = rng.choice(30, 4096, p=share)
    empty = {"tags": [[]], "click__item": [[]], "click__price": [[]], "price": [0.0]}
    rows = make_rows(4096) | {name: column * 4096 for name, column in empty.items()}
    rows |= {"item": list(chosen), "user": list(rng.integers(0, 40, 4096))}
    slopes = []
    for text in ("", "logq_correction: true item_id_feature: 'item'"):
        model = make(text)
        parts = [{n: c[i : i + 256] for n, c in rows.items()} for i in range(0, 4096, 256)]
        batches = [make_batch(model.features, part) for part in parts]
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        for batch in batches * 4:
            optimizer.zero_grad()
            model.loss(model.predict(batch), batch)["softmax_cross_entropy"].backward()
            optimizer.step()
        every = {name: column[:30] for name, column in rows.items()} | {"item": list(range(30))}
        scores = model.eval().predict(make_batch(model.features, every))["similarity"]
        slopes.append(np.polyfit(np.log(share), scores.detach().mean(0), 1)[0])
    assert abs(slopes[0]) < 0.3
    assert slopes[1] == pytest.approx(1, abs=0.2)


# --- metrics, objectives -----------------------------------------------------------------------


def test_metrics():
    metrics = (
        "metrics { recall_at_k { top_k: 1 } } metrics { recall_at_k {} } metrics { mrr {} } "
        "metrics { hitrate_at_k { top_k: 3 } } metrics { ndcg_at_k {} } "
        "metrics { mrr { top_k: 2 } } "
        "train_metrics { hitrate_at_k { top_k: 3 } decay_step: 1 }"
    )
    for sampler in ("", HARDS):
        model = make(sampler=sampler, objectives=SOFTMAX + metrics).eval()
        rows = sampled_rows(B, N) if sampler else make_rows(B)
        make_it = sampled_batch if sampler else (lambda m, r: make_batch(m.features, r))
        batch = make_it(model, rows)
        predictions = model.predict(batch)
        losses = model.loss(predictions, batch)
        model.update_metric(predictions, batch, losses)
        model.update_train_metric(predictions, batch)
        found = model.compute_metric()
        scores = predictions["similarity"].detach().numpy()
        target = np.zeros(B, np.int64) if sampler else np.arange(B)
        ranks = (scores >= scores[np.arange(B), target][:, None]).sum(1)
        expected = {
            "recall@1": (ranks <= 1).mean(),
            "recall@5": (ranks <= 5).mean(),
            "mrr": (1 / ranks).mean(),
            "hitrate@3": (ranks <= 3).mean(),
            "ndcg@10": (1 / np.log2(1 + ranks) * (ranks <= 10)).mean(),
            "mrr@2": (1 / ranks * (ranks <= 2)).mean(),
            "softmax_cross_entropy": float(losses["softmax_cross_entropy"].detach()),
        }
        assert list(found) == list(expected)
        assert {k: float(v) for k, v in found.items()} == pytest.approx(expected, rel=1e-6)
        assert float(model.compute_train_metric()["hitrate@3"]) == expected["hitrate@3"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objectives": ""}, "single loss, softmax_cross_entropy, not from \\[\\]"),
        ({"objectives": SOFTMAX * 2}, "single loss"),
        ({"objectives": "losses { binary_cross_entropy {} }"}, "not from .'binary_cross_entropy'"),
        ({"objectives": SOFTMAX + "metrics { auc {} }"}, "metric auc needs a loss"),
        ({"objectives": SOFTMAX + "metrics { mrr {} } " * 2}, "metric mrr is given twice"),
        ({"objectives": SOFTMAX + "metrics {}"}, "a metric is empty"),
        ({"negatives": "mask_accidental_hits: true"}, "item_id_feature is ''"),
        ({"negatives": MASK.replace("'item'", "'itm'")}, "did you mean 'item'"),
        ({"negatives": MASK.replace("'item'", "'price'")}, "must be an id feature"),
    ],
)
def test_what_does_not_fit(change, message):
    with pytest.raises(ConfigError, match=message):
        make(**change)


def test_no_negatives_no_label_no_group():
    with pytest.raises(ConfigError, match="no negatives to learn from"):
        make_match_model(DSSM.text()).init_loss()
    model = make_match_model(in_batch(DSSM))
    model._label_name = ""
    with pytest.raises(ConfigError, match="no label column"):
        model.init_loss()
    with pytest.raises(ConfigError, match="'us', which does not exist; did you mean"):
        make_match_model(in_batch(DSSM).replace('input: "u"', 'input: "us"'))


def test_training_lowers_the_loss_with_every_kind_of_negatives():
    kinds = (("", ""), ("NegativeSampler", ""), (HARDS, "in_batch_and_sampled: true"))
    for sampler, negatives in kinds:
        model = make(negatives, sampler=sampler)
        hard = sampler == HARDS
        rows = sampled_rows(64, 32, hard=hard) if sampler else make_rows(64)
        if sampler:
            batch = sampled_batch(model, rows, hard=hard)
        else:
            batch = make_batch(model.features, rows)
        losses = train(model, batch, steps=40)
        assert losses[-1] < losses[0] - 0.5, sampler


def test_wrapper_returns_a_total():
    model = make(objectives=SOFTMAX + "variational_dropout {}")
    total, (losses, _, _) = TrainWrapper(model)(make_batch(model.features, make_rows(B)))
    assert float(total) == pytest.approx(sum(float(v) for v in losses.values()))
