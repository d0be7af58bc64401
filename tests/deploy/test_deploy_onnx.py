"""The dense part as ONNX: scored by ONNX Runtime, fed by the sparse part.

MultiTower has every encoder of sequences; the other models are slow to convert.
"""

import json
import sys

import onnxruntime
import pytest
import split_jobs
import torch
from deploy_jobs import MODELS
from split_jobs import batches, scores

from tzrec.deploy import onnx_dense, torchscript
from tzrec.errors import ExportError, MissingDependencyError
from tzrec.main import train_and_evaluate
from tzrec.tools.onnx_dense import main

CPU = torch.device("cpu")
EDITS = ["train_config.num_epochs=0", "train_config.num_steps=2"]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    made = {}

    def get(name):
        if name not in made:
            made[name] = split_jobs.build(tmp_path_factory.mktemp(name), name)[:2]
        return made[name]

    return get


def open_parts(path):
    session = onnxruntime.InferenceSession(path / "dense.onnx")
    return torchscript.load(path / "scripted_sparse_model.pt", CPU), session


@pytest.mark.parametrize(
    "name",
    [
        name if name == "MultiTower" else pytest.param(name, marks=pytest.mark.slow)
        for name in MODELS
    ],
)
def test_batches_of_all_sizes(jobs, tmp_path, name):
    wrapper, features = jobs(name)
    data = batches(features)
    with torchscript.inference_mode_of(wrapper), torch.inference_mode():
        found = onnx_dense.write(wrapper, data["some"], tmp_path)
    assert sorted(found) == sorted(scores(wrapper, data["some"]))
    sparse, session = open_parts(tmp_path)
    for batch in data.values():
        expected = scores(wrapper, batch)
        actual = onnx_dense.run(session, sparse(batch, CPU))
        split_jobs.assert_close(actual, expected, atol=1e-5)
    described = json.loads((tmp_path / "dense.json").read_text())
    crossing = sparse(data["some"], CPU)
    given = {each.name for each in session.get_inputs()}
    assert given <= {each["name"] for each in described["inputs"]} == set(crossing)
    for each in described["inputs"]:
        shape = tuple(crossing[each["name"]].shape)
        assert len(shape) == len(each["shape"])
        assert all(a in (None, b) for a, b in zip(each["shape"], shape, strict=True))
    assert sorted(described["outputs"]) == sorted(expected)


def test_wrong_scores_are_refused(jobs, tmp_path, monkeypatch):
    wrapper, features = jobs("WideAndDeep")

    def other(session, crossing):
        return {name: value + 1e-3 for name, value in run(session, crossing).items()}

    run = onnx_dense.run
    monkeypatch.setattr(onnx_dense, "run", other)
    with pytest.raises(ExportError, match="does not score like the trained model"):
        onnx_dense.write(wrapper, batches(features)["some"], tmp_path)


def test_without_the_packages(jobs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"(?s)needs more packages.*pip install onnx"):
        onnx_dense.write(*jobs("WideAndDeep")[:1], {}, tmp_path)


def test_tool(click_config, tmp_path, capsys):
    config = str(click_config())
    train_and_evaluate(config, edits=EDITS)
    arguments = ["--pipeline_config_path", config, "--output_dir", str(tmp_path / "onnx")]
    assert main(arguments) == 0
    open_parts(tmp_path / "onnx")
    assert not list(tmp_path.glob(".onnx*"))
    assert main(arguments) == 6
    assert "exists already" in capsys.readouterr().err
