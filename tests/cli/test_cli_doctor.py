# ruff: noqa: E501
"""Findings on simulated and on the real machine."""

from __future__ import annotations

import importlib.util

import pytest

from tzrec.cli import doctor_checks, main
from tzrec.cli.doctor_checks import check_stack, judge_runtime, packages

GOOD = {"torch": "2.13.0+cpu", "torchrec": "1.8.0", "fbgemm-gpu-cpu": "1.8.0"}


def judged(versions, cuda=""):
    return {finding.name: finding for finding in check_stack(versions, cuda)}


def test_the_tested_set_is_fine():
    assert {finding.state for finding in judged(GOOD).values()} == {"ok"}
    gpu = {"torch": "2.13.0", "torchrec": "1.8.0", "fbgemm-gpu": "1.8.0"}
    assert {finding.state for finding in judged(gpu, "13.0").values()} == {"ok"}


@pytest.mark.parametrize(
    ("change", "cuda", "name", "text", "cure"),
    [
        ({"torch": None}, "", "torch", "not installed", "pip install torch==2.13.0"),
        ({"torchrec": None}, "", "torchrec", "not installed", "pip install --no-deps torchrec==1.8.0"),
        ({"torchrec": "1.7.0"}, "", "torchrec", "1.7.0 does not fit torch 2.13.0+cpu", "pip install --no-deps torchrec==1.8.0"),
        ({"fbgemm-gpu-cpu": None}, "", "fbgemm", "not installed", "pip install --no-deps fbgemm-gpu-cpu==1.8.0"),
        ({"fbgemm-gpu-cpu": "1.7.0"}, "", "fbgemm", "does not fit torch", "pip install --no-deps fbgemm-gpu-cpu==1.8.0"),
        ({"fbgemm-gpu": "1.8.0"}, "", "fbgemm", "two builds, one shadows the other",
         "pip uninstall -y fbgemm-gpu-cpu fbgemm-gpu && pip install --no-deps fbgemm-gpu-cpu==1.8.0"),
        ({"fbgemm-gpu-cpu": None, "fbgemm-gpu": "1.8.0"}, "", "fbgemm", "does not fit a CPU build of torch",
         "pip uninstall -y fbgemm-gpu && pip install --no-deps fbgemm-gpu-cpu==1.8.0"),
        ({}, "13.0", "fbgemm", "does not fit a CUDA build of torch",
         "pip uninstall -y fbgemm-gpu-cpu && pip install --no-deps fbgemm-gpu==1.8.0"),
        ({"torch": "1.13.1"}, "", "torch", "1.13.1 (CPU build)", "pip install torch==2.13.0"),
        ({"torch": "2.12.0"}, "", "torchrec", "1.8.0 does not fit torch 2.12.0", "pip install --no-deps torchrec==1.7.0"),
    ],
)  # fmt: skip
def test_mismatches(change, cuda, name, text, cure):
    versions = {key: value for key, value in {**GOOD, **change}.items() if value}
    finding = judged(versions, cuda)[name]
    assert finding.state == "bad"
    assert text in finding.text
    assert finding.cure.startswith(cure)


def test_an_untested_torch_that_fits_is_a_remark():
    other = {"torch": "2.14.0", "torchrec": "1.9.0", "fbgemm-gpu-cpu": "1.9.0"}
    found = judged(other)
    assert (found["torch"].state, found["torchrec"].state, found["fbgemm"].state) == (
        "warn",
        "ok",
        "ok",
    )


def test_runtime():
    fine = {"torch": "2.13.0", "cuda": "", "gloo": True, "fbgemm_gpu": True, "torchrec": True}
    assert {finding.state for finding in judge_runtime(fine)} == {"ok"}
    broken = {"torch": "2.13.0", "gloo": False, "fbgemm_gpu_error": "OSError: undefined symbol\nx"}
    states = {finding.name: finding.state for finding in judge_runtime(broken)}
    assert states["import"] == "bad"
    assert states["gloo"] == "warn"
    no_gpu = {**fine, "cuda": "13.0", "devices": 0, "nccl": True}
    assert {f.name: f.state for f in judge_runtime(no_gpu)}["gpu"] == "warn"
    assert [f.name for f in judge_runtime({"torch_error": "ImportError: x"})] == ["import"]


def test_packages(monkeypatch):
    monkeypatch.setattr(doctor_checks, "installed", lambda names: {"numpy": "1.20.0"})
    found = {finding.name: finding for finding in packages()}
    assert "too old" in found["numpy"].text
    assert found["pyarrow"].cure == "pip install 'pyarrow>=16'"


def test_without_torch(monkeypatch, capsys):
    monkeypatch.setattr(doctor_checks, "installed", lambda names: {})
    monkeypatch.setattr(doctor_checks, "torch_cuda", lambda: "")
    monkeypatch.setattr(doctor_checks.importlib.util, "find_spec", lambda name: None)
    assert main(["doctor"]) == 2
    out = capsys.readouterr().out
    assert "BAD torch" in out
    assert "pip install torch==2.13.0" in out
    assert "things to do" in out


def test_the_package_list_is_that_of_the_project():
    tomllib = pytest.importorskip("tomllib")
    from pathlib import Path

    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    names = {
        line.replace("==", ">=").partition(">=")[0]
        for line in tomllib.loads(text)["project"]["dependencies"]
    }
    assert names - {"torch"} == set(doctor_checks.PACKAGES)


def test_this_machine(capsys):
    if importlib.util.find_spec("torchrec") is None:
        pytest.skip("TorchRec is not installed")
    code = main(["doctor", "--quick"])
    out = capsys.readouterr().out
    assert (code == 0) == ("Ready." in out)
    for name in ("python", "torch", "torchrec", "fbgemm", "cores", "memory", "disk", "files"):
        assert f" {name} " in out
