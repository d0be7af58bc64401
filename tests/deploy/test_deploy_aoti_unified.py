"""A whole model, lookups and all, in one compiled package."""

import json

import pytest
import split_jobs
import torch
from split_jobs import assert_close, batches, scores

from tzrec.deploy import Predictor, aoti
from tzrec.deploy.export import export_artefact
from tzrec.deploy.options import ExportOptions
from tzrec.errors import ExportError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """MultiTowerDIN: pooled and sequence tables, weighted and mean features, jagged steps."""
    root = tmp_path_factory.mktemp("unified")
    wrapper, features, config = split_jobs.build(root, "MultiTowerDIN")
    return root, wrapper, features, config, batches(features)


def run_export(job, name, **options):
    root, wrapper, features, config, data = job
    return export_artefact(
        config=config,
        model=wrapper.model,
        features=features,
        golden=data["some"],
        export_dir=root / name,
        options=ExportOptions(target="aoti_unified", **options),
    )


def test_unified(job):
    _, wrapper, _, _, data = job
    path = run_export(job, "export")
    assert not (path / "scripted_model.pt").exists()
    assert not (path / "scripted_sparse_model.pt").exists()
    assert json.loads((path / "model_acc.json").read_text())["ENABLE_AOT"] == "2"
    predictor = Predictor.load(path)
    for batch in data.values():
        expected = scores(wrapper, batch)
        for _ in range(2):
            assert_close(predictor.forward(batch), expected)
    names = [each["name"] for each in json.loads((path / aoti.TARGET).read_text())["inputs"]]
    assert names == sorted(data["some"])


def test_narrow_tables_are_refused(job):
    with pytest.raises(ExportError, match=r"one compiled program: it needs kernels of FBGEMM"):
        run_export(job, "narrow", quantisation="INT8")
    assert not (job[0] / "narrow").exists()
