"""Feature selection and importance on a click log where it is known which columns matter."""

import csv
import math

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from match_jobs import write_job
from PIL import Image

from tzrec.cli import main
from tzrec.config import prepare
from tzrec.main import evaluate, train_and_evaluate
from tzrec.tools import feature_importance, feature_selection
from tzrec.tools.importance_files import draw_bars
from tzrec.training.checkpoint.find import list_checkpoints
from tzrec.training.permutation import Importance

DROPOUT = "variational_dropout { regularization_lambda: 0.5 }\n  losses {"


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def is_picture(path):
    with Image.open(path) as picture:
        picture.verify()
        return picture.format == "PNG"


@pytest.fixture(scope="module")
def with_dropout(tmp_path_factory, click_files):
    root = tmp_path_factory.mktemp("dropout")
    path = click_files(root, "adagrad_optimizer")
    path.write_text(path.read_text().replace("losses {", DROPOUT, 1))
    train_and_evaluate(str(path), edits=["train_config.num_epochs=1"])
    return path


def stored_probabilities(root):
    from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys

    key = "model.group_variational_dropouts.deep.feature_p"
    state = _load_state_dict_from_keys(
        {key}, checkpoint_id=str(list_checkpoints(root / "run")[-1] / "model")
    )
    values = state
    for part in key.split(".") if key not in state else [key]:
        values = values[part]
    names = ["user_id", "item_id", "tags", "price"]
    return {n: 1 / (1 + math.exp(-p)) for n, p in zip(names, values.tolist(), strict=True)}


def run_selection(path, out, *flags):
    arguments = ["--pipeline_config_path", str(path), "--output_dir", str(out), *flags]
    return feature_selection.main(arguments)


def test_the_features_least_dropped_stay(with_dropout, tmp_path):
    assert run_selection(with_dropout, tmp_path, "--topk", "2", "--visualize") == 0
    expected = sorted(stored_probabilities(with_dropout.parent).items(), key=lambda one: one[1])
    found = table(tmp_path / "feature_dropout_ratio_deep.csv")
    assert [row["feature_name"] for row in found] == [name for name, _ in expected]
    for row, (_, probability) in zip(found, expected, strict=True):
        assert float(row["mean_drop_p"]) == pytest.approx(probability, rel=1e-6)
    assert is_picture(tmp_path / "feature_dropout_ratio_deep.png")
    assert not (tmp_path / "feature_dropout_ratio_seq.csv").exists()
    config = prepare(str(tmp_path / "click.config")).config
    groups = {g.group_name: list(g.feature_names) for g in config.model_config.feature_groups}
    kept = {name for name, _ in expected[:2]}
    assert set(groups["deep"]) == kept
    assert groups["seq"] == ["item_id", "price", "click__item_id", "click__price"]
    names = {
        f.id_feature.feature_name or f.raw_feature.feature_name for f in config.feature_configs
    }
    assert names == kept | {"item_id", "price", ""}  # "" is the sequence
    assert config.model_config.HasField("variational_dropout")


def test_the_new_config_trains(with_dropout, tmp_path):
    flags = ["--topk", "2", "--clear_variational_dropout"]
    assert run_selection(with_dropout, tmp_path, *flags) == 0
    path = tmp_path / "click.config"
    assert not prepare(str(path)).config.model_config.HasField("variational_dropout")
    train_and_evaluate(
        str(path),
        edits=[
            "train_config.num_steps=3",
            "train_config.num_epochs=0",
            f"model_dir={tmp_path}/run",
        ],
    )
    assert list_checkpoints(tmp_path / "run")


def test_wrong_use_is_told(with_dropout, tmp_path, click_config, capsys):
    assert run_selection(click_config(), tmp_path / "out") == 2
    assert "no variational_dropout" in capsys.readouterr().err
    assert run_selection(with_dropout, tmp_path, "--topk", "0") == 2
    assert "--topk is 0" in capsys.readouterr().err
    assert run_selection(with_dropout, tmp_path, "--model_dir", str(tmp_path / "none")) == 4


def test_the_config_itself_is_not_overwritten(with_dropout, capsys):
    before = with_dropout.read_text()
    assert run_selection(with_dropout, with_dropout.parent / "." / "run" / "..") == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert with_dropout.read_text() == before


def test_other_groups_than_trained_are_refused(with_dropout, tmp_path, capsys):
    path = tmp_path / "other.config"
    path.write_text(with_dropout.read_text().replace('"tags", "price"]', '"tags"]', 1))
    assert run_selection(path, tmp_path / "out") == 4
    assert "3 entries of group 'deep'" in capsys.readouterr().err


