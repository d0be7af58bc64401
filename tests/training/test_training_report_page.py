"""Pieces of the page: axes, gaps, words that must be escaped, values that are not numbers."""

import math
import xml.etree.ElementTree as ET

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_training_report_run import Page as Parsed
from test_training_report_run import page_of

from tzrec.main import train_and_evaluate
from tzrec.training.report import charts, html
from tzrec.training.report.bins import (
    BinaryScores,
    ClassScores,
    NumberScores,
    ScoreBins,
    TaskScores,
)
from tzrec.training.report.history import History
from tzrec.training.report.page import FeatureRow, Page, metric_table, render
from tzrec.training.report.run_report import _metric_tiles
from tzrec.training.report.svg import Frame, Line, number
from tzrec.training.report.tasks import Task

SVG = "{http://www.w3.org/2000/svg}"
CTR, CVR = (Task(name, f"_{name}", name, 1, ("binary",)) for name in ("ctr", "cvr"))


def drawn(frame, **ticks):
    return ET.fromstring(frame.svg("a chart", **ticks))


def ticks(low, high):
    """Names on the horizontal axis."""
    texts = list(drawn(Frame((low, high), (0, 1), labels=("x", "y"))).iter(f"{SVG}text"))
    return [text.text for text in texts][: [text.text for text in texts].index("x")]


@pytest.mark.parametrize(
    ("bounds", "names"),
    [
        ((0, 1), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ((0.42, 0.51), ["0.42", "0.44", "0.46", "0.48", "0.50"]),
        ((0, 0.011), ["0.000", "0.002", "0.004", "0.006", "0.008", "0.010"]),
        ((-3, 12), ["-2.5", "0.0", "2.5", "5.0", "7.5", "10.0"]),
        ((0, 150_000), ["0", "25k", "50k", "75k", "100k", "125k", "150k"]),
        ((0, 6e7), ["0", "10M", "20M", "30M", "40M", "50M", "60M"]),
        ((0, 3e-6), ["0", "5e-07", "1e-06", "1.5e-06", "2e-06", "2.5e-06", "3e-06"]),
    ],
)
def test_axes_have_round_numbers(bounds, names):
    assert ticks(*bounds) == names


@pytest.mark.parametrize("bounds", [(5, 5), (0, 0), (math.nan, math.nan), (-math.inf, 0)])
def test_any_range_can_be_drawn(bounds):
    frame = Frame(bounds, bounds, labels=("x", "y"))
    assert frame.px(0.3) == frame.px(0.3)
    assert len(ticks(*bounds)) >= 2


def test_a_line_is_where_its_points_are():
    frame = Frame((0, 10), (0, 2), labels=("x", "y"))
    frame.line(Line("a", [0, 5, 10], [0, 1, 2], dots=True))
    circles = list(drawn(frame).iter(f"{SVG}circle"))
    xs, ys = ([float(circle.get(name)) for circle in circles] for name in ("cx", "cy"))
    assert xs[1] == pytest.approx((xs[0] + xs[2]) / 2, abs=0.1)
    assert ys[1] == pytest.approx((ys[0] + ys[2]) / 2, abs=0.1)
    assert ys[0] > ys[2]
    assert circles[1].find(f"{SVG}title").text == "a 1 at 5"


def test_a_gap_interrupts_a_line():
    frame = Frame((0, 5), (0, 1), labels=("x", "y"))
    y = [0.1, 0.2, math.nan, 0.4, 0.5]
    frame.line(Line("a", range(5), y, low=[v - 0.1 for v in y], high=[v + 0.1 for v in y]))
    paths = [path for path in drawn(frame).iter(f"{SVG}path") if path.get("class") == "line c0"]
    assert len(paths) == 2
    assert "nan" not in frame.svg("a chart")


def test_a_single_point_is_a_dot():
    frame = Frame((0, 5), (0, 1), labels=("x", "y"))
    frame.line(Line("", [2], [0.5]))
    assert len(list(drawn(frame).iter(f"{SVG}circle"))) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.0, "3"),
        (1234567, "1,234,567"),
        (0.123456789, "0.12346"),
        (0.00012345, "0.00012345"),
        (12.3456, "12.346"),
        (math.nan, "–"),
        (math.inf, "inf"),
    ],
)
def test_numbers_are_readable(value, text):
    assert number(value) == text


