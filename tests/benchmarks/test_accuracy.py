"""The accuracy benchmarks: bookkeeping of runs, tables, and that every config is sound."""

import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks" / "accuracy"


@pytest.fixture(scope="module")
def bench():
    """The modules of the benchmark, which are scripts and no package."""
    sys.path.insert(0, str(FOLDER))
    names = ("runs", "table", "command", "frappe")
    found = {name: importlib.import_module(name) for name in names}
    yield type("Bench", (), found)
    sys.path.remove(str(FOLDER))
    for name in names:
        sys.modules.pop(name, None)


class Commands:
    """Stands for `tzrec`: notes the commands and writes the results of a training of 3 passes."""

    def __init__(self, *, fail=False):
        self.calls = []
        self.fail = fail

    def __call__(self, arguments, log, threads):
        self.calls.append((list(arguments), threads))
        if self.fail:
            raise RuntimeError("broken")
        text = " ".join(arguments)
        if arguments[0] == "train":
            model_dir = Path(arguments[arguments.index("--model-dir") + 1])
            model_dir.mkdir()
            lines = [{"global_step": i, "auc": auc} for i, auc in enumerate([0.7, 0.9, 0.8])]
            (model_dir / "train_eval_result_v2.txt").write_text(
                "".join(json.dumps(line) + "\n" for line in lines)
            )
        else:
            assert "--checkpoint best" in text
            assert "test.parquet" in text
            directory = Path(arguments[1]).parent
            (directory / "test_result.txt").write_text('{"global_step": 1, "auc": 0.85}\n')


@pytest.fixture
def place(bench, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "features.config").write_text("")
    return bench.runs.Place(data, tmp_path / "runs", threads=1)


def test_run_takes_the_best_valid_pass_and_tests_it_once(bench, place):
    commands = Commands()
    result = bench.runs.run(bench.frappe.DATASET, "dnn", 7, place, command=commands)
    assert [call[0][0] for call in commands.calls] == ["train", "eval"]
    assert "train_config.seed=7" in commands.calls[0][0]
    assert result["valid"] == {"auc": 0.9}
    assert result["test"] == {"auc": 0.85}
    assert result["evaluations"] == 3
    assert not (place.runs / "frappe" / "dnn" / "seed7" / "model").exists()


def test_finished_run_is_not_run_again_until_its_config_changes(bench, place):
    dataset = bench.frappe.DATASET
    first = bench.runs.run(dataset, "dnn", 1, place, command=Commands())
    again = Commands()
    assert bench.runs.run(dataset, "dnn", 1, place, command=again) == first
    assert not again.calls
    (place.data / "features.config").write_text("# changed\n")
    bench.runs.run(dataset, "dnn", 1, place, command=again)
    assert again.calls


def test_interrupted_run_starts_over(bench, place):
    with pytest.raises(RuntimeError):
        bench.runs.run(bench.frappe.DATASET, "dnn", 1, place, command=Commands(fail=True))
    result = bench.runs.run(bench.frappe.DATASET, "dnn", 1, place, command=Commands())
    assert result["test"] == {"auc": 0.85}


def test_trial_never_sees_the_test_part(bench, place):
    commands = Commands()
    edits = ["train_config.embedding_l2=0.1"]
    result = bench.runs.run(bench.frappe.DATASET, "dnn", 1, place, edits=edits, command=commands)
    assert [call[0][0] for call in commands.calls] == ["train"]
    assert edits[0] in commands.calls[0][0]
    assert "test" not in result
    assert not (place.runs / "frappe" / "dnn").exists()


def test_table_has_mean_and_deviation_of_the_sample(bench):
    results = {"dnn": {1: {"test": {"auc": 0.98}}, 2: {"test": {"auc": 0.99}}}}
    lines = bench.table.test_table(bench.frappe.DATASET, results).splitlines()
    assert len(lines) == 3
    assert lines[2] == "| DNN | .98000 .99000 | .98500 ± .00707 | .98405 ± .00051 |"


def test_trials_are_ordered_by_the_valid_part(bench):
    trials = {
        "a=1": [{"valid": {"auc": 0.5}, "evaluations": 3}],
        "a=2": [{"valid": {"auc": 0.75}, "evaluations": 4}],
    }
    lines = bench.table.trial_table(bench.frappe.DATASET, trials).splitlines()
    assert lines[2:] == ["| a=2 | .75000 | 4 |", "| a=1 | .50000 | 3 |"]


def test_command_reports_a_failed_run_and_goes_on(bench, place, tmp_path, capsys, monkeypatch):
    home = tmp_path / "home"
    data = home / "frappe" / "data"
    data.mkdir(parents=True)
    (data / "features.config").write_text("")
    good = Commands()

    def command(arguments, log, threads):
        if "deepfm" in str(log):
            raise RuntimeError("no memory")
        good(arguments, log, threads)

    original = bench.runs.run
    monkeypatch.setattr(bench.command, "run", lambda *a, **k: original(*a, **k, command=command))
    arguments = ["--models", "dnn,deepfm", "--seeds", "2", "--dir", str(home)]
    code = bench.command.main(bench.frappe.DATASET, tmp_path, "", arguments)
    out = capsys.readouterr().out
    assert code == 1
    assert "deepfm seed 1: failed: no memory" in out
    assert "| DNN | .85000 .85000 | .85000 ± .00000 | .98405 ± .00051 |" in out
    assert (home / "frappe" / "table.md").read_text().count("\n") == 3
