"""Tiled exports score requests and tables like the model; see also test_datasets_tiling."""

from __future__ import annotations

import json
import zipfile
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from deploy_jobs import MODELS, make_rows, write_config
from tiled_requests import merged

from tzrec.config import prepare
from tzrec.datasets.data_parser import DataParser
from tzrec.deploy import torchscript
from tzrec.deploy.export import export_artefact
from tzrec.deploy.options import ExportOptions
from tzrec.deploy.predictor import Predictor
from tzrec.models.wrappers import ScriptWrapper
from tzrec.training.build import build_features, build_model

USER_COLUMNS = ("user_id", "likes", "age", "click__item_id", "click__price")
# (user, rows of candidates)
REQUESTS = [(5, range(12)), (0, [3]), (2, [1, 1, 9])]


def make_job(root, name):
    pq.write_table(make_rows(64), root / "train.parquet")
    config = prepare(write_config(root / "job.config", name, data=root / "train.parquet")).config
    features = build_features(config.data_config, config.feature_configs)
    torch.manual_seed(3)
    model = build_model(config, features, with_labels=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return SimpleNamespace(root=root, config=config, features=features, model=model)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    made = {}

    def get(name):
        if name not in made:
            made[name] = make_job(tmp_path_factory.mktemp(name), name)
        return made[name]

    return get


def request_of(table, user, rows):
    """Columns of a user, one row, and of candidates."""
    context = {name: table[name].combine_chunks().slice(user, 1) for name in USER_COLUMNS}
    taken = table.take(pa.array(rows))
    others = [name for name in table.schema.names if name not in (*USER_COLUMNS, "row", "label")]
    return context, {name: taken[name].combine_chunks() for name in others}


def rows_of(table, requests):
    """The rows that requests stand for, put together by Arrow."""
    users = table.take(pa.array([user for user, rows in requests for _ in rows]))
    rows = table.take(pa.array([row for _, rows in requests for row in rows]))
    for name in USER_COLUMNS:
        rows = rows.set_column(rows.schema.get_field_index(name), name, users[name])
    return {name: rows[name].combine_chunks() for name in rows.schema.names}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("mode", [2, 3])
def test_every_model_scripted(jobs, name, mode):
    job, table = jobs(name), make_rows(13, seed=5)
    parser = DataParser(job.features, input_tile=mode)
    assert parser.user_features == {*USER_COLUMNS}
    plain, tiled = ScriptWrapper(job.model), ScriptWrapper(job.model, input_tile=mode)
    parsed = [
        parser.parse_request(context | items, len(rows))
        for user, rows in REQUESTS
        for context, items in [request_of(table, user, rows)]
    ]
    cases = [([request], data) for request, data in zip(REQUESTS, parsed, strict=True)]
    cases.append((REQUESTS, merged(parsed, parser.user_features)))
    own = [(row, [row]) for row in range(13)]
    cases.append((own, parser.parse(rows_of(table, own))))
    with torchscript.inference_mode_of(plain), torch.inference_mode():
        scripted = torchscript.script_model(tiled.eval()).module
        for requests, data in cases:
            expected = plain(DataParser(job.features).parse(rows_of(table, requests)))
            for module in (tiled, scripted, scripted):
                found = module(data)
                assert found.keys() == expected.keys()
                for key, value in expected.items():
                    torch.testing.assert_close(found[key], value, atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def exports(jobs):
    """Directories by input_tile and type of tables. MultiTower has every encoder and weights."""
    job, table = jobs("MultiTower"), make_rows(32)
    parser = DataParser(job.features)
    golden = parser.parse({n: table[n].combine_chunks() for n in parser.input_columns})
    made = {}

    def get(mode, kind=""):
        if (mode, kind) not in made:
            made[mode, kind] = export_artefact(
                config=job.config,
                model=job.model,
                features=job.features,
                golden=golden,
                rows=table.select(parser.input_columns).to_batches()[0],
                export_dir=job.root / f"export{mode}{kind}",
                options=ExportOptions(
                    input_tile=mode, quantisation=kind, sequence_quantisation=kind
                ),
            )
        return made[mode, kind]

    return get


KINDS = [(2, ""), (3, ""), (3, "INT8")]


@pytest.mark.parametrize(("mode", "kind"), KINDS)
def test_an_export_scores_requests_and_tables(exports, mode, kind):
    untiled, tiled = (Predictor.load(exports(m, kind)) for m in (0, mode))
    table = make_rows(40, seed=8)
    columns = rows_of(table, [(row, [row]) for row in range(40)])
    expected = untiled.predict(columns)
    found = tiled.predict(columns)
    for user, rows in REQUESTS:
        context, items = request_of(table, user, rows)
        alone = untiled.predict(rows_of(table, [(user, rows)]))
        for key, value in tiled.predict_request(context, items).items():
            np.testing.assert_allclose(value, alone[key], rtol=0, atol=1e-6)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", [2, 3])
def test_an_export_says_how_it_is_tiled(exports, mode):
    path = exports(mode)
    assert json.loads((path / "model_acc.json").read_text())["INPUT_TILE"] == str(mode)
    manifest = Predictor.load(path, self_check=False).manifest
    assert manifest.options["input_tile"] == mode
    assert "batch_size" in manifest.inputs
    assert max(manifest.parity["cases"]["one user"].values()) <= 1e-6


@pytest.mark.parametrize(("mode", "kind"), KINDS)
def test_tables_are_stored_once(exports, mode, kind):
    """Item ids are looked up for candidates and for histories, in one table."""
    weights, plain = (weights_of(exports(m, kind) / "scripted_model.pt") for m in (mode, 0))
    assert weights == plain
    assert max(weights) >= 40 * 8 * (1 if kind else 4)


def weights_of(path):
    """Sizes in bytes of the tensors with names in a scripted model, by its archive."""
    sizes = []
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.filename.partition("/")[2].startswith("data/"):
                sizes.append(entry.file_size)
    return sorted(sizes)
