"""A multi-task config through the public functions: results, watchers, export, check."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click_log import click_table
from sklearn.metrics import roc_auc_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tzrec.cli import main
from tzrec.errors import DataError
from tzrec.main import evaluate, export, predict, train_and_evaluate
from tzrec.training.checkpoint.find import list_checkpoints, read_results

TOWERS = """
    task_towers {
      tower_name: "ctr" label_name: "clk" mlp { hidden_units: 16 }
      losses { binary_cross_entropy {} }
      metrics { auc {} } metrics { grouped_auc { grouping_key: "user_id" } }
      train_metrics { auc {} decay_step: 3 }
    }
    task_towers {
      tower_name: "cvr" label_name: "buy" mlp { hidden_units: 16 }
      losses { binary_cross_entropy {} }
      metrics { auc {} }
      task_space_indicator_label: "clk" out_task_space_weight: 0 weight: 0.5
    }
    task_towers {
      tower_name: "stay" label_name: "stay" sample_weight_name: "w"
      losses { l2_loss {} } metrics { mean_squared_error {} }
    }
"""
MMOE = f"""model_config {{
  feature_groups {{
    group_name: "deep" feature_names: ["user_id", "item_id", "tags", "price"] group_type: DEEP
    sequence_groups {{ group_name: "seq" feature_names: ["item_id", "click__item_id"] }}
    sequence_encoders {{ din_encoder {{ input: "seq" attn_mlp {{ hidden_units: 8 }} }} }}
  }}
  mmoe {{ expert_mlp {{ hidden_units: [16, 16] }} num_expert: 2 {TOWERS} }}
}}
"""
LABELS = 'label_fields: ["clk", "buy", "stay"] sample_weight_fields: "w"'
METRICS = ["auc_ctr", "grouped_auc_ctr", "auc_cvr", "mean_squared_error_stay"]
LOSSES = ["binary_cross_entropy_ctr", "binary_cross_entropy_cvr", "l2_loss_stay"]


def _table(num_rows, seed):
    table = click_table(num_rows, seed)
    rng = np.random.default_rng(seed + 10)
    click, price = (table[name].to_numpy() for name in ("clk", "price"))
    buy = (click > 0) & (rng.random(num_rows) < 1 - price)
    columns = {
        "buy": buy.astype(np.int64),
        "stay": (2 * price + rng.normal(size=num_rows) / 10).astype(np.float32),
        "w": rng.random(num_rows).astype(np.float32),
    }
    for name, column in columns.items():
        table = table.append_column(name, pa.array(column))
    return table


def _replace(root, name, values):
    table = _table(1000, 1)
    index = table.column_names.index(name)
    pq.write_table(table.set_column(index, name, pa.array(values)), root / "train.parquet")


@pytest.fixture
def config(click_config, tmp_path):
    path = click_config()
    text = path.read_text().replace('label_fields: "clk"', LABELS)
    text = text.replace("use_tensorboard: false", "use_tensorboard: true mixed_precision: 'FP32'")
    path.write_text(text[: text.index("model_config {")] + MMOE)
    pq.write_table(_table(1000, 1), tmp_path / "train.parquet")
    pq.write_table(_table(500, 2), tmp_path / "eval.parquet")
    return str(path)


def test_from_training_to_predictions(config, tmp_path, caplog):
    train_and_evaluate(config, edits=["train_config.save_checkpoints_steps=16"])
    run = tmp_path / "run"
    results = read_results(run)
    assert set(results[-1]) == {"global_step", *METRICS, *LOSSES}
    for name in ("auc_ctr", "auc_cvr"):
        assert results[-1][name] > 0.6, name
    assert results[-1]["mean_squared_error_stay"] < results[0]["mean_squared_error_stay"]
    found = evaluate(str(run / "pipeline.config"))
    for name in (*METRICS, *LOSSES):
        assert found[name] == pytest.approx(results[-1][name], abs=1e-6), name

    events = EventAccumulator(str(run))
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    assert {f"loss/{name}" for name in LOSSES} <= scalars
    assert "metric/auc_ctr" in scalars  # while training
    measured = EventAccumulator(str(run / "eval_val"))
    measured.Reload()
    assert set(measured.Tags()["scalars"]) == {f"metric/{name}" for name in (*METRICS, *LOSSES)}

    export(config, str(tmp_path / "export"))
    predict(
        str(tmp_path / "eval.parquet"),
        str(tmp_path / "scores"),
        str(tmp_path / "export"),
        reserved_columns="clk,row",
    )
    scores = pq.read_table(tmp_path / "scores" / "part-0.parquet")
    names = {"logits_ctr", "probs_ctr", "logits_cvr", "probs_cvr", "y_stay"}
    assert set(scores.column_names) == {*names, "clk", "row"}
    auc = roc_auc_score(scores["clk"], scores["probs_ctr"])
    assert auc == pytest.approx(results[-1]["auc_ctr"], abs=5e-3)


def test_metrics_of_tasks_are_watched(config, tmp_path):
    """Early stop, the plateau schedule and the best checkpoint take their names."""
    edits = [
        "train_config.early_stop.metric=auc_ctr",
        "train_config.early_stop.patience=1",
        "train_config.early_stop.min_delta=0.5",
        "export_config.exporter_type=best",
        "export_config.best_exporter_metric=mean_squared_error_stay",
        "export_config.metric_larger_is_better=false",
        "train_config.save_checkpoints_steps=2",
    ]
    train_and_evaluate(config, edits=edits)
    results = read_results(tmp_path / "run")
    assert len(results) == 2  # the first evaluation, and one without half a point more
    best = min(results, key=lambda result: result["mean_squared_error_stay"])
    export(config, str(tmp_path / "export"), edits=edits)
    steps = [checkpoint.name for checkpoint in list_checkpoints(tmp_path / "run")]
    assert f"model.ckpt-{int(best['global_step'])}" in steps


def test_pareto_weights_train(config, tmp_path):
    train_and_evaluate(
        config,
        edits=[
            "model_config.use_pareto_loss_weight=true",
            "model_config.mmoe.task_towers[1].pareto_min_loss_weight=0.3",
            "train_config.save_checkpoints_steps=100",
        ],
    )
    (results,) = read_results(tmp_path / "run")
    assert results["auc_ctr"] > 0.7


def test_check_shows_the_tasks_and_looks_at_their_labels(config, tmp_path, capsys):
    assert main(["check", config, "--data"]) == 0
    said = capsys.readouterr().out
    assert f"MMoE: {', '.join(LOSSES)}" in said
    assert ", ".join(METRICS) in said
    # A column that says nothing, and one that does not fit the loss of its tower.
    _replace(tmp_path, "buy", np.ones(1000, np.int64))
    assert main(["check", config, "--data"]) == 0
    assert "label column 'buy' is always 1" in capsys.readouterr().out
    _replace(tmp_path, "buy", np.full(1000, 2))
    assert main(["check", config, "--data"]) != 0
    loss = "the loss of model_config.mmoe.task_towers[1] takes 0 to 1"
    assert f"holds values from 2 to 2, but {loss}" in "".join(capsys.readouterr())


def test_a_wrong_label_in_the_data_names_row_and_column(config, tmp_path):
    values = _table(1000, 1)["buy"].to_numpy().copy()
    values[700] = 5
    _replace(tmp_path, "buy", values)
    with pytest.raises(DataError, match=r"label 'buy' is 5 in row \d+") as caught:
        train_and_evaluate(config)
    assert "train.parquet: row 700" in str(caught.value)
