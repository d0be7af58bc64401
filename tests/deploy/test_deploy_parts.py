"""Models that are exported in parts."""

import json

import match_jobs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tzrec.config import load_pipeline_config, prepare
from tzrec.deploy import ExportOptions, Predictor, artefact, parts
from tzrec.deploy.artefact import found_parts, read_manifest, verify_artefact
from tzrec.deploy.export import export_parts
from tzrec.errors import ConfigError, DataError, ExportError, ServingError
from tzrec.models.model import BaseModel
from tzrec.options import Options
from tzrec.training.build import build_features, build_model

FILES = [
    "gm.code",
    "golden.npz",
    "golden_rows.parquet",
    "manifest.json",
    "model_acc.json",
    "pipeline.config",
    "scripted_model.pt",
]
FG_FEATURES = """
feature_configs { id_feature { feature_name: "user_id" expression: "user:user_id"
    hash_bucket_size: 60 embedding_dim: 8 } }
feature_configs { combo_feature { feature_name: "pair" expression: ["user:user_id", "feature:bin"]
    hash_bucket_size: 60 embedding_dim: 8 } }
feature_configs { raw_feature { feature_name: "bin" expression: "user:age" boundaries: [1, 3]
    embedding_dim: 4 } }
feature_configs { id_feature { feature_name: "item_id" expression: "item:item_id"
    vocab_file: "%s" default_bucketize_value: 0 embedding_dim: 8 } }
feature_configs { raw_feature { feature_name: "price" expression: "item:price" } }
feature_configs { sequence_feature { sequence_name: "hist" sequence_length: 5 sequence_delim: ";"
    features { id_feature { feature_name: "item_id" expression: "item:item_id"
        num_buckets: 41 embedding_dim: 8 } }
    features { id_feature { feature_name: "shop" expression: "item:shop" num_buckets: 5
        embedding_dim: 8 } } } }
"""


def prepare_job(root, **kwargs):
    config = prepare(str(match_jobs.write_job(root, **kwargs))).config
    features = build_features(config.data_config, config.feature_configs)
    torch.manual_seed(3)
    model = build_model(config, features, with_labels=False)
    model.set_is_inference(True)
    return config, features, model.eval()


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    root = tmp_path_factory.mktemp("parts")
    config, features, model = prepare_job(root)
    made = parts.sample_parts(
        model, config, features, Options(), item_input_path=str(root / "items.parquet")
    )
    (root / "note.txt").write_text("hello")
    options = ExportOptions(asset_files=(str(root / "note.txt"),))
    return root, model, made, export_parts(made, root / "export", options)


class TestLayout:
    def test_each_part_is_a_whole_artefact(self, job):
        path = job[3]
        assert found_parts(path) == ["item", "user"]
        for name in ("user", "item"):
            assert sorted(p.name for p in (path / name).iterdir()) == sorted([*FILES, "note.txt"])
            manifest = verify_artefact(path / name)
            assert list(manifest.outputs) == [f"{name}_tower_emb"]
            assert manifest.outputs[f"{name}_tower_emb"].shape == (8,)
            assert len(manifest.parity["cases"]) == 3
            assert manifest.parity["cases"]["golden batch"] == {f"{name}_tower_emb": 0.0}
            acc = json.loads((path / name / "model_acc.json").read_text())
            assert acc["SPARSE_INT64"] == "1"

    def test_only_its_features(self, job):
        wanted = {"user": ["user_id", "likes", "age"], "item": ["item_id", "price"]}
        for name, features in wanted.items():
            config = load_pipeline_config(job[3] / name / "pipeline.config")
            found = [getattr(f, f.WhichOneof("feature")) for f in config.feature_configs]
            assert [f.feature_name for f in found] == features
            inputs = {key.rpartition(".")[0] for key in read_manifest(job[3] / name).inputs}
            assert inputs == set(features)

    def test_golden_rows_of_items_are_of_the_items(self, job):
        rows = pq.read_table(job[3] / "item" / "golden_rows.parquet")
        assert rows.column_names == ["item_id", "price"]
        assert rows["item_id"].to_pylist() == list(range(match_jobs.NUM_ITEMS))
        assert pq.read_table(job[3] / "user" / "golden_rows.parquet").num_rows == 64

    def test_scores_are_those_of_the_model(self, job):
        rows = match_jobs.make_rows(50, seed=4)
        found = {
            name: Predictor.load(job[3] / name).predict(rows)[f"{name}_tower_emb"]
            for name in ("user", "item")
        }
        from tzrec.datasets.data_parser import DataParser

        model = job[1]
        parser = DataParser(model.features)
        batch = parser.to_batch(
            parser.parse({name: rows[name].combine_chunks() for name in parser.input_columns})
        )
        with torch.no_grad():
            for name in found:
                vectors = getattr(model, f"{name}_tower")(batch).numpy()
                np.testing.assert_allclose(found[name], vectors, rtol=0, atol=1e-6)


