"""Every mistake of the corpus: its first line, its exit code, and how early it is found."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from corpus import CORPUS
from errors_page import PAGE, page
from errors_runner import Case, execute, expected, write_case

import tzrec.training.build
from tzrec.models.wrappers import TrainWrapper

ROOT = Path(__file__).resolve().parents[2]
CASES = [(section, case) for section, cases in CORPUS.items() for case in cases]


def name(entry):
    return f"{entry[0]}: {entry[1].what}"


def cases(*known):
    return [pytest.param(case, id=name((s, case))) for s, case in CASES if case.known in known]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A directory with a finished run and its export."""
    root = tmp_path_factory.mktemp("finished")
    write_case(Case("nothing", ""), root, None)
    for command in ("train c.config", "export c.config --export-dir export"):
        assert execute(command, root).code == 0
    return root


@pytest.fixture
def work(monkeypatch):
    """Counts models that are built and steps that are run."""
    counts = {"models": 0, "steps": 0}
    build, step = tzrec.training.build.create_model, TrainWrapper.forward

    def counted_build(*args, **kwargs):
        counts["models"] += 1
        return build(*args, **kwargs)

    def counted_step(*args, **kwargs):
        counts["steps"] += 1
        return step(*args, **kwargs)

    monkeypatch.setattr(tzrec.training.build, "create_model", counted_build)
    monkeypatch.setattr(TrainWrapper, "forward", counted_step)
    return counts


def outcome(case, root, request, work=None):
    write_case(case, root, request.getfixturevalue("finished") if case.needs else None)
    if work:
        work.update(models=0, steps=0)
    return execute(case.run, root, case.env)


def agrees(case, root, found):
    """Asserts what every case promises."""
    assert expected(case.first, root).fullmatch(found.first), found.first
    assert found.code == case.code
    assert "Traceback" not in found.err + found.out
    assert not re.search(r"^(KeyError|TypeError|AssertionError|RuntimeError)\b", found.err, re.M)


@pytest.mark.parametrize("case", cases("flags", "config", "files"))
def test_known_without_rows_is_said_before_a_model_is_built(case, tmp_path, work, request):
    found = outcome(case, tmp_path, request, work)
    agrees(case, tmp_path, found)
    assert work == {"models": 0, "steps": 0}
    lines = [line for line in found.err.splitlines() if not line.startswith("  ")]
    assert len(lines) == (case.messages if case.code else 0), lines
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "case", [p for p in cases("config", "files") if p.values[0].run.startswith("train ")]
)
def test_check_says_the_same_as_training(case, tmp_path, request):
    write_case(case, tmp_path, None)
    data = " --data" if case.known == "files" else ""
    found = execute(f"check{case.run.removeprefix('train')}{data}", tmp_path, case.env)
    agrees(case, tmp_path, found)


@pytest.mark.parametrize("case", cases("run"))
def test_what_lies_in_the_way_is_said_before_the_first_step(case, tmp_path, work, request):
    agrees(case, tmp_path, outcome(case, tmp_path, request, work))
    assert work["steps"] == 0


@pytest.mark.parametrize("case", cases("rows"))
def test_wrong_rows_end_the_run_without_a_checkpoint(case, tmp_path, request):
    agrees(case, tmp_path, outcome(case, tmp_path, request))
    assert list(tmp_path.glob("run/model.ckpt-*")) == []


PROCESSES = [
    "The command line: misspelt flag",
    "The config file: misspelt field",
    "Columns: id is a float",
    "Input paths: no rows",
]


@pytest.mark.parametrize("entry", PROCESSES)
def test_in_a_process_of_its_own(entry, tmp_path):
    """Also that torch is not loaded for what can be known without it."""
    case = next(case for s, case in CASES if name((s, case)) == entry)
    write_case(case, tmp_path, None)
    code = (
        "import sys; from tzrec.cli import main; code = main(sys.argv[1:]);"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *shlex.split(case.run)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == case.code, done.stderr
    assert expected(case.first, tmp_path).fullmatch(done.stderr.splitlines()[0])
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_the_corpus_is_large_and_every_case_has_a_name():
    names = [name(entry) for entry in CASES]
    assert len(names) >= 130
    assert len(set(names)) == len(names)
    assert all(case.first.strip("… ") for _, case in CASES)


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(), "run python tests/errors/errors_page.py"
