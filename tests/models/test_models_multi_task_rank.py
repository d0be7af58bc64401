"""Losses, weights and metrics of MultiTaskRank, per tower."""

import dataclasses

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from models_contract import group, make_batch, make_model, make_rows, train
from sklearn.metrics import accuracy_score, mean_squared_error, roc_auc_score
from test_models_rank_model import LOSS_TEXT

from tzrec.config.specs import LOSSES as LOSS_FACTS
from tzrec.config.tasks import tasks_of
from tzrec.errors import ConfigError, DataError
from tzrec.models.model import TrainWrapper
from tzrec.models.multi_task_rank import MultiTaskRank
from tzrec.protos.model_pb2 import ModelConfig
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.protos.tower_pb2 import TaskTower

GROUP = group("all", "user item price")
LABELS = ["clk", "watch", "kind"]
BCE = "losses { binary_cross_entropy {} }"
WATCH = 'task_towers { tower_name: "watch" label_name: "watch" losses { l2_loss {} } }'


def _ctr(more="", losses=BCE):
    return f'task_towers {{ tower_name: "ctr" label_name: "clk" {losses} {more} }}'


def _text(*towers, more=""):
    return f"{GROUP} simple_multi_task {{ {' '.join(towers)} }} {more}"


def _wrapper(*towers, more="", labels=LABELS, weights=("weight",)):
    return TrainWrapper(make_model(_text(*towers, more=more), labels=labels, weights=weights))


def _step(wrapper, num_rows=64, seed=0):
    rows = make_rows(num_rows, seed)
    batch = make_batch(wrapper.model.features, rows)
    total, (losses, predictions, _) = wrapper(batch)
    return rows, batch, total, losses, predictions


def _bce(logits, labels):
    p = 1 / (1 + np.exp(-logits.numpy().astype(np.float64)))
    y = np.array(labels, np.float64)
    return -(y * np.log(p) + (1 - y) * np.log(1 - p))


# --- predictions and losses --------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSS_TEXT)
def test_every_loss_has_the_name_of_its_tower(name):
    text, num_class, label = LOSS_TEXT[name]
    tower = f"""task_towers {{ tower_name: "t" label_name: "{label}" losses {{ {text} }}
        num_class: {num_class} }}"""
    wrapper = _wrapper(tower, _ctr())
    _, batch, total, losses, predictions = _step(wrapper)
    keys = {"regression": ["y"], "binary": ["logits", "probs"]}
    keys["multiclass"] = ["logits", "probs"] + ["probs1"] * (num_class == 2)
    expected = [f"{key}_t" for key in keys[LOSS_FACTS[name].kind]]
    assert list(predictions) == [*expected, "logits_ctr", "probs_ctr"]
    assert list(losses) == [f"{name}_t", "binary_cross_entropy_ctr"]
    assert float(total) == pytest.approx(sum(float(loss) for loss in losses.values()))
    curve = train(wrapper.model, batch, steps=30)
    assert curve[-1] < curve[0]


def test_a_task_may_have_several_losses():
    two = BCE + " losses { binary_focal_loss {} weight: 0.5 }"
    _, _, _, losses, predictions = _step(_wrapper(_ctr(losses=two)))
    assert list(losses) == ["binary_cross_entropy_ctr", "binary_focal_loss_ctr"]
    assert list(predictions) == ["logits_ctr", "probs_ctr"]


def test_tasks_learn_from_their_own_labels():
    wrapper = _wrapper(_ctr(), WATCH)
    rows, _, _, losses, predictions = _step(wrapper)
    expected = _bce(predictions["logits_ctr"], rows["clk"]).mean()
    assert float(losses["binary_cross_entropy_ctr"]) == pytest.approx(expected, rel=1e-5)
    expected = ((predictions["y_watch"].numpy() - np.array(rows["watch"])) ** 2).mean()
    assert float(losses["l2_loss_watch"]) == pytest.approx(expected, rel=1e-5)


def test_a_label_that_does_not_fit_names_its_column():
    wrapper = _wrapper('task_towers { tower_name: "t" label_name: "kind" ' + BCE + " }")
    with pytest.raises(DataError, match=r"label 'kind' is 2 in row \d+ of the batch"):
        _step(wrapper)


# --- weights -----------------------------------------------------------------------------------