def test_importance_names_the_columns_that_make_the_clicks(click_config, tmp_path):
    path = click_config("adagrad_optimizer")
    train_and_evaluate(str(path), edits=["train_config.save_checkpoints_steps=100"])
    out = tmp_path / "importance"
    flags = ["--out", str(out), "--repeats", "2", "--rows", "400"]
    assert main(["importance", str(path), *flags]) == 0
    found = {row["feature"]: row for row in table(out / "importance.csv")}
    assert set(found) == {"user_id", "item_id", "tags", "price", "click"}
    assert list(found)[:2] in (["user_id", "item_id"], ["item_id", "user_id"])
    worse = [float(row["worse"]) for row in found.values()]
    assert worse == sorted(worse, reverse=True)
    assert worse[1] > 0.05
    for row in found.values():
        assert float(row["worse"]) == pytest.approx(-float(row["auc_change"]), abs=1e-9)
    assert is_picture(out / "importance.png")


def test_importance_in_losses_orders_the_other_way_round(click_config, tmp_path):
    path = click_config("adagrad_optimizer")
    train_and_evaluate(str(path), edits=["train_config.save_checkpoints_steps=100"])
    out = tmp_path / "importance"
    arguments = ["importance", str(path), "--out", str(out), "--repeats", "1"]
    assert main([*arguments, "--metric", "binary_cross_entropy"]) == 0
    rows = table(out / "importance.csv")
    assert float(rows[0]["binary_cross_entropy_change"]) > 0.05
    assert rows[0]["feature"] in ("user_id", "item_id")
    assert main([*arguments, "--metric", "aucc"]) == 2
    assert main([*arguments, "--rows", "0"]) == 2
    assert evaluate(str(path))["auc"] > 0.7


def test_importance_of_rows_that_tell_nothing_is_told(click_config, tmp_path, capsys):
    path = click_config("adagrad_optimizer")
    edits = ["train_config.num_steps=2", "train_config.num_epochs=0"]
    train_and_evaluate(str(path), edits=edits)
    rows = pq.read_table(path.parent / "eval.parquet")
    pq.write_table(rows.filter(pc.equal(rows["clk"], 1)), tmp_path / "clicked.parquet")
    arguments = ["--eval-input-path", str(tmp_path / "clicked.parquet"), "--repeats", "1"]
    assert main(["importance", str(path), "--out", str(tmp_path / "out"), *arguments]) == 0
    told = capsys.readouterr().err
    assert "shuffling never changes auc" in told
    assert "0.000000 ±" not in told  # one repeat has no spread


def test_the_first_metric_of_the_config_orders():
    known = {"auc_ctr": "auc", "bce_ctr": "binary_cross_entropy", "auc_buy": "auc"}
    assert feature_importance._choose(None, known) == "auc_ctr"
    losses = {"binary_cross_entropy_b": "binary_cross_entropy", "l2_loss_a": "l2_loss"}
    assert feature_importance._choose(None, losses) == "binary_cross_entropy_b"


def test_the_spread_is_the_standard_deviation():
    one = Importance("price", {"auc": [-0.2, -0.4, -0.3]})
    mean, spread = feature_importance._worse(one, "auc", -1.0)
    assert (mean, spread) == (pytest.approx(0.3), pytest.approx(0.1))
    assert feature_importance._worse(Importance("a", {"auc": [0.5]}), "auc", 1.0) == (0.5, 0.0)


def test_a_picture_of_many_and_strange_names(tmp_path):
    names = ["a$b$", "<i>$x_{", *(f"feature_{index}" for index in range(4000))]
    path = tmp_path / "bars.png"
    values = [(name, 1.0) for name in names]
    draw_bars(str(path), values, label="worse", errors=[0.1] * len(values))
    with Image.open(path) as picture:
        assert picture.height < 10_000


def test_towers_of_a_match_model(tmp_path):
    path = write_job(tmp_path)
    text = path.read_text().replace("losses {", "variational_dropout {} losses {", 1)
    path.write_text(text.replace("num_epochs: 8", "num_epochs: 1"))
    train_and_evaluate(str(path))
    assert run_selection(path, tmp_path / "out", "--topk", "1") == 0
    for group, names in (("user", {"user_id", "likes", "age"}), ("item", {"item_id", "price"})):
        rows = table(tmp_path / "out" / f"feature_dropout_ratio_{group}.csv")
        assert {row["feature_name"] for row in rows} == names
    groups = prepare(str(tmp_path / "out" / "job.config")).config.model_config.feature_groups
    assert [len(group.feature_names) for group in groups] == [1, 1]
