"""A raw feed from training to serving: the same features, and the same scores, everywhere."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from feed_data import FEED, feed_table, write_tokenizer

from tzrec.cli import main
from tzrec.config import load_pipeline_config, prepare
from tzrec.constant import Mode
from tzrec.datasets.dataset import create_dataloader
from tzrec.demo.clicklog import exact_auc
from tzrec.deploy import Predictor, artefact
from tzrec.errors import CheckpointError, DataError, FeatureError, ServingError
from tzrec.fg import FgHandler
from tzrec.main import evaluate, export, predict, predict_checkpoint, train_and_evaluate
from tzrec.training.build import build_features

TRAIN, EVAL = 1280, 500
KEEP = {"reserved_columns": "row", "output_columns": "probs"}
EDITS = (
    "train_config.num_epochs=1",
    "train_config.log_step_count_steps=1000",
    "train_config.use_tensorboard=false",
    "data_config.batch_size=128",
    "data_config.loader=THREAD",
)


def train(root, *edits, **options):
    train_and_evaluate(
        str(FEED),
        train_input_path=str(root / "train.parquet"),
        eval_input_path=str(root / "eval.parquet"),
        edits=(*EDITS, *edits),
        **{"model_dir": str(root / "run"), **options},
    )


def scores_of(path):
    table = pq.read_table(path)
    assert table["row"].to_pylist() == list(range(TRAIN, TRAIN + EVAL))
    return table["probs"].to_numpy()


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A finished run, its export and the export's predictor."""
    root = tmp_path_factory.mktemp("feed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        write_tokenizer(root)
        pq.write_table(feed_table(0, TRAIN), root / "train.parquet")
        rows = feed_table(TRAIN, TRAIN + EVAL)
        pq.write_table(rows, root / "eval.parquet")
        train(root)
        config = str(root / "run" / "pipeline.config")
        path = export(config, str(root / "export"))
        made = SimpleNamespace(root=root, rows=rows, config=config, path=path)
        made.predictor = Predictor.load(path)
        made.columns = rows.select(made.predictor.input_columns)
        yield made
        torch.set_num_threads(threads)


def test_evaluation_checkpoint_and_export_agree(job):
    root, source = job.root, str(job.root / "eval.parquet")
    auc = evaluate(job.config, eval_input_path=source)["auc"]
    predict_checkpoint(job.config, source, str(root / "eager"), **KEEP)
    predict(source, str(root / "scripted"), str(job.path), **KEEP)
    eager, scripted = scores_of(root / "eager"), scores_of(root / "scripted")
    np.testing.assert_allclose(scripted, eager, rtol=0, atol=1e-6)
    assert exact_auc(job.rows["clicked"].to_numpy(), eager) == pytest.approx(auc, abs=5e-3)
    # Rows of a service, in any form, give the scores of the table, bit by bit.
    served = job.predictor.predict(job.rows)["probs"]
    np.testing.assert_array_equal(served, scripted)
    forms = {
        "dict": job.columns.to_pydict(),
        "pandas": job.columns.to_pandas(),
        "JSON": json.loads(json.dumps(json_rows(job.columns))),
    }
    for form, rows in forms.items():
        found = job.predictor.predict(rows)["probs"]
        np.testing.assert_array_equal(found, scripted, err_msg=form)


def json_rows(table):
    """Columns as JSON has them: a map is an object."""
    columns = table.to_pydict()
    columns["category_clicks"] = [row and dict(row) for row in columns["category_clicks"]]
    return columns


def test_features_of_a_service_are_those_of_training(job):
    config = prepare(job.config, edits=EDITS).config
    features = build_features(config.data_config, config.feature_configs)
    with create_dataloader(
        config.data_config, features, str(job.root / "eval.parquet"), mode=Mode.EVAL
    ) as loader:
        trained = next(iter(loader)).to_dict(sparse_dtype=torch.int64)
    served = job.predictor.parse(json_rows(job.columns))
    assert {key.partition(".")[0] for key in served} == {f.name for f in features}
    for key, value in served.items():
        assert torch.equal(trained[key].to(value.dtype), value), key
    handler = FgHandler.load(str(job.path))
    columns = {name: job.columns[name].combine_chunks() for name in job.columns.column_names}
    for name, found in handler.process_arrow(columns).items():
        np.testing.assert_array_equal(found.values, served[f"{name}.values"], err_msg=name)


def test_one_row_and_missing_values(job):
    rows = json_rows(job.columns.slice(7, 1))
    wanted = job.predictor.predict(job.columns.slice(7, 1))["probs"]
    np.testing.assert_array_equal(job.predictor.predict(rows)["probs"], wanted)
    nothing = job.predictor.predict({name: [None] for name in job.predictor.input_columns})
    assert np.isfinite(nothing["probs"]).all()
    typed = job.columns.slice(0, 0).schema.empty_table()
    assert job.predictor.predict(typed)["probs"].shape == (0,)
    # Doubles and whole numbers where training had floats and ints, and the other way round.
    rows["price"] = [20]
    rows["hour"] = [float(rows["hour"][0])]
    whole = job.predictor.predict({**rows, "price": [20.0], "hour": [int(rows["hour"][0])]})
    np.testing.assert_array_equal(job.predictor.predict(rows)["probs"], whole["probs"])


def test_a_bad_value_of_a_service_is_named(job):
    rows = json_rows(job.columns.slice(0, 2))
    with pytest.raises(FeatureError, match=r"feature log_price of price: .*'dear' in row 1"):
        job.predictor.predict({**rows, "price": ["3", "dear"]})
    with pytest.raises(DataError, match="rows lack the columns title; did you mean 'titel'"):
        job.predictor.predict({("titel" if k == "title" else k): v for k, v in rows.items()})


def test_the_export_is_all_that_serving_needs(job, tmp_path, monkeypatch):
    moved = shutil.copytree(job.path, tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    found = Predictor.load(moved).predict(job.rows)["probs"]
    np.testing.assert_array_equal(found, job.predictor.predict(job.rows)["probs"])
    names = {path.name for path in moved.iterdir()}
    assert {"fg.json", "golden_rows.parquet"} <= names
    (tokenizer,) = [name for name in names if name.startswith("tokenizer_")]
    config = load_pipeline_config(moved / "pipeline.config")
    stored = [f.tokenize_feature for f in config.feature_configs if f.HasField("tokenize_feature")]
    assert [feature.vocab_file for feature in stored] == [tokenizer]
    entries = json.loads((moved / "fg.json").read_text())["features"]
    assert [e["vocab_file"] for e in entries if "vocab_file" in e] == [tokenizer]
    stored = pq.read_schema(moved / "golden_rows.parquet")
    assert set(stored.names) == set(job.predictor.input_columns)
    assert all(stored.field(name).type == job.rows.schema.field(name).type for name in ("price",))


def test_other_features_than_those_of_the_export_are_refused(job, tmp_path):
    """As they would be with another hash or tokenizer."""
    moved = shutil.copytree(job.path, tmp_path / "moved")
    manifest = json.loads((moved / artefact.MANIFEST).read_text())
    (moved / artefact.MANIFEST).write_text(json.dumps({**manifest, "farm_hash": True}))
    with pytest.raises(ServingError, match=r"feature 'user_id' of the golden rows becomes"):
        Predictor.load(moved)


def test_the_hash_goes_with_checkpoint_and_export(job, tmp_path, monkeypatch):
    monkeypatch.chdir(job.root)
    monkeypatch.setenv("USE_FARM_HASH_TO_BUCKETIZE", "true")
    steps = ("train_config.num_epochs=0", "train_config.num_steps=2")
    train(job.root, *steps, model_dir=str(tmp_path / "run"))
    config = str(tmp_path / "run" / "pipeline.config")
    path = export(config, str(tmp_path / "export"))
    wanted = Predictor.load(path).parse(job.rows)
    monkeypatch.delenv("USE_FARM_HASH_TO_BUCKETIZE")
    found = Predictor.load(path).parse(job.rows)
    assert all(torch.equal(found[key], value) for key, value in wanted.items())
    other = job.predictor.parse(job.rows)
    assert not torch.equal(other["user_id.values"], wanted["user_id.values"])
    more = (steps[0], "train_config.num_steps=4")
    with pytest.raises(CheckpointError, match="hash farm_fingerprint64 → murmur_hash64a"):
        train(job.root, *more, model_dir=str(tmp_path / "run"), continue_train=True)


def test_a_run_goes_on_as_if_it_had_not_stopped(job, tmp_path, monkeypatch):
    monkeypatch.chdir(job.root)
    edits = ("train_config.num_epochs=0", "data_config.shuffle=true")
    source = str(job.root / "eval.parquet")
    for name, parts in (("whole", [13]), ("parts", [5, 13])):
        for number, steps in enumerate(parts):
            train(
                job.root,
                *edits,
                f"train_config.num_steps={steps}",
                model_dir=str(tmp_path / name),
                continue_train=number > 0,
            )
        config = str(tmp_path / name / "pipeline.config")
        predict_checkpoint(config, source, str(tmp_path / f"{name}_scores"), **KEEP)
    whole, parts = (scores_of(tmp_path / f"{name}_scores") for name in ("whole", "parts"))
    np.testing.assert_array_equal(whole, parts)


def test_features_made_offline_give_the_same_scores(job, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(job.root)
    out = tmp_path / "values"
    arguments = ["--data", "eval.parquet", "--out", str(out), "--workers", "1", "--reserve", "row"]
    assert main(["fg", str(FEED), *arguments]) == 0
    edits = ("data_config.fg_mode=FG_NONE",)
    predict_checkpoint(job.config, str(out), str(tmp_path / "encoded"), edits=edits, **KEEP)
    predict_checkpoint(job.config, "eval.parquet", str(tmp_path / "raw"), **KEEP)
    np.testing.assert_array_equal(scores_of(tmp_path / "encoded"), scores_of(tmp_path / "raw"))


def test_the_demo_writes_what_the_example_reads(tmp_path, monkeypatch, capsys):
    from tzrec.demo.clicklog import Shop, write_click_log

    monkeypatch.chdir(tmp_path)
    shop = Shop(num_users=40, num_items=30, num_rounds=(3, 2, 1))
    write_click_log(tmp_path / "experiments" / "demo" / "data", shop)
    assert main(["check", str(FEED), "--data"]) == 0
    assert "warning" not in capsys.readouterr().out