SPACE = 'task_space_indicator_label: "kind"'
WEIGHTS = {
    # Fields of the tower, and the weight of a row by (sample weight, kind).
    "none": ("", lambda w, kind: np.ones(len(w))),
    "sample": ('sample_weight_name: "weight"', lambda w, kind: w),
    "space": (
        SPACE + " in_task_space_weight: 2 out_task_space_weight: 0.5",
        lambda w, kind: np.where(kind > 0, 2, 0.5),
    ),
    "space only": (
        SPACE + " out_task_space_weight: 0",
        lambda w, kind: np.where(kind > 0, 1, 0),
    ),
    "both": (
        SPACE + ' in_task_space_weight: 0.25 sample_weight_name: "weight"',
        lambda w, kind: w * np.where(kind > 0, 0.25, 1),
    ),
}


@pytest.mark.parametrize("scale", [1, 0.3])
@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_of_rows_and_tasks(name, scale):
    fields, weigh = WEIGHTS[name]
    wrapper = _wrapper(_ctr(f"{fields} weight: {scale}" if scale != 1 else fields), WATCH)
    rows, _, _, losses, predictions = _step(wrapper)
    w = weigh(np.array(rows["weight"], np.float64), np.array(rows["kind"]))
    expected = scale * (_bce(predictions["logits_ctr"], rows["clk"]) * w / w.mean()).mean()
    assert float(losses["binary_cross_entropy_ctr"]) == pytest.approx(expected, rel=1e-5)
    expected = ((predictions["y_watch"].numpy() - np.array(rows["watch"])) ** 2).mean()
    assert float(losses["l2_loss_watch"]) == pytest.approx(expected, rel=1e-5)


def test_a_task_without_any_weight_adds_nothing():
    wrapper = _wrapper(_ctr('sample_weight_name: "weight"'))
    batch = make_batch(wrapper.model.features, make_rows(8))
    batch.sample_weights["weight"] *= 0
    total, _ = wrapper(batch)
    assert float(total) == 0.0
    total.backward()
    assert all(torch.isfinite(p.grad).all() for p in wrapper.parameters())


def test_a_task_without_sample_weight_name_weighs_rows_alike():
    """Unlike a single-task model, which takes the first of sample_weight_fields."""
    one = _step(_wrapper(_ctr()))[3]
    other = _step(_wrapper(_ctr(), weights=None))[3]
    assert one == other


# --- metrics -----------------------------------------------------------------------------------

METRICS = """metrics { auc { thresholds: 20000 } } metrics { accuracy {} }
  metrics { grouped_auc { grouping_key: "user" } }"""
KIND = """task_towers { tower_name: "kind" label_name: "kind" num_class: 3
  losses { softmax_cross_entropy {} } metrics { multiclass_auc {} } metrics { accuracy {} } }"""
WATCH_METRICS = "metrics { mean_squared_error {} } metrics { xauc {} }"


def _evaluate(wrapper, seeds=(0, 1)):
    parts = {}
    for seed in seeds:
        rows, batch, _, losses, predictions = _step(wrapper, 48, seed)
        wrapper.model.update_metric(predictions, batch, losses)
        for name, values in {**rows, **predictions}.items():
            parts.setdefault(name, []).append(np.array(values) if name in predictions else values)
    joined = {
        name: np.concatenate(values)
        for name, values in parts.items()
        if "__" not in name and name != "tags"
    }
    return {n: float(v) for n, v in wrapper.model.compute_metric().items()}, joined


def test_metrics_of_each_task():
    watch = WATCH.replace("losses", WATCH_METRICS + " losses")
    towers = (_ctr(METRICS), watch, KIND)
    found, rows = _evaluate(_wrapper(*towers))
    assert found["auc_ctr"] == pytest.approx(
        roc_auc_score(rows["clk"], rows["probs_ctr"]), abs=1e-3
    )
    accuracy = accuracy_score(rows["clk"], rows["probs_ctr"] > 0.5)
    assert found["accuracy_ctr"] == pytest.approx(accuracy)
    mse = mean_squared_error(rows["watch"], rows["y_watch"])
    assert found["mean_squared_error_watch"] == pytest.approx(mse, rel=1e-5)
    accuracy = accuracy_score(rows["kind"], rows["probs_kind"].argmax(1))
    assert found["accuracy_kind"] == pytest.approx(accuracy)
    bce = _bce(torch.from_numpy(rows["logits_ctr"]), rows["clk"]).mean()
    assert found["binary_cross_entropy_ctr"] == pytest.approx(bce, rel=1e-5)
    # The rules of a config, and the report, know the names beforehand.
    config = EasyRecConfig()
    text_format.Parse(_text(*towers), config.model_config)
    tasks = tasks_of(config)
    named = [n for task in tasks for n in task.metric_names()]
    named += [n for task in tasks for n in task.loss_names()]
    assert list(found) == named