def history(tmp_path, **metrics):
    """A history with these metrics at steps 0, 10, …"""
    made = History(tmp_path / "history")
    for index, values in enumerate(zip(*metrics.values(), strict=True)):
        made.add_train(
            index * 10, steps=10, losses={"bce_ctr": 1 / (index + 1)}, metrics={}, lr=[0.1]
        )
        made.add_evaluation(index * 10, dict(zip(metrics, values, strict=True)), {"auc_ctr": 0.01})
    return made


def test_metrics_stand_task_by_task(tmp_path):
    nan = math.nan
    made = history(
        tmp_path,
        auc_cvr=(nan, 0.6, 0.6),
        auc_ctr=(0.7, 0.9, 0.8),
        mse_ctr=(nan,) * 3,
        other=(1, 2, 3),
    )
    made.add_train(99, steps=1, losses={}, metrics={}, lr=[])
    table = Parsed(metric_table(made, [CTR, CVR])).table("metric")
    found = [list(row.values()) for row in table]
    assert found == [
        ["ctr", "auc", "0.80000", "± 0.01000", "0.90000", "10"],
        ["ctr", "mse", "–", "", "–", "20"],
        ["cvr", "auc", "0.60000", "", "0.60000", "10"],
        ["", "other", "3", "", "3", "20"],
    ]


def test_one_evaluation_is_not_compared(tmp_path):
    made = history(tmp_path, auc_ctr=(0.7,))
    (row,) = Parsed(metric_table(made, [CTR])).table("metric")
    assert row == {"metric": "auc", "at step 0": "0.70000", "95 % interval": "± 0.01000"}
    made.train.clear()
    (row,) = Parsed(metric_table(made, [CTR])).table("metric")
    assert row["value"] == "0.70000"


def test_each_task_has_its_colour_in_a_chart(tmp_path):
    made = history(tmp_path, auc_ctr=(0.7, 0.9), auc_cvr=(0.6, 0.5))
    found = {chart.title: chart for chart in charts.curve_charts(made, [CTR, CVR])}
    assert set(found) == {"bce", "auc"}
    assert found["auc"].legend == (("evaluation ctr", 0, "line"), ("evaluation cvr", 1, "line"))
    assert found["bce"].legend == (("train ctr", 0, "thin"),)
    (band,) = (
        p for p in ET.fromstring(found["auc"].svg).iter(f"{SVG}path") if "band" in p.get("class")
    )
    assert band.get("class") == "band c0"


def test_a_long_line_becomes_means(tmp_path):
    made = History(tmp_path / "history")
    for step in range(3000):
        made.add_train(step, steps=1, losses={"bce": float(step % 2)}, metrics={}, lr=[0.1])
    chart = charts.curve_charts(made, [])[0]
    (line,) = (
        p for p in ET.fromstring(chart.svg).iter(f"{SVG}path") if p.get("class") == "thin c0"
    )
    assert line.get("d").count("L") == 299


def test_a_far_off_start_lies_outside(tmp_path):
    made = History(tmp_path / "history")
    for step in range(200):
        loss = 900.0 if step < 3 else 1.0 + 0.001 * step
        made.add_train(step, steps=1, losses={"l2_loss": loss}, metrics={}, lr=[0.1])
    chart = charts.curve_charts(made, [])[0]
    assert "lie outside" in chart.note


