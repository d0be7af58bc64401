"""Narrow tables in whole models: every kind of group, towers, trees, and what they cost in AUC."""

import json
from pathlib import Path

import match_jobs
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from deploy_jobs import make_rows, write_config
from example_configs import CONFIGS, DEMO, ROOT, commands, stem
from feed_data import FEED, feed_table, write_tokenizer
from sklearn.metrics import roc_auc_score
from torch import nn

from tzrec.cli import main
from tzrec.config import prepare
from tzrec.demo.shape.shape import Shape
from tzrec.deploy import Predictor, artefact
from tzrec.deploy.export import export_parts
from tzrec.deploy.options import ExportOptions
from tzrec.deploy.parts import sample_parts
from tzrec.errors import ServingError
from tzrec.options import Options
from tzrec.training.build import build_features, build_model


def untrained(path, **overrides):
    """A model with weights as they are at first, and its config and features."""
    config = prepare(str(path), **overrides).config
    features = build_features(config.data_config, config.feature_configs)
    torch.manual_seed(5)
    model = build_model(config, features, with_labels=False).eval()
    model.set_is_inference(True)
    return model, config, features


def table_names(model, kind):
    """Tables of TorchRec's collections of a kind, found by their parameters."""
    return {
        name.removesuffix(".weight").replace(f".{kind}.", ".")
        for name, _ in model.named_parameters(remove_duplicate=False)
        if f".{kind}." in name
    }


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    pq.write_table(make_rows(120), path)
    return path


@pytest.mark.parametrize(
    ("name", "pooled", "sequence"),
    [("WideAndDeep", "INT4", ""), ("MultiTower", "INT8", "FP16"), ("MultiTowerDIN", "", "INT8")],
)
def test_ranking_models(tmp_path, rows, name, pooled, sequence):
    """Wide tables, weighted and mean features, shared tables, all sequence encoders."""
    model, config, features = untrained(write_config(tmp_path / "c.config", name, data=rows))
    parts = sample_parts(model, config, features, Options())
    options = ExportOptions(quantisation=pooled, sequence_quantisation=sequence)
    predictor = Predictor.load(export_parts(parts, tmp_path / "e", options))
    parity = predictor.manifest.parity
    kinds = {n: table["type"] for n, table in parity["quantised"]["tables"].items()}
    wanted = dict.fromkeys(table_names(model, "embedding_bags"), pooled)
    wanted |= dict.fromkeys(table_names(model, "embeddings"), sequence)
    assert kinds == {table: kind for table, kind in wanted.items() if kind}
    assert kinds
    assert max(d for case in parity["cases"].values() for d in case.values()) <= 1e-6
    # The table of rows, as `tzrec predict` does it: near the trained scores, but not equal.
    out = str(tmp_path / "out")
    assert main(["predict", str(tmp_path / "e"), "--input", str(rows), "--output", out]) == 0
    narrow = pq.read_table(f"{out}/part-0.parquet")["logits"].to_numpy()
    plain = Predictor.load(export_parts(parts, tmp_path / "p")).predict(pq.read_table(rows))
    narrow = np.array(narrow.tolist(), np.float32)
    gap = np.abs(narrow - plain["logits"])
    recorded = parity["quantised"]["difference"]["logits"]
    assert 0 < gap.mean() < 3 * recorded["mean"] + 1e-6
    assert gap.max() < 5 * recorded["largest"]


def test_towers(tmp_path):
    model, config, features = untrained(match_jobs.write_job(tmp_path))
    parts = sample_parts(model, config, features, Options())
    path = export_parts(parts, tmp_path / "e", ExportOptions(quantisation="INT8"))
    for name in ("user", "item"):
        manifest = artefact.verify_artefact(path / name)
        assert set(manifest.parity["quantised"]["tables"]) == table_names(
            parts[name].model, "embedding_bags"
        )
        Predictor.load(path / name)


