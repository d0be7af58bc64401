# ruff: noqa: E501
"""The commands' surface: help, flags, errors, exit codes, imports."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tzrec.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "config"))
from config_samples import DEEPFM, write  # noqa: E402

# What `tzrec --help`, `tzrec check` and a wrong config may import, beside the standard library.
ALLOWED = {"tzrec", "google", "sitecustomize", "_distutils_hack", "coverage", "_virtualenv"}
HEAVY = {"torch", "torchrec", "fbgemm_gpu", "numpy", "pyarrow", "pandas", "numba"}


@pytest.fixture(autouse=True)
def package_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def run(*args, module="tzrec.cli", cwd):
    """Runs a command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", module, *args], capture_output=True, text=True, cwd=cwd
    )


PROBE = """
import runpy, sys
sys.argv = ["tzrec", *sys.argv[1:]]
try:
    runpy.run_module("tzrec.cli", run_name="__main__")
except SystemExit as stop:
    code = stop.code
third = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
print("MODULES", code, *sorted(third))
"""


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["--help"], 0),
        (["check", "good.config"], 0),
        (["check", "bad.config"], 2),
        (["train", "bad.config"], 2),
        (["train", "--help"], 0),
        (["predict", "--no-such-flag"], 2),
    ],
)
def test_fast_answers_import_nothing_heavy_and_take_under_a_second(tmp_path, args, code):
    write(tmp_path / "good.config", DEEPFM)
    write(tmp_path / "bad.config", DEEPFM, ("num_epochs: 1", ""))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *args],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    line = next(line for line in done.stdout.splitlines() if line.startswith("MODULES"))
    _, found_code, *modules = line.split()
    assert int(found_code) == code, done.stderr
    modules = {name for name in modules if not name.startswith(("__", "_sys"))}
    assert not modules & HEAVY
    assert modules - {"__main__"} <= ALLOWED, modules
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    assert seconds < 1.0


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)
    assert main([]) == 0
    assert main(["--version"]) == 0
    assert "tzrec 0" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(name, capsys):
    assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: tzrec {name}" in out
    assert f"examples:\n  tzrec {name}" in out


WRONG = [
    (["trian"], "tzrec: unknown command 'trian'; did you mean 'train'?"),
    (["--halp"], "tzrec: unknown flag '--halp'"),
    (["train"], "tzrec train: which config? give the CONFIG file"),
    (["train", "a", "--pipeline-config-path", "b"], "tzrec train: give one CONFIG, not two"),
    (["train", "a", "b"], "tzrec train: unexpected argument 'b'"),
    (["train", "a", "--model_dri", "x"], "tzrec train: unknown flag --model_dri; did you mean '--model-dir'?"),
    (["train", "a", "--model-dri=x"], "tzrec train: unknown flag --model-dri; did you mean '--model-dir'?"),
    (["train", "a", "--model"], "tzrec train: unknown flag --model"),
    (["train", "a", "--continue", "True"], "tzrec train: unexpected argument 'True'\n  hint: --continue is a switch: give it alone"),
    (["train", "a", "--model-dir"], "tzrec train: argument --model-dir: expected one argument"),
    (["train", "no.config"], "config file 'no.config' does not exist"),
    (["predict", "x"], "tzrec predict: the following arguments are required: --input/--predict-input-path"),
    (["predict", "x", "--input", "a", "--output", "b"], "tzrec predict: 'x' is neither an exported directory nor a config file"),
    (["predict", "--input", "a", "--output", "b"], "which model? give an exported directory"),
    (["predict", ".", "--input", "a", "--output", "b"], "'.' holds no exported model (no scripted_model.pt)"),
    (["predict", ".", "--input", "a", "--output", "b", "--set", "a=b"], "tzrec predict: --set is for configs"),
    (["predict", ".", "--input", "a", "--output", "b", "--batch-size", "x"], "tzrec predict: argument --batch-size: 'x' is not a whole number"),
    (["predict", ".", "--input", "a", "--output", "b", "--batch-size", "-1"], "tzrec predict: argument --batch-size: -1 is too small, must be at least 1"),
    (["predict", ".", "--input", "a", "--output", "b", "--predict-threads", "0"], "tzrec predict: argument --predict-threads: 0 is too small"),
    (["predict", ".", "--input", "a", "--output", "b", "--predict-steps", "0"], "tzrec predict: argument --predict-steps: 0 is too small"),
    (["predict", ".", "--input", "a", "--output", "b", "--debug-level", "-1"], "tzrec predict: argument --debug-level: -1 is too small"),
    (["check", "memory://no.config"], "config file 'memory://no.config' does not exist"),
    (["check", "nos://no.config"], "config file 'nos://no.config' cannot be read: Protocol not known: nos"),
    (["data", "convert", "frape", "a", "b"], "tzrec data convert: argument dataset: invalid choice: 'frape'"),
    (["export", "a"], "tzrec export: the following arguments are required: --export-dir"),
    (["check", "--set", "a", "no.config"], "config file 'no.config' does not exist"),
]  # fmt: skip


@pytest.mark.parametrize(("args", "words"), WRONG)
def test_wrong_command_lines(tmp_path, monkeypatch, capsys, args, words):
    monkeypatch.chdir(tmp_path)
    assert main(args) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(words)
    assert "Traceback" not in captured.err


def test_wrong_config_has_no_traceback(tmp_path):
    write(
        tmp_path / "c.config", DEEPFM, ("num_epochs: 1", ""), ("batch_size: 256", "batch_size: 0")
    )
    done = run("train", "c.config", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "c.config:5: train_config.num_epochs: is missing: neither num_epochs nor num_steps says "
        "when training ends",
        "  hint: for example num_epochs: 1",
        "c.config:18: data_config.batch_size: is 0, must be at least 1",
    ]


def test_only_rank_0_reports_a_wrong_config(tmp_path, monkeypatch):
    write(tmp_path / "c.config", DEEPFM, ("num_epochs: 1", ""))
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    flags = ["--pipeline_config_path", "c.config"]
    done = run(*flags, module="tzrec.train_eval", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "")
    monkeypatch.setenv("RANK", "0")
    done = run(*flags, module="tzrec.train_eval", cwd=tmp_path)
    assert done.returncode == 2
    assert "num_epochs: is missing" in done.stderr


def test_check_says_what_the_config_is_about(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "c.config", DEEPFM, ("lr: 0.001", "lr: 20"))
    assert main(["check", "c.config", "--set", "train_config.num_epochs=3"]) == 0
    out = capsys.readouterr().out
    assert "warning: c.config:7: train_config.sparse_optimizer.adagrad_optimizer.lr: 20 is" in out
    assert "c.config: OK" in out
    assert "DeepFM: binary_cross_entropy" in out
    assert "3 ids, 1 number" in out
    assert "1,504 rows" in out
    assert "3 epochs, batches of 256, sparse adagrad 20, dense adam 0.001" in out


def test_check_without_the_paths_that_flags_may_give(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "c.config", DEEPFM, ('model_dir: "run"', ""))
    assert main(["check", "c.config"]) == 2
    assert main(["check", "c.config", "--model-dir", "x"]) == 0