def test_evaluations_are_always_in_the_picture(tmp_path):
    made = History(tmp_path / "history")
    for step in range(300):
        made.add_train(step, steps=1, losses={"bce": 0.30}, metrics={"auc": 0.90}, lr=[0.1])
    made.add_train(300, steps=1, losses={"bce": 0.31}, metrics={"auc": 0.91}, lr=[0.1])
    made.add_evaluation(300, {"bce": 0.9, "auc": 0.6}, {})  # overfitted
    for chart in charts.curve_charts(made, []):
        assert chart.note == ""
        (dot,) = ET.fromstring(chart.svg).iter(f"{SVG}circle")
        assert 10 < float(dot.get("cy")) < 220


def test_intervals_are_in_the_picture(tmp_path):
    made = History(tmp_path / "history")
    for step, value in ((10, 0.840), (20, 0.842)):
        made.add_evaluation(step, {"auc": value}, {"auc": 0.01})
    (chart,) = charts.curve_charts(made, [])
    (band,) = (p for p in ET.fromstring(chart.svg).iter(f"{SVG}path") if "band" in p.get("class"))
    heights = [float(point.split()[1]) for point in band.get("d").strip("MZ").split("L")]
    assert len(heights) == 4
    assert 10 < min(heights) < max(heights) < 220


def test_tiles_are_the_metrics_of_the_first_tasks(tmp_path):
    names = ("auc_cvr", "bce_loss_ctr", "auc_ctr", "other")
    made = history(tmp_path, **dict.fromkeys(names, (0.5,)))
    assert list(_metric_tiles(made, [CTR, CVR])) == ["auc_ctr", "auc_cvr", "other"]


@pytest.mark.parametrize("num_points", [1, 2, 300, 301, 3999])
def test_learning_rates_are_a_short_line(tmp_path, num_points):
    made = History(tmp_path / "history")
    for step in range(num_points):
        made.add_train(step, steps=1, losses={}, metrics={}, lr=[0.1 + step])
    picture = ET.fromstring(charts.rate_chart(made).svg)
    if num_points == 1:
        assert len(list(picture.iter(f"{SVG}circle"))) == 1
        return
    (line,) = (p for p in picture.iter(f"{SVG}path") if p.get("class") == "line c0")
    points = line.get("d")[1:].split("L")
    assert min(num_points, 150) <= len(points) <= 301
    assert float(points[-1].split()[0]) == pytest.approx(340 - 12)


def page(tmp_path, **parts):
    empty = {
        "title": "A <b> & co",
        "subtitle": "",
        "history": History(tmp_path / "history"),
        "tasks": [],
        "tiles": {},
        "scores": [],
        "evaluated": "",
        "features": [],
        "counted": "",
        "seconds": {},
        "facts": {"model_dir": "<x>"},
        "notes": [],
        "commands": {},
    }
    return Parsed(render(Page(**{**empty, **parts})))


def test_an_empty_page(tmp_path):
    found = page(tmp_path)
    assert "A <b> & co" in found.text
    assert found.facts() == {"model_dir": "<x>"}
    assert not {"Metrics", "Curves", "Scores", "Features", "Time"} & set(found.text)


def test_words_are_escaped(tmp_path):
    row = FeatureRow('a"<i>', "id", ("<g>",), 8, "t&t", 10, 0.25, None)
    found = page(
        tmp_path,
        tiles={"<k>": "<v>"},
        notes=["a < b"],
        features=[row],
        seconds={"<data>": 1.0},
        commands={"run <it>": "tzrec '<x>'"},
    )
    (line,) = found.table("feature")
    assert list(line.values()) == ['a"<i>', "id", "<g>", "t&t", "10", "8", "25.00%", "–"]
    for text in ("<v>", "<k>", "a < b", "run <it>", "tzrec '<x>'"):
        assert text in found.text


def test_what_was_not_counted_has_no_columns(tmp_path):
    row = FeatureRow("a", "id", ("g",), 8, "t", 10, None, None)
    (line,) = page(tmp_path, features=[row]).table("feature")
    assert list(line)[-1] == "width"
    assert list(line.values()) == ["a", "id", "g", "t", "10", "8"]


def some_bins():
    rows = np.array([[5.0, 3, 1], [0, 2, 4], [0.5, 2.5, 4.5], [0, 2, 4]])
    return ScoreBins.of_sums(rows)


