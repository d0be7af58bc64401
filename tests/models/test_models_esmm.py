"""ESMM: contract of the house, against its formula."""

import numpy as np
import pytest
import torch
from models_contract import linear as linear_of
from models_contract import make_batch, make_model, mlp, squeeze
from multi_task_contract import CHECKS, MultiCase
from sklearn.metrics import roc_auc_score
from test_models_mmoe import GROUP, first_group

from tzrec.config.tasks import tasks_of
from tzrec.config.validate.frame import Context
from tzrec.config.validate.objectives import metric_names
from tzrec.errors import ConfigError
from tzrec.models.model import TrainWrapper
from tzrec.protos.pipeline_pb2 import EasyRecConfig

LABELS = ("clk", "buy")
BCE = "losses { binary_cross_entropy {} }"
METRICS = 'metrics { auc { thresholds: 20000 } } metrics { grouped_auc { grouping_key: "user" } }'


class EsmmCase(MultiCase):
    def rows(self, num_rows, seed=0):
        """A third of the clicks and some rows without a click are conversions."""
        rows = super().rows(num_rows, seed)
        draw = np.random.default_rng(seed + 2).random(num_rows)
        rows["buy"] = list((draw < np.where(rows["clk"], 0.4, 0.1)).astype(int))
        return rows


def _text(ctr=BCE, cvr=BCE, name="cvr"):
    return (
        GROUP
        + f"""esmm {{
      ctr_tower {{ tower_name: "ctr" label_name: "clk" {ctr} mlp {{ hidden_units: [32, 16] }} }}
      cvr_tower {{ tower_name: "{name}" label_name: "buy" {cvr} mlp {{ hidden_units: 32 }} }}
    }} """
    )


def _oracle(state, rows):
    found = {}
    for name in ("ctr", "cvr"):
        tower = f"task_towers.{name}"
        x = mlp(state, f"{tower}.tower_mlp", first_group(state, rows))
        found[f"logits_{name}"] = squeeze(linear_of(state, f"{tower}.linear", x))
    p = np.prod([1 / (1 + np.exp(-value)) for value in found.values()], axis=0)
    return found | {"logits_ctcvr": np.log(p / (1 - p))}


CASE = EsmmCase(_text(), _oracle, LABELS)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check):
    check(CASE)


def _case(**fields):
    return EsmmCase(_text(**fields), _oracle, LABELS)


def _step(case, seed=0):
    wrapper = TrainWrapper(case.model())
    rows = case.rows(200, seed)
    batch = case.batch(wrapper.model, rows)
    _, (losses, predictions, _) = wrapper(batch)
    arrays = {name: value.double().numpy() for name, value in predictions.items()}
    return (
        wrapper.model,
        batch,
        losses,
        predictions,
        arrays | {name: np.array(rows[name]) for name in LABELS},
    )


def test_conversions_are_learnt_from_all_rows_through_both_chances():
    _, _, losses, _, rows = _step(CASE)
    assert list(losses) == ["binary_cross_entropy_ctr", "binary_cross_entropy_cvr"]
    p, y = rows["probs_ctr"] * rows["probs_cvr"], rows["clk"] * rows["buy"]
    assert 0 < y.sum() < rows["buy"].sum()
    np.testing.assert_allclose(rows["probs_ctcvr"], p, rtol=1e-5)
    expected = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
    assert float(losses["binary_cross_entropy_cvr"]) == pytest.approx(expected, rel=1e-5)
    p, y = rows["probs_ctr"], rows["clk"]
    expected = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
    assert float(losses["binary_cross_entropy_ctr"]) == pytest.approx(expected, rel=1e-5)


def test_extreme_scores_stay_finite():
    model = CASE.model()
    with torch.no_grad():
        for name, bias in (("ctr", -90.0), ("cvr", -80.0)):
            model.task_towers[name].linear.bias.fill_(bias)
    wrapper = TrainWrapper(model)
    loss, (_, predictions, _) = wrapper(CASE.batch(model, CASE.rows(64)))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    # Both chances are tiny, so the logit of their product is the sum of theirs.
    both = predictions["logits_ctr"] + predictions["logits_cvr"]
    torch.testing.assert_close(predictions["logits_ctcvr"], both)


def test_metrics_of_conversions_after_clicks_and_of_all_rows():
    case = _case(ctr=BCE + METRICS, cvr=BCE + METRICS)
    model, batch, losses, predictions, rows = _step(case)
    model.update_metric(predictions, batch, losses)
    found = {name: float(value) for name, value in model.compute_metric().items()}
    clicked, both = rows["clk"] > 0, rows["clk"] * rows["buy"]
    expected = {
        "auc_ctr": roc_auc_score(rows["clk"], rows["probs_ctr"]),
        "auc_cvr": roc_auc_score(rows["buy"][clicked], rows["probs_cvr"][clicked]),
        "auc_ctcvr": roc_auc_score(both, rows["probs_ctr"] * rows["probs_cvr"]),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=2e-3), name
    config = EasyRecConfig()
    config.model_config.CopyFrom(model._base_model_config)
    assert list(found) == metric_names(Context(config))
    assert [task.suffix for task in tasks_of(config)] == ["_ctr", "_cvr"]


def test_a_batch_without_clicks_has_no_conversions_to_measure():
    case = _case(cvr=BCE + METRICS + "train_metrics { auc {} decay_step: 1 }")
    model = case.model()
    wrapper = TrainWrapper(model)
    rows = case.rows(16)
    rows["clk"] = [0] * 16
    batch = case.batch(model, rows)
    _, (losses, predictions, _) = wrapper(batch)
    model.update_metric(predictions, batch, losses)
    model.update_train_metric(predictions, batch)
    assert set(model.compute_metric()) > {"auc_cvr", "auc_ctcvr", "grouped_auc_cvr"}
    assert list(model.compute_train_metric()) == ["auc_cvr", "auc_ctcvr"]


@pytest.mark.parametrize("field", ["weight: 0.5", 'sample_weight_name: "weight"'])
def test_weights_of_a_tower_reach_its_loss(field):
    def losses(more):
        model = make_model(_text(cvr=BCE + more), labels=LABELS, weights=["weight"])
        rows = CASE.rows(64)
        return TrainWrapper(model)(make_batch(model.features, rows, labels=LABELS))[1][0]

    plain, weighted = losses(""), losses(field)
    assert plain["binary_cross_entropy_ctr"] == weighted["binary_cross_entropy_ctr"]
    assert plain["binary_cross_entropy_cvr"] != weighted["binary_cross_entropy_cvr"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cvr": "losses { l2_loss {} }"}, "tower 'cvr' of ESMM .* not l2_loss"),
        ({"ctr": ""}, "tower 'ctr' of ESMM predicts a probability, .* not none"),
        ({"ctr": "num_class: 2 losses { softmax_cross_entropy {} }"}, "not softmax_cross_entropy"),
        ({"name": "ctcvr"}, "no tower can be called that"),
        ({"name": "ctr"}, "two towers are called 'ctr'"),
    ],
)
def test_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        make_model(_text(**fields), labels=LABELS)
