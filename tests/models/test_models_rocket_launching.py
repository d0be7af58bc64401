"""Rocket launching: contract of the house, distillation, and what is served."""

import numpy as np
import pytest
import torch
from models_contract import (
    BCE,
    CHECKS,
    Case,
    check_overfits,
    check_save_load,
    group,
    ids,
    linear,
    make_batch,
    make_model,
    make_rows,
    mlp,
    price,
    script,
    squeeze,
    train,
)
from sklearn.metrics import log_loss, roc_auc_score

from tzrec.models.wrappers import TrainWrapper

DEEP = group("features", "user item tags price")
NETS = "booster_mlp { hidden_units: [32, 24, 16] } light_mlp { hidden_units: [24, 16] }"
SHARE = "share_mlp { hidden_units: 20 }"
DISTILS = "feature_based_distillation: true"


def _layers(state, name, x):
    """The output of every ReLU layer."""
    found = []
    while f"{name}.mlp.{len(found)}.perceptron.0.weight" in state:
        x = np.maximum(linear(state, f"{name}.mlp.{len(found)}.perceptron.0", x), 0)
        found.append(x)
    return found


def _net(net, *, share=False):
    def oracle(state, rows):
        x = np.concatenate([*ids(state, rows, "user item tags"), price(rows)], 1)
        if share:
            x = mlp(state, "share_mlp", x)
        return squeeze(linear(state, f"{net}_output", mlp(state, f"{net}_mlp", x)))

    return oracle


def _config(fields: str = "") -> str:
    return DEEP + f"rocket_launching {{ {NETS} {fields} }}"


CASES = {
    "light": Case(_config(f"{SHARE} {DISTILS}"), _net("light", share=True), "_light"),
    "booster": Case(_config(), _net("booster"), "_booster"),
}


