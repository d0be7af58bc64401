"""The browser page on the real application over a real export: every kind of column."""

from pathlib import Path

import pyarrow as pa
import pytest
from page_fakes import running
from serving_jobs import CONTEXT, as_objects, export_rank, load_servable, make_rows

from tzrec.deploy.predictor import Predictor
from tzrec.serving.app import create_app
from tzrec.serving.engine import Engine
from tzrec.serving.options import ServeOptions

pytest_plugins = ["page_browser"]

SCHEMA = make_rows(1).schema
# The page shows five digits.
SHOWN = 6e-6


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return export_rank(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def predictor(export):
    return Predictor.load(export)


@pytest.fixture(scope="module")
def url(export):
    options = ServeOptions()
    servable = load_servable(export)
    engine = Engine(Path(__file__).parent, options, load=lambda path, *, version: servable)
    app = create_app(engine, options)
    engine.start()
    engine.wait(30)
    with running(app) as address:
        yield address
    engine.close()


@pytest.fixture
def opened(page, url):
    page.goto(url)
    page.get_by_role("button", name="Score").wait_for()
    return page


def field(page, name, candidate=1):
    label = name if name in CONTEXT else f"{name} of candidate {candidate}"
    return page.get_by_role("textbox", name=label, exact=True)


def scores(page):
    """Presses the button; place in the request → score that is shown."""
    page.evaluate("document.querySelector('.result').classList.add('old')")
    page.get_by_role("button", name="Score", exact=True).click()
    page.locator(".result:not(.old), [role=alert]:visible").first.wait_for()
    assert page.locator("[role=alert]:visible").all_inner_texts() == []
    places = page.locator("table.scores tbody th").all_inner_texts()
    shown = page.locator("table.scores [data-output=probs]").all_inner_texts()
    return {int(place) - 1: float(text) for place, text in zip(places, shown, strict=True)}


def expected_scores(predictor, rows):
    """Scores of rows as JSON has them."""
    named = {name: [row[name] for row in rows] for name in rows[0]}
    named["tastes"] = [list(taste.items()) for taste in named["tastes"]]
    columns = {name: pa.array(values, SCHEMA.field(name).type) for name, values in named.items()}
    return predictor.predict(columns)["probs"]


def test_examples_have_the_scores_of_the_predictor(opened, predictor):
    with opened.expect_response("**/v1/predict") as answer:
        found = scores(opened)
    sent = answer.value.request.post_data_json
    assert set(sent["context"]) == set(CONTEXT)
    assert len(sent["items"]) == 3
    expected = expected_scores(predictor, [sent["context"] | item for item in sent["items"]])
    assert [found[place] for place in range(3)] == pytest.approx(expected, abs=SHOWN)
    # The best first.
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_rows_that_are_typed(opened, predictor):
    """Missing, empty and long values of all types."""
    rows = as_objects(make_rows(12, seed=4))
    assert any(row["click__item_id"] is None for row in rows)
    expected = expected_scores(predictor, rows)
    for place in (0, 5, 11):
        for name, value in rows[place].items():
            text = opened.evaluate(
                "async (a) => (await import('/page/values.js')).toText(...a)",
                [value, str(SCHEMA.field(name).type)],
            )
            field(opened, name).fill(text)
        assert scores(opened)[0] == pytest.approx(expected[place], abs=SHOWN), rows[place]


def test_generated_features_are_those_of_the_model(opened, predictor):
    opened.get_by_label("show the generated features").check()
    scores(opened)
    lines = {
        line.get_by_role("rowheader").inner_text().split()[0]: line.locator("td").all_inner_texts()
        for line in opened.locator("[data-part=features] tbody tr").all()
    }
    assert list(lines) == [feature.name for feature in predictor.features]
    typed = [field(opened, "price", place).input_value() for place in (1, 2, 3)]
    assert [float(text) for text in lines["price"]] == pytest.approx([float(t) for t in typed])
    # Texts have become ids of their tables.
    assert all(0 <= int(text) < 50 for text in lines["user_id"])


def test_what_the_server_refuses_stands_at_the_field(opened):
    field(opened, "item_id", 2).fill("99999999999999999999999")
    opened.get_by_role("button", name="Score").click()
    opened.locator("[role=alert]:visible").wait_for()
    wrong = opened.locator("[aria-invalid=true]")
    assert wrong.get_attribute("aria-label") == "item_id of candidate 2"


def test_columns_on_the_other_side_score_the_same(opened):
    before = scores(opened)
    for name in ("click__item_id", "age", "tastes"):
        opened.get_by_role("button", name=f"Another {name} for each candidate").click()
    assert scores(opened) == before
    opened.get_by_role("button", name="One brand for all candidates").click()
    opened.get_by_role("button", name="Remove candidate 3").click()
    assert list(scores(opened)) != []
    assert scores(opened)[0] == before[0]


def test_the_page_of_the_routes_shares_the_style(page, url):
    page.goto(url + "docs")
    page.get_by_role("link", name="Try the model").click()
    page.get_by_role("button", name="Score").wait_for()
