"""MIND: contract of the house, interests, knobs of the capsules."""

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
)
from models_contract import group, ids, linear, make_batch, make_rows, mlp, price, train

from tzrec.modules.capsule import CapsuleLayer

GROUPS = (
    group("u", "user")
    + group("i", "item tags price")
    + group("h", "click__item click__price", "SEQUENCE")
)
MLP = "mlp { hidden_units: [32, 16] }"
K, HIGH = 3, 6


def routing_logits(max_seq_len, max_k, stddev):
    """The draw that inference starts from."""
    generator = torch.Generator().manual_seed(0)
    return torch.zeros(max_seq_len, max_k).normal_(std=stddev, generator=generator).numpy()


def capsules(steps, weight, logits, *, squash_pow, iterations=3, scale=20.0, constant=False):
    """The capsules (K', H) of one history (T, D)."""
    steps = steps[: len(logits)]
    number = logits.shape[1]
    if not constant:
        number = int(np.clip(np.ceil(np.log2(max(len(steps), 1))), 1, logits.shape[1]))
    high, b = steps @ weight, logits[: len(steps), :number]
    unit = normalize(high) if len(steps) else high
    for iteration in range(iterations):
        scores = np.exp(scale * b - (scale * b).max(1, keepdims=True)) if len(steps) else b
        c = scores / scores.sum(1, keepdims=True)
        v = c.T @ high
        if iteration < iterations - 1:
            b = c + unit @ v.T
    norm = np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-7)
    return v / norm * (norm**2 / (1 + norm**2)) ** squash_pow


def _open(state, name, x, *, hidden):
    """An MLP that ends in a linear layer."""
    if not hidden:
        return linear(state, f"{name}.0", x)
    return linear(state, f"{name}.1", mlp(state, f"{name}.0", x))


def _case(*, hidden=True, hist=True, cosine=True, steps=5, temperature=0.5):
    squash_pow, simi_pow = 0.5, 2.0
    units = "[16, 8]" if hidden else "8"

    def interests(state, rows):
        state = own(state, "user_tower")
        user = _open(state, "user_tower.user_mlp", ids(state, rows, "user")[0], hidden=hidden)
        weight, result = state["user_tower.capsule.bilinear_matrix"], []
        logits = routing_logits(steps, K, 1.0)
        numbers = []
        for r, (items, prices) in enumerate(
            zip(rows["click__item"], rows["click__price"], strict=True)
        ):
            x = np.zeros((0, 9))
            if items:
                x = np.concatenate([state["seq:item_emb"][items], np.array(prices)[:, None]], 1)
            x = _open(state, "user_tower.hist_seq_mlp", x, hidden=hidden) if hist else x
            caps = capsules(x, weight, logits, squash_pow=squash_pow)
            both = np.concatenate([np.tile(user[r], (len(caps), 1)), caps], 1)
            y = linear(state, "user_tower.output", mlp(state, "user_tower.concat_mlp", both))
            padded = np.zeros((K, y.shape[1]))
            padded[: len(y)] = normalize(y) if cosine else y
            result.append(padded)
            numbers.append(len(y))
        return np.array(result), numbers

    def users(state, rows, positives):
        vectors = []
        for own_interests, number, item in zip(*interests(state, rows), positives, strict=True):
            scores = simi_pow * own_interests[:number] @ item
            weights = np.exp(scores - scores.max())
            vectors.append(weights / weights.sum() @ own_interests[:number])
        return np.array(vectors) / temperature

    def items(state, rows):
        state = own(state, "item_tower")
        x = np.concatenate([*ids(state, rows, "item tags"), price(rows)], 1)
        y = linear(state, "item_tower.output", mlp(state, "item_tower.mlp", x))
        return normalize(y) if cosine else y

    hist_mlp = f"hist_seq_mlp {{ hidden_units: {units} }}" if hist else ""
    similarity = "" if cosine else "similarity: INNER_PRODUCT"
    text = (
        f'{GROUPS}mind {{ user_tower {{ input: "u" history_input: "h" '
        f"user_mlp {{ hidden_units: {units} }} {hist_mlp} capsule_config {{ max_k: {K} "
        f"max_seq_len: {steps} high_dim: {HIGH} squash_pow: {squash_pow} }} "
        f"concat_mlp {{ hidden_units: [16] }} }} "
        f'item_tower {{ input: "i" {MLP} }} output_dim: 4 simi_pow: {simi_pow} '
        f"{similarity} temperature: {temperature} %s }} "
    )
    return MatchCase(text, users, items, user_parts=lambda *args: interests(*args)[0])


CASES = {
    "mind": _case(),
    "mind_linear": _case(hidden=False, cosine=False),
    "mind_no_hist_mlp": _case(hist=False, steps=20),
}


