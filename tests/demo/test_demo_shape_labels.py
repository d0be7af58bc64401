"""Labels of generated rows: one for every loss, several tasks, domains, sessions."""

import numpy as np
import pytest
from google.protobuf import text_format
from sklearn.metrics import roc_auc_score

from tzrec.demo.shape.shape import Shape
from tzrec.protos.pipeline_pb2 import EasyRecConfig

CONFIG = """
train_input_path: "a" eval_input_path: "b" model_dir: "c"
data_config {{ dataset_type: ParquetDataset fg_mode: FG_NONE label_fields: [{labels}] }}
feature_configs {{ id_feature {{
  feature_name: "user" expression: "user:user" embedding_dim: 4 num_buckets: 500 }} }}
feature_configs {{ id_feature {{
  feature_name: "item" expression: "item:item" embedding_dim: 4 num_buckets: 50 }} }}
feature_configs {{ id_feature {{
  feature_name: "scene" expression: "context:scene" embedding_dim: 4 num_buckets: 4 }} }}
feature_configs {{ raw_feature {{ feature_name: "price" expression: "item:price" }} }}
model_config {{
  feature_groups {{
    group_name: "all" feature_names: ["user", "item", "price"] group_type: DEEP
  }}
  {model}
}}
"""


def shape(labels, model):
    labels = ", ".join(f'"{label}"' for label in labels.split())
    return Shape(text_format.Parse(CONFIG.format(labels=labels, model=model), EasyRecConfig()))


def tower(name, label, loss="binary_cross_entropy {}", more=""):
    return (
        f'task_towers {{ tower_name: "{name}" label_name: "{label}" losses {{ {loss} }} {more} }}'
    )


@pytest.mark.parametrize("loss", ["binary_cross_entropy {}", "binary_focal_loss {}"])
def test_binary_losses_get_zeros_and_ones(loss):
    table = shape("clk", f"losses {{ {loss} }}").table(4000)
    assert set(table["clk"].to_pylist()) == {0, 1}
    assert 0.4 < np.mean(table["clk"]) < 0.6
    assert 0.8 < roc_auc_score(table["clk"], table["probability"]) < 0.95


def test_softmax_gets_classes_of_equal_size():
    table = shape("clk", "num_class: 4 losses { softmax_cross_entropy {} }").table(8000)
    assert np.bincount(table["clk"]) / 8000 == pytest.approx([0.25] * 4, abs=0.04)
    assert "probability" not in table.column_names
    two = shape("clk", "num_class: 2 losses { softmax_cross_entropy {} }").table(50)
    assert set(two["clk"].to_pylist()) == {0, 1}


def test_regression_gets_numbers_that_follow_the_features():
    table = shape("score", "losses { l2_loss {} }").table(6000)
    score = table["score"].to_numpy()
    assert score.dtype == np.float32
    users = np.eye(500)[table["user"].to_numpy()]
    items = np.eye(50)[table["item"].to_numpy()]
    x = np.hstack([users, items, table["price"].to_numpy()[:, None]])
    found = x @ np.linalg.lstsq(x, score, rcond=None)[0]
    assert np.corrcoef(found, score)[0, 1] ** 2 > 0.6


def test_several_losses_of_one_label_agree_on_what_it_is():
    table = shape("clk", "losses { binary_cross_entropy {} } losses { l2_loss {} }").table(100)
    assert set(table["clk"].to_pylist()) == {0, 1}


def test_who_buys_has_clicked():
    towers = tower("ctr", "clk") + tower("cvr", "buy") + tower("pay", "price", "l2_loss {}")
    table = shape("clk buy paid", f"mmoe {{ expert_mlp {{ hidden_units: 4 }} {towers} }}").table(
        8000
    )
    clicked, bought = table["clk"].to_numpy(), table["buy"].to_numpy()
    assert (bought <= clicked).all()
    assert 0.1 < bought.mean() < clicked.mean() - 0.1
    names = set(table.column_names)
    assert {"probability_clk", "probability_buy", "probability_paid", "paid"} <= names
    for name in ("clk", "buy"):
        assert roc_auc_score(table[name], table[f"probability_{name}"]) > 0.75


def test_towers_of_messages_of_their_own():
    model = (
        'esmm { ctr_tower { tower_name: "ctr" label_name: "clk" losses { binary_cross_entropy {} } '
        '} cvr_tower { tower_name: "cvr" label_name: "buy" losses { binary_cross_entropy {} } } }'
    )
    found = shape("buy clk", model)
    # The order of towers counts, not that of label_fields.
    assert [task.label for task in found.tasks.tasks] == ["clk", "buy"]


def test_domains_have_effects_of_their_own():
    model = (
        'pepnet { domain_input_name: "scene" task_domain_num: 3 '
        + tower("ctr", "clk")
        + tower("cvr", "buy", more='task_space_indicator_label: "clk"')
        + "}"
    )
    table = shape("clk buy scene", model).table(30_000)
    scene = table["scene"].to_numpy()
    # As a feature it could have four values, as a domain it has three.
    assert set(scene.tolist()) == {0, 1, 2}
    by_item = [
        np.bincount(
            table["item"].to_numpy()[scene == i],
            np.log(table["probability_clk"].to_numpy()[scene == i]),
            50,
        )
        / np.maximum(np.bincount(table["item"].to_numpy()[scene == i], minlength=50), 1)
        for i in range(3)
    ]
    alike = np.corrcoef([means[:10] for means in by_item])[np.triu_indices(3, 1)]
    assert alike.mean() > 0.2
    assert alike.min() < 0.95


def test_a_domain_that_is_no_feature():
    model = f'pepnet {{ domain_input_name: "shop" task_domain_num: 2 {tower("ctr", "clk")} }}'
    table = shape("clk shop", model).table(500)
    assert set(table["shop"].to_pylist()) == {0, 1}


@pytest.mark.parametrize(
    "model",
    [
        'num_class: 2 losses { jrc_loss { session_name: "user" } }',
        'losses { binary_cross_entropy {} } metrics { grouped_auc { grouping_key: "user" } }',
    ],
)
def test_sessions_have_neighbouring_rows_with_both_labels(model):
    table = shape("clk", model).table(4000)
    users, clicks = table["user"].to_numpy(), table["clk"].to_numpy()
    sessions = users.reshape(-1, 4)
    assert (sessions == sessions[:, :1]).all()
    per_session = clicks.reshape(-1, 4).sum(axis=1)
    assert np.mean((per_session > 0) & (per_session < 4)) > 0.4
    others = shape("clk", "losses { binary_cross_entropy {} }").table(4000)["user"].to_numpy()
    assert not (others.reshape(-1, 4) == others.reshape(-1, 4)[:, :1]).all()


def test_all_labels_and_weights_have_columns():
    found = shape("clk seen", "losses { binary_cross_entropy {} }")
    found._config.data_config.sample_weight_fields.append("weight")
    table = found.table(500)
    assert set(table["seen"].to_pylist()) == {0, 1}
    assert 0.5 <= min(table["weight"].to_pylist()) < max(table["weight"].to_pylist()) <= 1.5
    assert table["weight"].type == "float"
