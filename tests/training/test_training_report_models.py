"""Scores of a report and metrics of the model are of the same rows, for every family of models."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf import text_format

from tzrec.config.specs import METRICS
from tzrec.main import train_and_evaluate
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.training.checkpoint.find import read_results
from tzrec.training.report import run_report
from tzrec.training.report.bins import BinaryScores, ClassScores, NumberScores
from tzrec.training.report.statistics import auc, number_facts
from tzrec.training.report.tasks import Task, larger_is_better, split_name, tasks_of

CONFIG = """
train_input_path: "{root}/rows.parquet"
eval_input_path: "{root}/rows.parquet"
model_dir: "{root}/run"
train_config {{
  sparse_optimizer {{ adagrad_optimizer {{ lr: 0.1 }} constant_learning_rate {{}} }}
  dense_optimizer {{ adam_optimizer {{ lr: 0.03 }} constant_learning_rate {{}} }}
  num_epochs: 1
  use_tensorboard: false
}}
data_config {{
  batch_size: 64 dataset_type: ParquetDataset num_workers: 0
  label_fields: ["clk", "buy", "where", "kind", "price"]
}}
feature_configs {{ id_feature {{ feature_name: "item" num_buckets: 50 embedding_dim: 4 }} }}
feature_configs {{ id_feature {{ feature_name: "user" num_buckets: 50 embedding_dim: 4 }} }}
model_config {{
  feature_groups {{ group_name: "all" feature_names: ["user", "item"] group_type: DEEP }}
  {model}
}}
"""
BCE = "losses { binary_cross_entropy {} } metrics { auc { thresholds: 20000 } }"
CTR = f'tower_name: "ctr" label_name: "clk" {BCE}'
CVR = f'tower_name: "cvr" label_name: "buy" {BCE}'
L2 = "losses { l2_loss {} } metrics { mean_absolute_error {} }"
MODELS = {
    "single": (f"dlrm {{ final {{ hidden_units: 4 }} }} {BCE}", ["auc"]),
    "two_classes": (
        "dlrm { final { hidden_units: 4 } } num_class: 2 "
        "losses { softmax_cross_entropy {} } metrics { auc { thresholds: 20000 } }",
        ["auc"],
    ),
    "light_and_booster": (
        f"""rocket_launching {{ share_mlp {{ hidden_units: 8 }} light_mlp {{ hidden_units: 4 }}
        booster_mlp {{ hidden_units: 8 }} }} {BCE}""",
        ["auc_light", "auc_booster"],
    ),
    "entire_space": (
        f"esmm {{ ctr_tower {{ {CTR} }} cvr_tower {{ {CVR} }} }}",
        ["auc_ctr", "auc_cvr", "auc_ctcvr"],
    ),
    "domains": (
        f"""pepnet {{ epnet_hidden_unit: 4 ppnet_hidden_units: 4 ppnet_dropout_ratio: 0.1
        task_domain_num: 3 domain_input_name: "where"
        task_towers {{ {CTR} }} task_towers {{ {CVR} }} }}""",
        ["auc_ctr", "auc_cvr"],
    ),
    "kinds_of_labels": (
        f"""mmoe {{ expert_mlp {{ hidden_units: 4 }} task_towers {{ {CTR} }}
        task_towers {{ tower_name: "kind" label_name: "kind" num_class: 3
          losses {{ softmax_cross_entropy {{}} }} metrics {{ accuracy {{}} }} }}
        task_towers {{ tower_name: "price" label_name: "price" {L2} }} }}""",
        ["auc_ctr", "accuracy_kind", "mean_absolute_error_price"],
    ),
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A directory with a table of 1000 rows."""
    root = tmp_path_factory.mktemp("rows")
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 50, (2, 1000))
    clicked = rng.uniform(size=1000) < (user % 7 + item % 3) / 10
    columns = {
        "user": user,
        "item": item,
        "clk": clicked.astype(np.float32),
        # Some bought without a click, which ESMM does not count.
        "buy": (rng.uniform(size=1000) < 0.1 + 0.1 * (item % 4)).astype(np.float32),
        "where": rng.integers(0, 3, 1000),
        "kind": (user % 3).astype(np.int64),
        "price": (user / 50 + rng.normal(0, 0.1, 1000)).astype(np.float32),
    }
    pq.write_table(pa.table(columns), root / "rows.parquet")
    return root


def value_of(scores, metric):
    """What the counted scores say a metric is."""
    if metric.startswith("auc"):
        assert isinstance(scores, BinaryScores)
        return auc(scores.bins)[0]
    if metric.startswith("accuracy"):
        assert isinstance(scores, ClassScores)
        return np.trace(scores.confusion) / scores.confusion.sum()
    assert isinstance(scores, NumberScores)
    return number_facts(scores)["mean absolute error"]


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_of_the_rows_of_the_metrics(rows, tmp_path, monkeypatch, caplog, name):
    model, metrics = MODELS[name]
    config = tmp_path / "model.config"
    config.write_text(CONFIG.format(root=rows, model=model))
    pages, render = [], run_report.render
    monkeypatch.setattr(run_report, "render", lambda page: pages.append(page) or render(page))
    train_and_evaluate(str(config), model_dir=str(tmp_path / "run"))
    (page,) = pages
    assert (tmp_path / "run" / "report.html").exists()
    assert "the report" not in caplog.text
    (result,) = read_results(tmp_path / "run")
    assert len(page.scores) == len(metrics)
    for found, metric in zip(page.scores, metrics, strict=True):
        assert value_of(found.scores, metric) == pytest.approx(result[metric], abs=3e-3), metric


def tasks(model):
    text = CONFIG.format(root="x", model=model)
    return tasks_of(text_format.Parse(text, EasyRecConfig()))


def test_tasks_of_a_config():
    assert tasks(MODELS["single"][0]) == [Task("", "", "clk", 1, ("binary",))]
    found = tasks(MODELS["kinds_of_labels"][0])
    assert [task.name for task in found] == ["ctr", "kind", "price"]
    assert [task.kinds for task in found] == [("binary",), ("multiclass",), ("regression",)]
    assert found[1] == Task("kind", "_kind", "kind", 3, ("multiclass",))
    assert {task.domain for task in tasks(MODELS["domains"][0])} == {"where"}


def test_several_losses_of_a_label():
    found = tasks("dlrm {} num_class: 2 losses { softmax_cross_entropy {} } losses { jrc_loss {} }")
    assert found[0].kinds == ("multiclass",)


def test_names_are_split_at_the_task():
    found = [Task(name, f"_{name}", "", 1, ()) for name in ("ctr", "x_ctr")]
    assert split_name("auc_ctr", found) == ("auc", "ctr")
    assert split_name("auc_x_ctr", found) == ("auc", "x_ctr")
    assert split_name("deep_feature_p_loss", found) == ("deep_feature_p_loss", "")


def test_the_better_direction_of_every_metric():
    smaller = {"mean_absolute_error", "mean_squared_error", "normalized_entropy"}
    assert {name for name in METRICS if not larger_is_better(name)} == smaller
    for name in ("binary_cross_entropy", "l2_loss", "deep_feature_p_loss", "hint_loss"):
        assert not larger_is_better(name)