@pytest.mark.parametrize("check", MATCH_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_contract(name, check):
    if check.__name__ == "check_overfits" and name == "mind_no_hist_mlp":
        pytest.skip("its interests hang on routing, which training draws anew for every step")
    check(CASES[name])


def test_training_draws_routing_logits_and_inference_does_not():
    model = make_match_model(in_batch(CASES["mind"]))
    batch = make_batch(model.features, make_rows(32))
    a, b = (model.predict(batch)["similarity"] for _ in range(2))
    assert not torch.equal(a, b)
    model.eval()
    a, b = (model.predict(batch)["similarity"] for _ in range(2))
    assert torch.equal(a, b)


def test_interests_differ_from_each_other():
    model = make_match_model(in_batch(CASES["mind"]))
    batch = make_batch(model.features, make_rows(64))
    train(model, batch, steps=20)
    interests, numbers = model.eval().user_tower.interests(batch)
    several = interests[numbers > 1]
    assert len(several) > 20
    assert float((several[:, 0] - several[:, 1]).norm(dim=1).min()) > 1e-4


def _layer(**changed):
    fields = {"max_k": 4, "max_seq_len": 9, "high_dim": 3} | changed
    torch.manual_seed(0)
    return CapsuleLayer(5, **fields).eval()


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("fields", [{}, {"num_iters": 1}, {"routing_logits_scale": 2.0}])
def test_capsules(fields, constant):
    layer = _layer(const_caps_num=constant, squash_pow=0.7, **fields)
    steps, lengths = torch.randn(12, 11, 5), torch.arange(12)
    found, numbers = layer(steps, lengths)
    assert found.shape == (12, 4, 3)
    expected = [1, 1, 1, 2, 2, 3, 3, 3, 3, 4, 4, 4]
    assert numbers.tolist() == ([4] * 12 if constant else expected)
    weight = layer.bilinear_matrix.detach().double().numpy()
    logits = routing_logits(9, 4, 1.0)
    for row in range(12):
        own_steps = steps[row, : min(row, 9)].double().numpy()
        caps = capsules(
            own_steps, weight, logits, squash_pow=0.7, constant=constant,
            iterations=fields.get("num_iters", 3), scale=fields.get("routing_logits_scale", 20.0),
        )  # fmt: skip
        np.testing.assert_allclose(found[row, : len(caps)].detach(), caps, rtol=1e-3, atol=1e-5)
        assert not found[row, len(caps) :].any()


def test_routing_logits_are_there_on_any_default_device():
    with torch.device("meta"):
        layer = CapsuleLayer(5, max_k=4, max_seq_len=9, high_dim=3)
    assert layer.bilinear_matrix.is_meta
    assert torch.equal(layer.routing_logits, _layer().routing_logits)


def test_padding_changes_no_capsule():
    layer, steps, lengths = _layer(), torch.randn(3, 4, 5), torch.tensor([2, 4, 0])
    longer = torch.cat([steps, torch.randn(3, 3, 5)], 1)
    torch.testing.assert_close(layer(steps, lengths)[0], layer(longer, lengths)[0])


def test_knobs_of_routing():
    steps, lengths = torch.randn(6, 8, 5), torch.full((6,), 8)
    plain = _layer()(steps, lengths)[0]
    for changed in (
        {"routing_logits_stddev": 3.0},
        {"squash_pow": 0.2},
        {"num_iters": 2},
        {"routing_logits_scale": 1.0},
        {"max_seq_len": 7},
    ):
        assert not torch.allclose(_layer(**changed)(steps, lengths)[0], plain), changed
    alike = _layer(routing_init_method="zeros")(steps, lengths)[0]
    torch.testing.assert_close(alike[:, 0], alike[:, 2])
    with pytest.raises(ValueError, match="routing_init_method is 'ones'"):
        _layer(routing_init_method="ones")


def test_gradients_of_an_empty_history_are_finite():
    layer = _layer(squash_pow=0.2).train()
    steps = torch.zeros(2, 3, 5, requires_grad=True)
    layer(steps, torch.tensor([0, 2]))[0].sum().backward()
    assert torch.isfinite(steps.grad).all()
    assert torch.isfinite(layer.bilinear_matrix.grad).all()


def test_layer_settings_reach_the_layers():
    fields = "hidden_units: [16, 8] dropout_ratio: [0.3, 0.1] use_bn: true"
    text = CASES["mind"].config.replace("hidden_units: [16, 8]", fields)
    tower = make_match_model(text % "in_batch_negative: true" + SOFTMAX).user_tower
    for mlp_of in (tower.user_mlp, tower.hist_seq_mlp):
        kinds = [type(layer).__name__ for layer in mlp_of[0].mlp[0].perceptron]
        assert kinds == ["Linear", "BatchNorm", "ReLU", "Dropout"]
        assert mlp_of[0].mlp[0].perceptron[3].p == pytest.approx(0.3)
    assert tower.user_mlp[1].bias is not None
    assert tower.hist_seq_mlp[1].bias is None


def test_simi_pow():
    def similarities(power):
        text = CASES["mind"].config.replace("simi_pow: 2.0", f"simi_pow: {power}")
        model = make_match_model(text % "in_batch_negative: true" + SOFTMAX).eval()
        return model.predict(make_batch(model.features, make_rows(32)))["similarity"].diagonal()

    assert (similarities(50) >= similarities(1) - 1e-6).all()
    assert not torch.allclose(similarities(50), similarities(1))
