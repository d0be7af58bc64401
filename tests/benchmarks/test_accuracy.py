"""The accuracy benchmarks: bookkeeping of runs, tables, and that every config is sound."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tzrec.config import prepare
from tzrec.tools.convert import census_income as census_converter
from tzrec.tools.convert import frappe as frappe_converter
from tzrec.tools.convert.columns import Converted, History, Id, Number

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks" / "accuracy"


@pytest.fixture(scope="module")
def bench():
    """The modules of the benchmark, which are scripts and no package."""
    sys.path.insert(0, str(FOLDER))
    names = ("runs", "table", "command", "frappe", "census_income", "ml_1m")
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


def test_run_of_another_process_is_left_alone(bench, place):
    commands = Commands()
    busy = bench.runs.locked(place.runs / "frappe" / "dnn" / "seed1")
    with busy, pytest.raises(RuntimeError, match="another process"):
        bench.runs.run(bench.frappe.DATASET, "dnn", 1, place, command=commands)
    assert not commands.calls


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


def features_of(folder):
    """The features that the converter makes, with small tables."""
    if folder == "frappe":
        return tuple(Id(name, side, 5, dim=10) for name, side in frappe_converter._SIDES.items())
    if folder == "census_income":
        numbers = tuple(Number(name, "user") for name in census_converter._NUMBERS)
        return numbers + tuple(Id(n, "user", 5, dim=8) for n in census_converter._CATEGORIES)
    users = ["user_id", "gender", "age", "occupation"]
    movie = Id("movie_id", "item", 9, table="movie_emb")
    ids = [Id(name, "user", 5) for name in users]
    return (*ids, movie, Id("genres", "item", 4, pooling="mean"), History("history", 50, (movie,)))


@pytest.mark.parametrize("folder", ["frappe", "census_income", "ml_1m"])
def test_every_config_of_a_table_is_sound(bench, folder, tmp_path):
    dataset = getattr(bench, folder).DATASET
    files = {path.stem for path in (FOLDER / "models" / folder).glob("*.config")}
    assert files - {"protocol"} == set(dataset.models)
    (tmp_path / "features.config").write_text(
        Converted({}, features_of(folder), (), "").features_text()
    )
    for name, model in dataset.models.items():
        path = tmp_path / f"{name}.config"
        path.write_text(bench.runs.config_text(dataset, name, tmp_path))
        config = prepare(path, model_dir=str(tmp_path / "model"), edits=model.edits).config
        assert config.train_config.early_stop.metric == f"{dataset.select}{model.suffix}"
        assert config.export_config.best_exporter_metric == f"{dataset.select}{model.suffix}"


def test_second_split_of_movielens_keeps_order_and_rows(bench, tmp_path):
    users = {3: 25, 1: 31}
    first = {"train": [], "valid": [], "test": []}
    for user, count in users.items():
        rows = [(user, place) for place in range(count)]
        first["train"] += rows[:-2]
        first["valid"] += rows[-2:-1]
        first["test"] += rows[-1:]
    for part, rows in first.items():
        columns = {"user_id": [r[0] for r in rows], "place": [r[1] for r in rows]}
        pq.write_table(pa.table(columns), tmp_path / f"{part}.parquet")
    bench.ml_1m.split_again(tmp_path)
    for user, count in users.items():
        expected = {
            "train": np.arange(count - 20),
            "valid": np.arange(count - 20, count - 10),
            "test": np.arange(count - 10, count),
        }
        for part, places in expected.items():
            table = pq.read_table(tmp_path / f"{part}.parquet").to_pandas()
            assert table["place"][table["user_id"] == user].tolist() == places.tolist()