@pytest.mark.parametrize(
    "check", [c for c in CHECKS if c is not check_overfits], ids=lambda check: check.__name__
)
@pytest.mark.parametrize("name", CASES)
def test_contract(name, check):
    check(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_both_nets_overfit(name):
    """The hint, part of the total, does not vanish with the losses of the label."""
    model = make_model(CASES[name].config + BCE)
    batch = make_batch(model.features, make_rows(256))
    train(model, batch, steps=150)
    _, (losses, _, _) = TrainWrapper(model)(batch)
    assert losses["binary_cross_entropy_light"] < 0.05
    assert losses["binary_cross_entropy_booster"] < 0.05


@pytest.mark.parametrize("name", CASES)
def test_save_and_load(name, tmp_path):
    check_save_load(CASES[name], tmp_path / "model.pt")


def _run(fields, *, losses=BCE, training=True, weights=None, **kwargs):
    model = make_model(_config(fields) + losses, weights=weights, **kwargs)
    wrapper = TrainWrapper(model).train(training)
    rows = make_rows(64)
    total, (found, predictions, batch) = wrapper(make_batch(model.features, rows))
    return model, rows, batch, total, found, predictions


def _oracle_layers(model, rows):
    state = {name: p.detach().double().numpy() for name, p in model.state_dict().items()}
    x = model.build_input(make_batch(model.features, rows))["features"].detach().double().numpy()
    return _layers(state, "light_mlp", x), _layers(state, "booster_mlp", x)


@pytest.mark.parametrize("fields", ["", f"{DISTILS}", f"{DISTILS} {SHARE}"])
def test_training_adds_the_hint(fields):
    """Also where layers of one width are there but not compared."""
    _, _, _, total, losses, predictions = _run(fields)
    light, booster = predictions["logits_light"], predictions["logits_booster"]
    assert float(losses["hint_l2_loss"]) == pytest.approx(float((light - booster).square().mean()))
    names = ["binary_cross_entropy_light", "binary_cross_entropy_booster", "hint_l2_loss"]
    layers = [n for n in predictions if n.removeprefix("light_").isdigit()]
    if fields:
        names += ["similarity_0_1", "similarity_1_2"]
        assert layers == ["light_0", "light_1"]
    else:
        assert not layers
    assert list(losses) == names
    assert float(total) == pytest.approx(sum(float(loss) for loss in losses.values()))


@pytest.mark.parametrize("function", ["COSINE", "EUCLID", "INNER_PRODUCT"])
@pytest.mark.parametrize("weighted", [False, True])
def test_similarity_of_layers(function, weighted):
    fields = f"{DISTILS} feature_distillation_function: {function}"
    model, rows, _, _, losses, _ = _run(fields, weights=["weight"] if weighted else None)
    weight = np.array(rows["weight"], np.float64) if weighted else np.ones(64)
    weight /= weight.mean()
    light, booster = _oracle_layers(model, rows)
    for i, j in ((0, 1), (1, 2)):
        a, b = light[i], booster[j]
        if function == "COSINE":
            cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
            expected = -0.1 * (cosine * weight).mean()
        else:
            expected = np.sqrt((weight[:, None] * (a - b) ** 2).sum())
        assert float(losses[f"similarity_{i}_{j}"]) == pytest.approx(expected, rel=1e-4)


def test_the_light_net_teaches_nothing():
    """The gradient of what only concerns the light net ends there."""
    model, _, _, _, _, predictions = _run(f"{DISTILS} {SHARE}")
    batch = make_batch(model.features, make_rows(64))
    predictions = model.predict(batch)
    losses = model.loss(predictions, batch)
    own = [loss for name, loss in losses.items() if not name.endswith("_booster")]
    torch.stack(own).sum().backward()
    learnt = {name for name, p in model.named_parameters() if p.grad is not None}
    assert learnt == {n for n, _ in model.named_parameters() if n.startswith("light_")}


def test_equal_layers_do_not_break_the_gradient():
    """The distance 0 has no slope of its own."""
    model, _, batch, _, _, _ = _run(f"{DISTILS} feature_distillation_function: EUCLID")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "_mlp" in name:
                parameter.zero_()
    TrainWrapper(model)(batch)[0].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_weights_count_in_the_hint():
    _, rows, _, _, losses, predictions = _run("", weights=["weight"])
    weight = np.array(rows["weight"], np.float64)
    error = (predictions["logits_light"] - predictions["logits_booster"]).double().numpy() ** 2
    expected = (weight * error).sum() / weight.sum()
    assert float(losses["hint_l2_loss"]) == pytest.approx(expected, rel=1e-5)


def test_hints_of_classes_and_numbers():
    softmax = "num_class: 3 losses { softmax_cross_entropy {} }"
    _, _, _, _, losses, found = _run("", losses=softmax, labels=["kind"])
    error = (found["logits_light"] - found["logits_booster"]).square().mean()
    assert found["logits_light"].shape == (64, 3)
    assert float(losses["hint_l2_loss"]) == pytest.approx(float(error), rel=1e-5)
    _, _, _, _, losses, found = _run("", losses="losses { l2_loss {} }", labels=["watch"])
    error = (found["y_light"] - found["y_booster"]).square().mean()
    assert float(losses["hint_l2_loss"]) == pytest.approx(float(error), rel=1e-5)


METRICS = "metrics { auc { thresholds: 2000 } } train_metrics { auc {} decay_step: 1 }"


def test_both_nets_are_evaluated():
    model, rows, batch, _, losses, predictions = _run(DISTILS, losses=BCE + METRICS, training=False)
    assert set(predictions) == {f"{n}_{net}" for n in ("logits", "probs") for net in CASES}
    model.update_metric(predictions, batch, losses)
    metrics = {name: float(value) for name, value in model.compute_metric().items()}
    names = ["auc_light", "auc_booster"]
    assert list(metrics) == [*names, *(f"binary_cross_entropy_{net}" for net in CASES)]
    for net in CASES:
        probs = predictions[f"probs_{net}"].double().numpy()
        ties = (probs * 1999) // 1
        assert metrics[f"auc_{net}"] == pytest.approx(roc_auc_score(rows["clk"], ties), abs=1e-6)
        loss = log_loss(rows["clk"], probs)
        assert metrics[f"binary_cross_entropy_{net}"] == pytest.approx(loss, rel=1e-5)
    for _ in range(2):
        model.update_train_metric(predictions, batch)
    assert list(model.compute_train_metric()) == names


def test_only_the_light_net_is_served():
    model = make_model(_config(f"{SHARE} {DISTILS}") + BCE)
    scripted = script(model)
    assert list(model.predict(make_batch(model.features, make_rows(3)))) == [
        "logits_light",
        "probs_light",
    ]
    names = [name for name, _ in scripted.named_parameters()]
    assert any("light_mlp" in name for name in names)
    assert not [name for name in names if "booster" in name]
