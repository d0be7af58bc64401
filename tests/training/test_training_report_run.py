"""The report of whole runs: it parses, loads nothing, and its numbers are those of the run."""

import html
import json
import re
import shlex
import uuid
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import fsspec
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from tzrec import storage
from tzrec.cli import main
from tzrec.main import evaluate, predict_checkpoint, train_and_evaluate
from tzrec.training.checkpoint.find import read_results
from tzrec.training.report import run_report
from tzrec.training.report.history import HISTORY_FILENAME, History
from tzrec.training.report.svg import number

_VOID = {"meta", "br", "hr", "img", "link", "input"}
_EDITS = ("train_config.save_checkpoints_steps=12", "train_config.log_step_count_steps=2")
_SHORT = ("train_config.num_epochs=1",)


class Page(HTMLParser):
    """A parsed report: its sections' tables, its text, and that every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.tables, self.source = [], [], [], text
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        assert not {"src", "href", "onload"} & set(values), "it loads something"
        assert tag not in ("script", "link", "iframe", "img")
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data

    def table(self, head):
        """Rows of the table that has this name in its first line, as dictionaries."""
        (found,) = [table for table in self.tables if head in table[0]]
        return [dict(zip(found[0], row, strict=True)) for row in found[1:]]

    def facts(self):
        """The table of the run."""
        (found,) = [table for table in self.tables if "model_dir" in [row[0] for row in table]]
        return dict(found)

    def charts(self):
        """Title → SVG element; each is well-formed."""
        pictures = re.findall(r"<svg [^>]*role=.*?</svg>", self.source, re.DOTALL)
        elements = [ET.fromstring(picture) for picture in pictures]
        named = {element.get("aria-label"): element for element in elements}
        assert len(named) == len(elements)
        for picture in pictures:
            assert "nan" not in picture
            assert "inf" not in picture
        return named


def page_of(path):
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def trained(click_files, tmp_path_factory):
    """A finished run, its config, and what it said."""
    root = tmp_path_factory.mktemp("report")
    config = click_files(root, "adagrad_optimizer")
    train_and_evaluate(str(config), edits=_EDITS)
    return config, root / "run"


def test_metrics_are_those_of_the_result_file(trained):
    _, run = trained
    page, results = page_of(run / "report.html"), read_results(run)
    last = results[-1]
    rows = {row["metric"]: row for row in page.table("metric")}
    assert set(rows) == set(last) - {"global_step"}
    for name, row in rows.items():
        assert row["at step 31"] == number(last[name])
        pick = max if name == "auc" else min
        best = pick(results, key=lambda result, name=name: result[name])
        assert row["best"] == number(best[name])
        assert row["best at step"] == str(best["global_step"])
    assert re.fullmatch(r"± 0\.0\d+", rows["auc"]["95 % interval"])
    assert rows["binary_cross_entropy"]["95 % interval"] == ""


def test_scores_are_those_of_the_predictions(trained, tmp_path):
    config, run = trained
    predict_checkpoint(
        str(config), str(run.parent / "eval.parquet"), str(tmp_path), reserved_columns="clk"
    )
    rows = pq.read_table(tmp_path)
    score, label = rows["probs"].to_numpy(), rows["clk"].to_numpy()
    (row,) = page_of(run / "report.html").table("mean score")
    assert row["rows"] == "500"
    assert row["positive rows"] == number(label.sum())
    assert float(row["mean label"]) == pytest.approx(label.mean(), abs=1e-5)
    assert float(row["mean score"]) == pytest.approx(score.mean(), abs=1e-4)
    assert float(row["AUC"]) == pytest.approx(roc_auc_score(label, score), abs=2e-3)


def test_charts_show_curves_and_scores(trained):
    _, run = trained
    charts = page_of(run / "report.html").charts()
    assert set(charts) == {
        "binary_cross_entropy by step",
        "auc by step",
        "learning rate by step",
        "ROC curve",
        "calibration",
        "scores by label",
    }
    told = [title.text for title in charts["auc by step"].iter("{http://www.w3.org/2000/svg}title")]
    last = read_results(run)[-1]
    assert told[-1] == f"evaluation {number(last['auc'])} at 31"
    assert len(told) == len(read_results(run))


def test_features_facts_and_commands(trained):
    _, run = trained
    page = page_of(run / "report.html")
    rows = {row["feature"]: row for row in page.table("feature")}
    assert list(rows) == ["user_id", "item_id", "tags", "price", "click__item_id", "click__price"]
    item = rows["click__item_id"]
    assert (item["kind"], item["groups"], item["table"]) == ("id sequence", "seq", "item")
    assert (item["rows"], item["width"]) == ("30", "8")
    assert rows["item_id"]["groups"] == "deep, seq"
    assert rows["price"]["table"] == ""
    facts = page.facts()
    assert facts["model"] == "MultiTowerDIN"
    assert facts["rows"] == "1,000 train, 500 eval, batch 64"
    assert facts["sparse optimizer"] == "adagrad_optimizer"
    best = max(read_results(run), key=lambda result: result["auc"])
    name = f"{run}/model.ckpt-{best['global_step']}"
    assert facts["best checkpoint"] == f"{name} (auc:{best['auc']:.6f})"
    text = "".join(page.text)
    assert f"tzrec train {run}/pipeline.config --continue --set train_config.num_epochs=3" in text
    seconds = {row["part"]: float(row["seconds"]) for row in page.table("part")}
    assert seconds.pop("all") == pytest.approx(sum(seconds.values()), abs=0.5)
    assert "2,000" in text  # rows of two passes


def test_commands_run_as_they_stand(trained):
    _, run = trained
    source = (run / "report.html").read_text()
    commands = [html.unescape(text) for text in re.findall("<pre>(.*?)</pre>", source)]
    for command in commands[1:4]:
        program, *arguments = shlex.split(command)
        assert program == "tzrec"
        assert main(arguments) == 0
    assert (run / "export" / "model_acc.json").exists()
    assert (run / "importance" / "importance.csv").exists()
    assert commands[4] == f"tensorboard --logdir {run}"


def test_the_summary_says_where_it_is(trained, tmp_path, caplog):
    config, _ = trained
    caplog.set_level("INFO", logger="tzrec")
    train_and_evaluate(
        str(config), model_dir=str(tmp_path / "a"), edits=("train_config.num_epochs=1",)
    )
    (summary,) = [record.message for record in caplog.records if "go on" in record.message]
    assert f"report        {tmp_path / 'a' / 'report.html'}" in summary


def test_curves_go_on_after_a_resume(trained, tmp_path):
    config, _ = trained
    run = tmp_path / "run"
    for epochs in (1, 2):
        edits = (*_EDITS, f"train_config.num_epochs={epochs}")
        train_and_evaluate(str(config), model_dir=str(run), edits=edits, continue_train=True)
    history = History.read(run / HISTORY_FILENAME, 99)
    whole = History.read(trained[1] / HISTORY_FILENAME, 99)
    assert [r["step"] for r in history.evaluations] == [12, 15, 24, 31]
    assert [r["step"] for r in whole.evaluations] == [12, 24, 31]
    found = {r["step"]: r["losses"]["binary_cross_entropy"] for r in history.train}
    expected = {r["step"]: r["losses"]["binary_cross_entropy"] for r in whole.train}
    # A point of its own at the end of the first part.
    del found[15], found[16], expected[16]
    assert found == pytest.approx(expected)
    text = "".join(page_of(run / "report.html").text)
    assert "2,000" in text
    seconds = history.times[-1]["seconds"]
    assert seconds["forward"] > history.times[0]["seconds"]["forward"]


@pytest.mark.parametrize("command", ["train", "eval"])
def test_it_can_be_left_out(trained, tmp_path, command):
    config, run = trained
    if command == "train":
        run = tmp_path / "run"
        flags = ("--no-report", "--model-dir", str(run), "--set", *_SHORT)
        assert main(["train", str(config), *flags]) == 0
        assert not {"report.html", HISTORY_FILENAME} & {path.name for path in run.iterdir()}
    else:
        flags = ("--no-report", "--eval-result-filename", "other.txt")
        assert main(["eval", str(config), *flags]) == 0
        assert (run / "other.txt").exists()
        assert not (run / "other.html").exists()


def test_an_evaluation_has_a_report_of_its_own(trained):
    config, run = trained
    metrics = evaluate(str(config), checkpoint_path="best", eval_result_filename="best.txt")
    page = page_of(run / "best.html")
    rows = {row["metric"]: row for row in page.table("metric")}
    assert rows["auc"]["value"] == number(metrics["auc"])
    tiles = re.findall(r'class="tile"><b>.*?</b><small>(.*?)</small>', page.source)
    assert tiles == ["auc"]
    assert set(page.charts()) == {"ROC curve", "calibration", "scores by label"}
    assert json.loads((run / "best.txt").read_text())["auc"] == metrics["auc"]


def test_an_error_is_a_warning(trained, tmp_path, monkeypatch, caplog):
    def fail(page):
        raise ValueError("no ink")

    monkeypatch.setattr(run_report, "render", fail)
    config, run = trained
    train_and_evaluate(str(config), model_dir=str(tmp_path / "a"), edits=_SHORT)
    evaluate(str(config), eval_result_filename="fails.txt")
    told = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert [line.endswith("was not written: ValueError: no ink") for line in told] == [True, True]
    assert not (run / "fails.html").exists()


def test_without_evaluation(trained, tmp_path):
    config, _ = trained
    run = tmp_path / "run"
    train_and_evaluate(str(config), model_dir=str(run), eval_input_path="", edits=_EDITS)
    page = page_of(run / "report.html")
    assert "Scores" not in page.text
    assert "ROC curve" not in page.charts()
    assert f"tzrec eval {run}/pipeline.config --checkpoint latest --eval-input-path FILES" in (
        "".join(page.text)
    )


def test_in_a_directory_with_a_scheme(trained):
    config, _ = trained
    run = f"memory://{uuid.uuid4().hex}/run"
    train_and_evaluate(str(config), model_dir=run, edits=_EDITS)
    with storage.open_file(f"{run}/report.html", "r", encoding="utf-8") as stream:
        page = Page(stream.read())
    assert page.facts()["model_dir"] == run
    assert storage.exists(f"{run}/{HISTORY_FILENAME}")
    fsspec.filesystem("memory").store.clear()