class TestFeatureGeneration:
    def test_parts_have_what_their_features_are_made_of(self, tmp_path):
        (tmp_path / "words.txt").write_text("\n".join(str(i) for i in range(40)))
        rows = match_jobs.make_rows(100)
        rows = rows.append_column("hist__item_id", pa.array(["3;4;5"] * 100))
        rows = rows.append_column("hist__shop", pa.array(["1;2;0"] * 100))
        path = match_jobs.write_job(tmp_path)
        text = path.read_text().replace("FG_NONE", "FG_DAG")
        text = text.replace(match_jobs.FEATURES, FG_FEATURES % (tmp_path / "words.txt"))
        text = text.replace('["user_id", "likes", "age"]', '["user_id", "pair", "hist__item_id"]')
        path.write_text(text)
        pq.write_table(rows, tmp_path / "train.parquet")
        config = prepare(str(path)).config
        features = build_features(config.data_config, config.feature_configs)
        model = build_model(config, features, with_labels=False)
        model.set_is_inference(True)
        made = parts.sample_parts(model.eval(), config, features, Options())
        export = export_parts(made, tmp_path / "export")
        user = json.loads((export / "user" / "fg.json").read_text())["features"]
        names = [entry.get("feature_name") or entry["sequence_name"] for entry in user]
        assert names == ["user_id", "pair", "bin", "hist"]
        assert [sub["feature_name"] for sub in user[3]["features"]] == ["item_id"]
        item = json.loads((export / "item" / "fg.json").read_text())["features"]
        assert [entry["feature_name"] for entry in item] == ["item_id", "price"]
        assert list((export / "item").glob("words_*.txt"))
        assert not list((export / "user").glob("words_*.txt"))
        tower = Predictor.load(export / "user")
        assert sorted(tower.input_columns) == ["age", "hist__item_id", "user_id"]
        assert tower.predict(rows)["user_tower_emb"].shape == (100, 8)


class TestGate:
    def test_all_appear_or_none(self, job, tmp_path):
        _, _, made, _ = job
        item = made["item"]
        golden = {key: v for key, v in item.golden.items() if not key.startswith("price")}
        wrong = made | {
            "item": parts.Part(item.model, item.config, item.features, golden, item.rows)
        }
        with pytest.raises(ExportError, match="item/: the golden batch lacks features: price"):
            export_parts(wrong, tmp_path / "e")
        assert list(tmp_path.iterdir()) == []

    def test_existing_directory(self, job):
        with pytest.raises(ExportError, match="exists already"):
            export_parts(job[2], job[3])

    def test_items_that_lack_a_column(self, job, tmp_path):
        config, features, model = prepare_job(tmp_path)
        pq.write_table(pa.table({"item_id": [1]}), tmp_path / "bare.parquet")
        with pytest.raises(DataError, match="price"):
            parts.sample_parts(
                model, config, features, Options(), item_input_path=str(tmp_path / "bare.parquet")
            )

    def test_a_model_in_one_piece_has_no_items(self):
        class Ranker:
            export_parts = BaseModel.export_parts

        with pytest.raises(ConfigError, match="Ranker has none"):
            parts.sample_parts(Ranker(), None, [], Options(), item_input_path="items.parquet")

    def test_asset_files_are_not_for_embeddings(self, job, tmp_path):
        root, _, made, _ = job
        item = made["item"]
        bare = parts.Part(
            item.model, item.config, item.features, item.golden, item.rows, with_assets=False
        )
        options = ExportOptions(asset_files=(str(root / "note.txt"),))
        path = export_parts({"model": made["user"], "embedding": bare}, tmp_path / "e", options)
        assert (path / "model" / "note.txt").exists()
        assert not (path / "embedding" / "note.txt").exists()


def test_runs_are_no_exports_in_parts(tmp_path):
    """Checkpoints have a manifest too."""
    (tmp_path / "model.ckpt-3").mkdir()
    (tmp_path / "model.ckpt-3" / artefact.MANIFEST).write_text("{}")
    assert found_parts(tmp_path) == []
    with pytest.raises(ServingError, match=r"holds no manifest\.json"):
        read_manifest(tmp_path)