def test_train_metrics_of_each_task():
    decay = "decay_step: 1 decay_rate: 0.5"
    wrapper = _wrapper(
        _ctr(f"train_metrics {{ auc {{}} {decay} }}"),
        WATCH.replace("losses", f"train_metrics {{ mean_squared_error {{}} {decay} }} losses"),
    )
    rows, batch, _, _, predictions = _step(wrapper)
    wrapper.model.update_train_metric(predictions, batch)
    found = {name: float(value) for name, value in wrapper.model.compute_train_metric().items()}
    assert list(found) == ["auc_ctr", "mean_squared_error_watch"]
    mse = mean_squared_error(rows["watch"], predictions["y_watch"])
    assert found["mean_squared_error_watch"] == pytest.approx(mse, rel=1e-5)
    auc = roc_auc_score(rows["clk"], predictions["probs_ctr"])
    assert found["auc_ctr"] == pytest.approx(auc, abs=0.02)
    assert set(wrapper.model.train_metric_state()) == set(found)


# --- what surrounds it -------------------------------------------------------------------------


def test_penalties_join_the_losses():
    dropout = "variational_dropout { regularization_lambda: 0.3 }"
    _, _, _, losses, _ = _step(_wrapper(_ctr(), more=dropout))
    assert list(losses) == ["binary_cross_entropy_ctr", "all_feature_p_loss"]


def test_a_model_without_labels_predicts():
    model = make_model(_text(_ctr(), WATCH), labels=[])
    batch = make_batch(model.features, make_rows(3), labels=[], weights=[])
    assert list(model.predict(batch)) == ["logits_ctr", "probs_ctr", "y_watch"]


@pytest.mark.parametrize(
    ("towers", "message"),
    [
        ((), "SimpleMultiTask has no task"),
        ((_ctr(), _ctr()), "two towers are called 'ctr'"),
        ((_ctr().replace('"ctr"', '"c.tr"'),), "tower_name 'c.tr' becomes part"),
        ((_ctr().replace('"ctr"', '"keys"'),), "name of a method of torch"),
        (
            (_ctr().replace('"clk"', '"click"'),),
            "learns from 'click', which is not in label_fields",
        ),
        ((_ctr('task_space_indicator_label: "knd"'),), "did you mean 'kind'"),
        ((_ctr('sample_weight_name: "w"'),), "weighs by 'w', which is not in sample_weight_fields"),
        ((_ctr("num_class: 2"),), "binary_cross_entropy needs num_class 1, but it is 2"),
        ((_ctr(losses=BCE * 2),), "loss binary_cross_entropy_ctr is given twice"),
        ((_ctr("metrics { auc {} }" * 2),), "metric auc_ctr is given twice"),
        ((_ctr("metrics { mean_squared_error {} }"),), "mean_squared_error needs a loss"),
    ],
)
def test_refused(towers, message):
    with pytest.raises(ConfigError, match=message):
        _wrapper(*towers)


def test_the_config_of_a_model_is_left_alone():
    text = _text(_ctr("weight: 0.5"), WATCH)
    model = make_model(text, labels=LABELS)
    assert model._base_model_config == text_format.Parse(text, ModelConfig())


class OneLayer(MultiTaskRank):
    """A model outside the package: its towers come from its own parameters."""

    @dataclasses.dataclass
    class Config:
        weights: list[float]

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.init_input()
        dim = self.embedding_group.group_total_dim(self.first_group)
        self.task_towers = self._make_task_towers([dim] * 2)

    def _task_configs(self):
        towers = []
        for label, weight in zip(("clk", "kind"), self._model_config.weights, strict=True):
            text = f'tower_name: "{label}" label_name: "{label}" weight: {weight}'
            loss = (
                "losses { binary_cross_entropy {} }" if label == "clk" else "losses { l2_loss {} }"
            )
            towers.append(text_format.Parse(f"{text} {loss}", TaskTower()))
        return towers

    def predict(self, batch):
        return self._towers_to_prediction([self.build_input(batch)[self.first_group]] * 2)


def test_a_model_of_ones_own():
    params = 'fields { key: "weights" value { list_value { values { number_value: 1 } '
    params += "values { number_value: 0.5 } } } }"
    text = GROUP + f"custom_model {{ class_path: '{__name__}.OneLayer' params {{ {params} }} }}"
    wrapper = TrainWrapper(make_model(text, labels=LABELS))
    rows, _, _, losses, predictions = _step(wrapper)
    assert list(predictions) == ["logits_clk", "probs_clk", "y_kind"]
    expected = 0.5 * ((predictions["y_kind"].numpy() - np.array(rows["kind"])) ** 2).mean()
    assert float(losses["l2_loss_kind"]) == pytest.approx(expected, rel=1e-5)
