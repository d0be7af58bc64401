"""The demo from nothing to predictions."""

import argparse
import json
from importlib import resources
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tzrec.config import prepare
from tzrec.demo.clicklog import Shop, write_click_log
from tzrec.demo.run import DEFAULT_DIR, Demo, add_arguments, run
from tzrec.errors import ConfigError


def parse(*arguments):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


def test_defaults():
    args = parse()
    assert args.dir == DEFAULT_DIR
    assert args.quick is False


def test_the_shipped_config_is_valid_and_fits_the_shop(tmp_path):
    path = tmp_path / "demo.config"
    path.write_text(resources.files("tzrec.demo").joinpath("demo.config").read_text())
    config = prepare(str(path)).config
    shop = Shop()
    sizes = {
        f.id_feature.feature_name: f.id_feature.num_buckets
        for f in config.feature_configs
        if f.WhichOneof("feature") == "id_feature"
    }
    assert sizes == {
        "user_id": shop.num_users,
        "segment": shop.num_segments,
        "item_id": shop.num_items,
        "category": shop.num_categories,
        "hour": 24,
    }
    (history,) = [
        f.sequence_feature
        for f in config.feature_configs
        if f.WhichOneof("feature") == "sequence_feature"
    ]
    assert history.sequence_length == shop.max_history
    log = write_click_log(tmp_path, Shop(num_rounds=(1, 1, 1)))
    columns = pq.read_schema(log.paths["train"]).names
    assert {*sizes, "log_price", "history__category", "clicked"} <= set(columns)


def test_paths_of_the_config_follow_the_directory(tmp_path):
    demo = Demo(tmp_path / "here", Shop(num_users=20, num_items=20, num_rounds=(2, 1, 1)))
    demo.make_data()
    config = prepare(str(demo.config)).config
    assert config.train_input_path == str(tmp_path / "here" / "data" / "train.parquet")
    assert config.model_dir == str(tmp_path / "here" / "model")


def test_what_no_demo_has_made_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="no demo has made it"):
        run(parse("--dir", str(tmp_path)))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(ConfigError, match="no demo has made it"):
        run(parse("--dir", str(tmp_path / "thesis.txt")))


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo") / "quick"
    assert run(parse("--dir", str(root), "--quick")) == 0
    return root


def test_quick_demo_leaves_everything_behind(quick):
    facts = json.loads((quick / "demo.json").read_text())
    assert 0.6 < facts["auc"] < facts["bayes_auc"]
    assert facts["auc"] == pytest.approx(facts["eval_auc"], abs=0.005)  # binned against exact
    predictions = pq.read_table(quick / "predictions")
    assert predictions.column_names == ["probs", "user_id", "item_id", "clicked"]
    assert predictions.num_rows == facts["rows"]["test"]
    assert predictions["user_id"] == pq.read_table(quick / "data" / "test.parquet")["user_id"]
    assert (quick / "export" / "scripted_model.pt").exists()
    assert list((quick / "model").glob("model.ckpt-*"))


def test_a_demo_can_be_made_anew(quick, capsys):
    first = json.loads((quick / "demo.json").read_text())
    run(parse("--dir", str(quick), "--quick"))
    again = json.loads((quick / "demo.json").read_text())
    del first["seconds"], again["seconds"]
    assert again == first
    out = capsys.readouterr().out
    assert f"{again['bayes_auc']:.4f}" in out
    assert f"{again['auc']:.4f}" in out
    assert "Try next" in out


@pytest.mark.slow
def test_the_model_comes_near_the_best_possible(tmp_path):
    run(parse("--dir", str(tmp_path / "demo")))
    facts = json.loads((tmp_path / "demo" / "demo.json").read_text())
    assert facts["auc"] > facts["bayes_auc"] - 0.01
    assert facts["seconds"] < 300


@pytest.mark.slow
def test_a_model_of_the_raw_columns_is_as_good(tmp_path, monkeypatch):
    """examples/feed_fg_dag.config, as its header says; 288,000 rows."""
    from tzrec.main import evaluate, train_and_evaluate

    monkeypatch.chdir(tmp_path)
    example = Path(__file__).resolve().parents[2] / "examples" / "feed_fg_dag.config"
    log = write_click_log(tmp_path / "experiments" / "demo" / "data")
    train_and_evaluate(str(example))
    auc = evaluate(str(example), eval_input_path=str(log.paths["test"]))["auc"]
    assert auc > log.bayes_auc - 0.01