def test_every_kind_of_scores_has_pictures(tmp_path):
    questions = tuple(BinaryScores(f"class {i}", some_bins()) for i in range(8))
    number_scores = NumberScores(
        np.arange(9.0),
        np.arange(9.0) ** 2,
        9,
        dict.fromkeys(("y", "l", "yy", "ll", "yl", "|e|"), 9.0),
    )
    found = page(
        tmp_path,
        scores=[
            TaskScores("ctr", "clk", BinaryScores("", some_bins())),
            TaskScores("kind", "kind", ClassScores(questions, np.ones((8, 8)))),
            TaskScores("big", "big", ClassScores(questions[:1], None)),
            TaskScores("price", "price", number_scores),
        ],
    )
    made = found.charts()
    # Lines that can be told apart, but numbers of every class.
    assert sum(name.startswith("Scores: class") and name.endswith("kind") for name in made) == 6
    assert "class 7" in found.text
    for name in ("ROC curve of ctr", "confusion of kind", "predicted and actual of price"):
        assert name in made
    cells = [
        rect for rect in made["confusion of kind"].iter(f"{SVG}rect") if rect.get("class") == "cell"
    ]
    assert len(cells) == 64
    assert "confusion of big" not in made


@pytest.mark.parametrize(("negative", "positive"), [(4.0, 0.0), (0.0, 4.0)])
def test_one_class_has_no_roc_but_a_page(tmp_path, negative, positive):
    bins = ScoreBins.of_sums(np.array([[negative], [positive], [1.0], [positive]]))
    found = page(tmp_path, scores=[TaskScores("", "clk", BinaryScores("", bins))])
    (row,) = found.table("mean score")
    assert row["AUC"] == "–"
    assert set(found.charts()) == {"ROC curve", "calibration", "scores by label"}


def test_equal_numbers_have_a_page(tmp_path):
    sums = {"y": 8.0, "l": 4.0, "yy": 16.0, "ll": 4.0, "yl": 8.0, "|e|": 4.0}
    scores = NumberScores(np.full(4, 2.0), np.full(4, 1.0), 4, sums)
    found = page(tmp_path, scores=[TaskScores("", "price", scores)])
    (row,) = found.table("correlation")
    assert (row["mean absolute error"], row["root mean squared error"]) == ("1", "1")
    assert (row["R²"], row["correlation"]) == ("–", "–")


def test_a_table_without_rows_is_nothing():
    assert html.table(("a",), [], numbers=0) == ""
    assert html.shares({"a": 0.0}) == ""


def test_missing_and_unknown_values_are_counted(click_files, tmp_path):
    config = click_files(tmp_path, "adagrad_optimizer")
    table = pq.read_table(tmp_path / "train.parquet")
    price = table["price"].to_numpy(zero_copy_only=False).copy()
    missing = np.arange(len(price)) % 8 == 0
    item = table["item_id"].to_numpy(zero_copy_only=False).copy()
    item[::4] = 77  # of 30
    columns = {
        "price": pa.array(np.where(missing, None, price), pa.float32()),
        "item_id": pa.array(item),
        "tags": pa.array([None if row % 2 else str(row % 5) for row in range(len(item))]),
    }
    for name, column in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    pq.write_table(table, tmp_path / "train.parquet")
    edits = ("data_config.fg_mode=FG_DAG", "train_config.num_epochs=1")
    train_and_evaluate(str(config), eval_input_path="", edits=edits)
    page = page_of(tmp_path / "run" / "report.html")
    assert "% missing" not in "".join(page.text)  # once is enough
    found = {row["feature"]: row for row in page.table("feature")}
    assert found["price"]["missing"] == "12.50%"
    assert found["price"]["unknown"] == "–"
    assert found["tags"]["missing"] == "50.00%"
    assert (found["item_id"]["missing"], found["item_id"]["unknown"]) == ("0.00%", "25.00%")
