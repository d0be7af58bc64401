"""Losses, weights, metrics and variational dropout of RankModel."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from models_contract import group, make_batch, make_model, make_rows, parse, script, train
from sklearn.metrics import log_loss, roc_auc_score

from tzrec.config.specs import LOSSES as LOSS_FACTS
from tzrec.config.specs import METRICS as METRIC_FACTS
from tzrec.config.specs import eval_metric_names
from tzrec.errors import ConfigError, DataError
from tzrec.models.model import TrainWrapper
from tzrec.models.objectives import LOSSES, METRICS, first_ids
from tzrec.models.rank_model import weighted_mean

DEEP = group("deep", "user item price")
BASE = DEEP + 'multi_tower { towers { input: "deep" } final { hidden_units: 16 } }'

# Loss → its text, number of classes, label.
LOSS_TEXT = {
    "binary_cross_entropy": ("binary_cross_entropy {}", 1, "clk"),
    "binary_focal_loss": ("binary_focal_loss {}", 1, "clk"),
    "softmax_cross_entropy": ("softmax_cross_entropy {}", 3, "kind"),
    "jrc_loss": ('jrc_loss { session_name: "user" }', 2, "clk"),
    "l2_loss": ("l2_loss {}", 1, "watch"),
}


def _wrapper(extra, *, num_class=1, label="clk", weights=None):
    model = make_model(BASE + f"num_class: {num_class} {extra}", labels=[label], weights=weights)
    return TrainWrapper(model)


def _step(wrapper, num_rows=64, seed=0):
    rows = make_rows(num_rows, seed)
    batch = make_batch(wrapper.model.features, rows)
    total, (losses, predictions, _) = wrapper(batch)
    return rows, batch, total, losses, predictions


def test_the_tables_are_those_of_the_config_rules():
    assert LOSSES.keys() == LOSS_FACTS.keys() == LOSS_TEXT.keys()
    assert METRICS.keys() == METRIC_FACTS.keys()


# --- losses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_prediction_keys_and_learning(name):
    text, num_class, label = LOSS_TEXT[name]
    wrapper = _wrapper(f"losses {{ {text} }}", num_class=num_class, label=label)
    _, batch, _, losses, predictions = _step(wrapper)
    kind = LOSS_FACTS[name].kind
    if kind == "regression":
        assert {key: v.shape for key, v in predictions.items()} == {"y": (64,)}
    else:
        shape = (64,) if num_class == 1 else (64, num_class)
        expected = {"logits": shape, "probs": shape}
        if num_class == 2:
            expected["probs1"] = (64,)
            assert torch.equal(predictions["probs1"], predictions["probs"][:, 1])
        assert {key: v.shape for key, v in predictions.items()} == expected
    assert list(losses) == [name]
    curve = train(wrapper.model, batch, steps=30)
    assert curve[-1] < 0.8 * curve[0]


def _numpy_bce(logits, labels, smoothing=0.0):
    p = 1 / (1 + np.exp(-logits.numpy().astype(np.float64)))
    y = np.array(labels) * (1 - smoothing) + smoothing / 2
    return -(y * np.log(p) + (1 - y) * np.log(1 - p))


def test_label_smoothing_reaches_the_loss():
    rows, _, _, losses, predictions = _step(
        _wrapper("losses { binary_cross_entropy { label_smoothing: 0.2 } }")
    )
    expected = _numpy_bce(predictions["logits"], rows["clk"], 0.2).mean()
    assert float(losses["binary_cross_entropy"]) == pytest.approx(expected, rel=1e-5)


def test_sample_weights_count_by_their_ratio():
    wrapper = _wrapper("losses { binary_cross_entropy {} }", weights=["weight"])
    rows, batch, _, losses, predictions = _step(wrapper)
    w = np.array(rows["weight"], np.float64)
    expected = (_numpy_bce(predictions["logits"], rows["clk"]) * w / w.mean()).mean()
    assert float(losses["binary_cross_entropy"]) == pytest.approx(expected, rel=1e-5)
    batch.sample_weights["weight"] *= 100
    assert float(wrapper(batch)[0]) == pytest.approx(expected, rel=1e-5)
    batch.sample_weights["weight"] *= 0
    assert float(wrapper(batch)[0]) == 0.0


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_takes_sample_weights(name):
    """Weights 1 and 0 are the loss of the rows with 1 (JRC: of whole sessions)."""
    text, num_class, label = LOSS_TEXT[name]
    arguments = {"num_class": num_class, "label": label}
    rows = make_rows(64)
    keep = [user % 2 == 0 for user in rows["user"]]
    rows["weight"] = [np.float32(k) for k in keep]
    kept = {c: [v for v, k in zip(column, keep, strict=True) if k] for c, column in rows.items()}
    weighted = _wrapper(f"losses {{ {text} }}", weights=["weight"], **arguments)
    plain = _wrapper(f"losses {{ {text} }}", **arguments)
    features = plain.model.features
    expected = float(plain(make_batch(features, kept))[0])
    assert float(weighted(make_batch(features, rows))[0]) == pytest.approx(expected, rel=1e-5)


def test_weighted_mean_of_integers():
    loss = torch.tensor([1.0, 2.0, 4.0])
    assert float(weighted_mean(loss, torch.tensor([1, 0, 3]))) == pytest.approx(13 / 4)
    assert float(weighted_mean(loss, None)) == pytest.approx(7 / 3)


def test_loss_weight_scales_loss_and_total():
    one = _step(_wrapper("losses { binary_cross_entropy {} } losses { l2_loss {} }"))
    two = _step(_wrapper("losses { binary_cross_entropy {} weight: 0.5 } losses { l2_loss {} }"))
    half = float(one[3]["binary_cross_entropy"]) / 2
    assert float(two[3]["binary_cross_entropy"]) == pytest.approx(half)
    assert float(two[2]) == pytest.approx(half + float(one[3]["l2_loss"]))
    assert set(two[4]) == {"logits", "probs", "y"}


@pytest.mark.parametrize("name", LOSSES)
def test_weight_of_every_loss(name):
    """It scales loss, gradient and the mean in an evaluation; 1 is as if not written."""
    text, num_class, label = LOSS_TEXT[name]
    seen = {}
    for weight in ("", "weight: 1", "weight: 2.5", "weight: 0"):
        wrapper = _wrapper(f"losses {{ {text} {weight} }}", num_class=num_class, label=label)
        _, batch, total, losses, predictions = _step(wrapper)
        total.backward()
        wrapper.model.update_metric(predictions, batch, losses)
        mean = float(wrapper.model.compute_metric()[name])
        gradients = torch.cat([p.grad.flatten() for p in wrapper.parameters()])
        seen[weight] = (float(losses[name]), float(total), mean, gradients)
    for index in range(3):
        plain, one, more, none = (values[index] for values in seen.values())
        assert plain == one != 0
        assert more == pytest.approx(2.5 * plain)
        assert none == 0
    plain, one, more, none = (values[3] for values in seen.values())
    assert torch.equal(plain, one)
    assert plain.abs().max() > 0
    torch.testing.assert_close(more, 2.5 * plain)
    assert not none.any()


def test_jrc_reads_its_session():
    text = 'losses {{ jrc_loss {{ session_name: "{}" alpha: 0.1 }} }}'
    by_user, by_item = (
        float(_step(_wrapper(text.format(name), num_class=2))[2]) for name in ("user", "item")
    )
    assert by_user != by_item
    with pytest.raises(ConfigError, match=r"'usr'.*did you mean 'user'"):
        _step(_wrapper(text.format("usr"), num_class=2))


def test_first_ids():
    wrapper = _wrapper("losses { binary_cross_entropy {} }")
    rows, batch, *_ = _step(wrapper)
    expected = [tags[0] if len(tags) else -1 for tags in rows["tags"]]
    assert -1 in expected
    assert first_ids(batch, "tags").tolist() == expected
    assert first_ids(batch, "user").tolist() == rows["user"]


@pytest.mark.parametrize(
    ("extra", "num_class", "message"),
    [
        ("losses { binary_cross_entropy {} }", 2, "needs num_class 1, but it is 2"),
        ("losses { softmax_cross_entropy {} }", 1, "needs num_class at least 2"),
        ('losses { jrc_loss { session_name: "user" } }', 3, "needs num_class 2"),
        ("losses { l2_loss {} } losses { l2_loss {} }", 1, "loss l2_loss is given twice"),
        ("losses { recon_loss {} }", 1, "recon_loss is not for this model"),
        ("losses { }", 1, "a loss is empty"),
        ("losses { l2_loss {} } metrics { auc {} }", 1, "auc needs a loss that gives it scores"),
        ("losses { binary_cross_entropy {} } metrics { xauc {} }", 1, "xauc needs .* l2_loss"),
        ("losses { softmax_cross_entropy {} } metrics { auc {} }", 3, "auc needs num_class 1 to 2"),
        ("losses { l2_loss {} } metrics { recall_at_k {} }", 1, "recall_at_k is not for this"),
        ("losses { l2_loss {} } metrics { xauc {} } metrics { xauc {} }", 1, "xauc is given twice"),
        ("losses { l2_loss {} } metrics { }", 1, "a metric is empty"),
    ],
)
def test_what_does_not_fit_is_a_config_error(extra, num_class, message):
    with pytest.raises(ConfigError, match=message):
        _wrapper(extra, num_class=num_class)


@pytest.mark.parametrize(
    ("loss", "num_class", "label", "value"),
    [
        ("binary_cross_entropy", 1, "clk", 2),
        ("binary_focal_loss", 1, "clk", -1),
        ("softmax_cross_entropy", 3, "kind", 3),
        ("softmax_cross_entropy", 3, "kind", 1.5),
        ("jrc_loss { session_name: 'user' }", 2, "clk", 0.5),
    ],
)
def test_labels_out_of_range_name_row_and_value(loss, num_class, label, value):
    text = loss if loss.endswith("}") else f"{loss} {{}}"
    wrapper = _wrapper(f"losses {{ {text} }}", num_class=num_class, label=label)
    rows = make_rows(8)
    rows[label] = [type(value)(known) for known in rows[label]]
    rows[label][5] = value
    with pytest.raises(DataError, match=f"label '{label}' is {value} in row 5"):
        wrapper(make_batch(wrapper.model.features, rows))


def test_a_missing_label_is_named():
    wrapper = _wrapper("losses { binary_cross_entropy {} }")
    batch = make_batch(wrapper.model.features, make_rows(8), labels=["watch"])
    with pytest.raises(DataError, match="no label 'clk'"):
        wrapper(batch)


# --- metrics -----------------------------------------------------------------------------------


def _evaluate(wrapper, seeds=(0, 1, 2)):
    """Returns the metrics over three batches and all labels and predictions."""
    wrapper.eval()
    seen = []
    with torch.no_grad():
        for num_rows, seed in zip((64, 33, 5), seeds, strict=True):
            rows, batch, _, losses, predictions = _step(wrapper, num_rows, seed)
            wrapper.model.update_metric(predictions, batch, losses)
            columns = {k: rows[k] for k in ("clk", "watch", "kind", "user")}
            seen.append(
                pd.DataFrame(columns | {k: list(v.numpy()) for k, v in predictions.items()})
            )
    metrics = wrapper.model.compute_metric()
    return {name: float(value) for name, value in metrics.items()}, pd.concat(seen)


BINARY = """losses { binary_cross_entropy {} }
metrics { auc { thresholds: 2000 } } metrics { accuracy {} } metrics { normalized_entropy {} }
metrics { grouped_auc { grouping_key: "user" } }"""


def test_binary_metrics():
    metrics, rows = _evaluate(_wrapper(BINARY))
    names = ["auc", "accuracy", "normalized_entropy", "grouped_auc"]
    assert list(metrics) == eval_metric_names(["binary_cross_entropy"], [(n, 0) for n in names])
    loss = log_loss(rows.clk, rows.probs.astype(np.float64))
    # Scores between two of the 2000 thresholds are ties.
    ties = (rows.probs * 1999) // 1
    assert metrics["auc"] == pytest.approx(roc_auc_score(rows.clk, ties), abs=1e-6)
    assert metrics["accuracy"] == pytest.approx(((rows.probs > 0.5) == rows.clk).mean())
    assert metrics["binary_cross_entropy"] == pytest.approx(loss, rel=1e-5)
    mean = np.full(len(rows), rows.clk.mean())
    assert metrics["normalized_entropy"] == pytest.approx(loss / log_loss(rows.clk, mean), rel=1e-5)
    users = [g for _, g in rows.groupby("user") if g.clk.nunique() == 2]
    expected = np.mean([roc_auc_score(g.clk, g.probs) for g in users])
    assert metrics["grouped_auc"] == pytest.approx(expected, abs=1e-9)


def test_two_classes_are_measured_by_the_second():
    text = """losses { softmax_cross_entropy {} } metrics { auc { thresholds: 2000 } }
        metrics { accuracy {} } metrics { multiclass_auc {} } metrics { normalized_entropy {} }
        metrics { grouped_auc { grouping_key: "user" } }"""
    metrics, rows = _evaluate(_wrapper(text, num_class=2))
    assert metrics["auc"] == pytest.approx(roc_auc_score(rows.clk, rows.probs1), abs=5e-3)
    assert metrics["accuracy"] == pytest.approx(((rows.probs1 > 0.5) == rows.clk).mean())
    assert metrics["multiclass_auc"] == pytest.approx(metrics["auc"], abs=2e-2)
    assert metrics["normalized_entropy"] > 0.9


def test_regression_metrics():
    text = """losses { l2_loss {} } metrics { mean_absolute_error {} }
        metrics { mean_squared_error {} } metrics { xauc { in_batch: true } }
        metrics { grouped_xauc { grouping_key: "user" } }"""
    metrics, rows = _evaluate(_wrapper(text, label="watch"))
    error = rows.y - rows.watch
    assert metrics["mean_absolute_error"] == pytest.approx(error.abs().mean(), rel=1e-5)
    assert metrics["mean_squared_error"] == pytest.approx((error**2).mean(), rel=1e-5)
    assert metrics["l2_loss"] == pytest.approx(metrics["mean_squared_error"], rel=1e-5)
    shares = [_ordered(rows[a:b]) for a, b in ((0, 64), (64, 97), (97, 102))]
    assert metrics["xauc"] == pytest.approx(np.mean(shares), abs=1e-6)
    users = [g for _, g in rows.groupby("user") if len(g) > 1]
    shares = np.average([_ordered(g) for g in users], weights=[len(g) for g in users])
    assert metrics["grouped_xauc"] == pytest.approx(shares, abs=1e-6)


def _ordered(rows):
    """The share of pairs of rows whose scores are ordered like their labels."""
    pairs = itertools.combinations(zip(rows.y, rows.watch, strict=True), 2)
    return np.mean([(a[0] - b[0]) * (a[1] - b[1]) > 0 for a, b in pairs])


def test_confidence_intervals_beside_the_metrics():
    wrapper = _wrapper(BINARY)
    assert wrapper.model.metric_half_widths() == {}
    metrics, rows = _evaluate(wrapper)
    widths = wrapper.model.metric_half_widths()
    assert set(widths) == {"auc", "grouped_auc"} < set(metrics)
    users = [g for _, g in rows.groupby("user") if g.clk.nunique() == 2]
    aucs = [roc_auc_score(g.clk, g.probs) for g in users]
    expected = 1.959964 * np.std(aucs, ddof=1) / len(aucs) ** 0.5
    assert widths["grouped_auc"] == pytest.approx(expected, rel=1e-6)


def test_metrics_start_afresh_after_compute():
    wrapper = _wrapper(BINARY)
    first, _ = _evaluate(wrapper)
    other, _ = _evaluate(wrapper, seeds=(5, 6, 7))
    again, _ = _evaluate(wrapper)
    assert again == first != other


TRAIN = "losses { binary_cross_entropy {} } train_metrics { auc {} decay_step: 2 decay_rate: 0.5 }"


def test_train_metrics_are_decayed_and_restored():
    def run(wrapper, steps):
        for step in steps:
            _, batch, _, _, predictions = _step(wrapper, seed=step)
            wrapper.model.update_train_metric(predictions, batch)
        return {name: float(v) for name, v in wrapper.model.compute_train_metric().items()}

    whole, part = _wrapper(TRAIN), _wrapper(TRAIN)
    assert run(whole, [0]) == {"auc": 0.0}
    value = run(whole, [1])
    assert value["auc"] > 0
    assert value == run(part, [0, 1])
    run(part, [2])
    state = part.model.train_metric_state()
    resumed = _wrapper(TRAIN)
    resumed.model.load_train_metric_state(state)
    assert run(whole, [2, 3]) == run(resumed, [3]) != value
    # A metric that the checkpoint does not know starts afresh.
    fresh = _wrapper(TRAIN + " train_metrics { accuracy {} }")
    fresh.model.load_train_metric_state(state)
    assert run(fresh, [3])["accuracy"] == 0.0


def test_metrics_are_no_weights():
    assert not [n for n in _wrapper(BINARY + TRAIN[35:]).state_dict() if "metric" in n]


# --- variational dropout -----------------------------------------------------------------------

DROPOUT = "losses { binary_cross_entropy {} } variational_dropout { regularization_lambda: 0.3 }"


def test_variational_dropout_of_groups_with_several_entries():
    encoded = """sequence_groups { feature_names: ["item", "click__item"] }
        sequence_encoders { din_encoder { attn_mlp { hidden_units: 4 } } }"""
    groups = group("one", "user") + group("deep", "user item price", more=encoded)
    groups += group("seq", "item click__item", "SEQUENCE")
    groups += """multi_tower_din {
          towers { input: "one" } towers { input: "deep" }
          din_towers { input: "seq" attn_mlp { hidden_units: 4 } } final { hidden_units: 16 }
        }"""
    wrapper = TrainWrapper(make_model(groups + DROPOUT))
    parameters = {n: p for n, p in wrapper.named_parameters() if "feature_p" in n}
    assert list(parameters) == ["model.group_variational_dropouts.deep.feature_p"]
    p = next(iter(parameters.values()))
    assert p.shape == (4,)  # three features and the encoder
    _, _, total, losses, _ = _step(wrapper)
    penalty = 0.3 / 64 * (1 - torch.sigmoid(p)).sum()
    assert float(losses["deep_feature_p_loss"]) == pytest.approx(float(penalty))
    assert float(total) == pytest.approx(sum(float(loss) for loss in losses.values()))
    total.backward()
    assert (p.grad != 0).all()


def test_variational_dropout_scales_at_inference_and_is_exported():
    model = make_model(BASE + DROPOUT)
    rows = make_rows(16)
    batch = make_batch(model.features, rows)
    noisy = [model(batch)["logits"] for _ in range(2)]
    assert not torch.equal(*noisy)
    model.eval()
    scripted = script(model)
    assert not model._loss_collection
    assert torch.equal(model(batch)["logits"], model(batch)["logits"])
    torch.testing.assert_close(
        scripted(parse(model.features, rows))["logits"], model(batch)["logits"].detach()
    )
    # The scale is 1 - sigmoid(feature_p) per feature.
    keep = 1 - torch.sigmoid(model.group_variational_dropouts["deep"].feature_p)
    scale = torch.repeat_interleave(keep, torch.tensor([8, 8, 1]))
    x = model.embedding_group(batch)["deep"] * scale
    expected = model.output_mlp(model.final_mlp(x))[:, 0]
    torch.testing.assert_close(model(batch)["logits"], expected)


def test_a_field_without_effect_says_so(caplog):
    field = "embedding_wise_variational_dropout: true"
    make_model(BASE + f"losses {{ binary_cross_entropy {{}} }} variational_dropout {{ {field} }}")
    assert "embedding_wise_variational_dropout has no effect" in caplog.text


def test_variational_dropout_is_no_eval_metric():
    metrics, _ = _evaluate(_wrapper(DROPOUT))
    assert list(metrics) == ["binary_cross_entropy"]
