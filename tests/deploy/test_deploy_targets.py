"""Options of an export that change its input or what runs it, on one model with sequences."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from deploy_jobs import make_rows, write_config

from tzrec.config import prepare
from tzrec.deploy import Predictor, artefact, golden, part_writer
from tzrec.deploy.artefact import verify_artefact
from tzrec.deploy.export import export_parts
from tzrec.deploy.options import ExportOptions
from tzrec.deploy.parts import sample_parts
from tzrec.errors import ExportError, ServingError
from tzrec.models.wrappers import ScriptWrapper
from tzrec.options import Options
from tzrec.training.build import build_features, build_model


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    root = tmp_path_factory.mktemp("targets")
    pq.write_table(make_rows(40), root / "rows.parquet")
    path = write_config(root / "c.config", "MultiTowerDIN", data=root / "rows.parquet")
    config = prepare(str(path)).config
    features = build_features(config.data_config, config.feature_configs)
    torch.manual_seed(5)
    model = build_model(config, features, with_labels=False).eval()
    model.set_is_inference(True)
    return root, sample_parts(model, config, features, Options())


@pytest.fixture(scope="module")
def plain(job):
    return Predictor.load(export_parts(job[1], job[0] / "plain"))


def acc_of(path):
    return json.loads((path / artefact.MODEL_ACC).read_text())


class TestTiled:
    @pytest.mark.parametrize("tile", [2, 3])
    def test_scores_are_those_of_the_untiled_export(self, job, plain, tile):
        path = export_parts(job[1], job[0] / f"tile{tile}", ExportOptions(input_tile=tile))
        assert acc_of(path)["INPUT_TILE"] == str(tile)
        manifest = verify_artefact(path)
        assert manifest.inputs["batch_size"].dtype == "int64"
        assert "batch_size" not in plain.manifest.inputs
        # One user with all rows as candidates, beside rows that have a user each.
        assert set(manifest.parity["cases"]) == {*plain.manifest.parity["cases"], "one user"}
        rows = make_rows(33, seed=4)
        for name, value in Predictor.load(path).predict(rows).items():
            np.testing.assert_allclose(value, plain.predict(rows)[name], rtol=0, atol=1e-6)

    def test_a_model_that_does_not_repeat_is_refused(self, job, monkeypatch):
        """On the golden batch, where each row is its own user, it would score right."""

        def forgetful(model, input_tile=0):
            wrapper = ScriptWrapper(model, input_tile=input_tile)
            wrapper._data_parser.user_features = frozenset()
            return wrapper

        monkeypatch.setattr(part_writer, "_script_wrapper", forgetful)
        with pytest.raises((ExportError, ServingError), match=r"\(one user"):
            export_parts(job[1], job[0] / "broken", ExportOptions(input_tile=2))
        assert not (job[0] / "broken").exists()

    def test_without_features_of_users(self, job, caplog, monkeypatch):
        """An item tower has none; that is worth a word, not an error."""
        for module in ("tiling", "data_parser"):
            monkeypatch.setattr(f"tzrec.datasets.{module}.user_features", lambda f: frozenset())
        path = export_parts(job[1], job[0] / "nobody", ExportOptions(input_tile=3))
        assert "nothing is tiled" in caplog.text
        manifest = verify_artefact(path)
        assert "one user" not in manifest.parity["cases"]
        assert manifest.options["input_tile"] == 3


class TestMaxBatchSize:
    def test_golden_batch_is_cut(self, job, plain):
        path = export_parts(job[1], job[0] / "small", ExportOptions(max_batch_size=7))
        assert acc_of(path)["MAX_EXPORT_BATCH_SIZE"] == "7"
        rows = {
            d: pq.read_table(d / artefact.GOLDEN_ROWS).num_rows for d in (path, job[0] / "plain")
        }
        assert rows == {path: 7, job[0] / "plain": 32}
        for directory, wanted in rows.items():
            inputs, outputs = golden.load_golden(directory / artefact.GOLDEN)
            assert len(inputs["user_id.lengths"]) == len(outputs["probs"]) == wanted
        # It says nothing about the rows that can be scored.
        Predictor.load(path).predict(make_rows(64))


@pytest.mark.slow
def test_compiled_tiled_and_narrow(job, plain):
    options = ExportOptions(
        target="aoti", quantisation="INT8", sequence_quantisation="FP16", input_tile=3
    )
    path = export_parts(job[1], job[0] / "all", options)
    assert acc_of(path) == {
        "SPARSE_INT64": "1",
        "QUANT_EMB": "INT8",
        "QUANT_EC_EMB": "FP16",
        "INPUT_TILE": "3",
        "ENABLE_AOT": "1",
    }
    predictor = Predictor.load(path)
    rows = make_rows(33, seed=4)
    recorded = predictor.manifest.parity["quantised"]["difference"]
    for name, value in predictor.predict(rows).items():
        gap = np.abs(value - plain.predict(rows)[name])
        assert 0 < gap.max() < 5 * recorded[name]["largest"]
    # The rows are where the lookups are, once, and not in the compiled part.
    sparse = (path / "scripted_sparse_model.pt").stat().st_size
    assert sparse < 2**18
    with pytest.raises(ExportError, match="one compiled program"):
        export_parts(
            job[1], job[0] / "one", ExportOptions(target="aoti_unified", quantisation="INT8")
        )


@pytest.mark.parametrize("precision", ["BF16", "FP16"])
@pytest.mark.parametrize("asked", [{}, {"quantisation": "INT8"}, {"input_tile": 3}])
def test_mixed_precision(job, plain, tmp_path, precision, asked):
    """Compiled code rounds at other places than the model in Python: one step, or a few."""
    options = ExportOptions(mixed_precision=precision, **asked)
    found = Predictor.load(export_parts(job[1], tmp_path / "e", options))
    scores, rows = found.predict(make_rows(33, seed=4)), make_rows(33, seed=4)
    step = {"BF16": 2.0**-8, "FP16": 2.0**-11}[precision]
    for name, value in plain.predict(rows).items():
        np.testing.assert_allclose(scores[name], value, rtol=4 * step, atol=4 * step)
        assert not np.array_equal(scores[name], value)
    parity = found.manifest.parity
    assert parity["tolerance"] == parity["relative"] == options.tolerance < 0.02