@pytest.mark.parametrize("key", ["user_id", "click__item_id"])
def test_ids_out_of_range_are_refused(tmp_path, rows, key):
    """Also behind the parser, as a service may feed it: never the row of another table."""
    path = write_config(tmp_path / "c.config", "MultiTowerDIN", data=rows)
    model, config, features = untrained(path)
    parts = sample_parts(model, config, features, Options())
    options = ExportOptions(quantisation="INT8", sequence_quantisation="INT8")
    predictor = Predictor.load(export_parts(parts, tmp_path / "e", options))
    parsed = predictor.parse(make_rows(30))
    good = parsed[f"{key}.values"]
    assert set(predictor.forward(parsed)) == {"logits", "probs", "probs1"}
    for bad in (50, 10**6, -1):
        values = good.clone()
        values[3] = bad
        with pytest.raises(ServingError, match="cannot score a batch"):
            predictor.forward(parsed | {f"{key}.values": values})


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=stem)
def test_every_example(path, tmp_path, monkeypatch):
    """INT8 for all tables: the export scores like the rounded model, and loads."""
    monkeypatch.chdir(tmp_path)
    write_tokenizer(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    source, edits = made_up(path, tmp_path)
    model, config, features = untrained(path, edit_config_json=json.dumps(edits))
    config.train_input_path = source
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_var.fill_(0.5)
    parts = sample_parts(model, config, features, Options())
    options = ExportOptions(quantisation="INT8", sequence_quantisation="INT8")
    made = export_parts(parts, tmp_path / "e", options)
    for name, part in parts.items():
        manifest = Predictor.load(made / name).manifest
        tables = table_names(part.model, "embedding_bags") | table_names(part.model, "embeddings")
        assert set(manifest.parity["quantised"]["tables"]) == tables
        assert tables


def made_up(path: Path, root: Path):
    """Makes a few rows; returns where they are, and edits that make the config small."""
    edits = {"data_config.num_workers": 1, "data_config.loader": "THREAD",
             "data_config.batch_size": 64}  # fmt: skip
    if path in (DEMO, FEED):
        shape = Shape(prepare(str(path)).config)
        table = feed_table(0, 64) if path == FEED else shape.table(64, seed=1)
        pq.write_table(table, root / "train.parquet")
        return str(root / "train.parquet"), edits
    words = next(words for words in commands(path) if words[1:3] == ["data", "generate"])
    sizes = ["--rows", "64", "--eval-rows", "8", "--users", "20"]
    sizes += ["--items", "1000"] if "tdm" in path.stem else []
    assert main([*words[1:], *sizes]) == 0
    train = next(words for words in commands(path) if "--train-input-path" in words)
    return train[train.index("--train-input-path") + 1], edits


@pytest.mark.slow
def test_int8_costs_less_than_a_thousandth_of_auc(tmp_path):
    shape = Shape(prepare(str(DEMO)).config)
    pq.write_table(shape.table(40000, seed=1), tmp_path / "train.parquet")
    pq.write_table(shape.table(20000, seed=2), tmp_path / "eval.parquet")
    run = tmp_path / "run"
    flags = [f"--{part}-input-path={tmp_path / part}.parquet" for part in ("train", "eval")]
    assert main(["train", str(DEMO), *flags, "--no-report", "--model-dir", str(run)]) == 0
    scores = {}
    for kind in ("FP32", "INT8", "INT4"):
        export, out = str(tmp_path / kind), str(tmp_path / f"out{kind}")
        config = str(run / "pipeline.config")
        assert main(["export", config, "--export-dir", export, "--quantize", kind,
                     "--quantize-sequence", kind]) == 0  # fmt: skip
        assert main(["predict", export, "--input", f"{tmp_path}/eval.parquet", "--output", out,
                     "--output-columns", "probs"]) == 0  # fmt: skip
        scores[kind] = pq.read_table(f"{out}/part-0.parquet")["probs"].to_numpy()
    label = prepare(str(DEMO)).config.data_config.label_fields[0]
    labels = pq.read_table(tmp_path / "eval.parquet")[label].to_numpy()
    auc = {kind: roc_auc_score(labels, found) for kind, found in scores.items()}
    print(auc)
    assert auc["FP32"] > 0.6
    assert abs(auc["INT8"] - auc["FP32"]) < 1e-3
    assert np.abs(scores["INT8"] - scores["FP32"]).max() > 0
    assert auc["INT4"] != auc["FP32"]
