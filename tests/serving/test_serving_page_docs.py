"""The page ``/docs`` in a browser: every route of the model, with bodies that can be sent."""

import json
import re
from pathlib import Path

import pytest
from page_fakes import running
from serving_jobs import export_rank, load_servable

from tzrec.serving.app import create_app
from tzrec.serving.engine import Engine
from tzrec.serving.options import ServeOptions

pytest_plugins = ["page_browser"]

TOKEN = "s3cret"


@pytest.fixture(scope="module")
def servable(tmp_path_factory):
    return load_servable(export_rank(tmp_path_factory.mktemp("docs")), "v1")


def served(servable, **options):
    settings = ServeOptions(**options)
    engine = Engine(Path(__file__).parent, settings, load=lambda path, *, version: servable)
    app = create_app(engine, settings)
    engine.start()
    engine.wait(30)
    return running(app)


def card(page, path):
    return page.locator(f"details[data-path='{path}']")


def wait_for(page, element, text):
    """Waits until an answer has a text."""
    from playwright.sync_api import expect

    expect(element).to_contain_text(text)


def test_routes_can_be_read_and_tried(page, servable):
    with served(servable) as url:
        page.goto(f"{url}docs")
        predict = card(page, "/v1/predict")
        predict.wait_for()
        assert page.title() == "Routes · tzrec"
        assert page.get_by_role("heading", level=1).inner_text() == "MultiTowerDIN v1"
        shown = predict.inner_text()
        for text in ("with rows", "with columns", "with context", "rows[].item_id", "int64"):
            assert text in shown
        for index, key in enumerate(("rows", "columns", "context")):
            body = json.loads(predict.get_by_label("Body").nth(index).input_value())
            assert next(iter(body)) == key
            predict.get_by_role("button", name="Send").nth(index).click()
            answer = predict.locator("pre").nth(index)
            wait_for(page, answer, "200")
            assert '"probs"' in answer.inner_text()
        body = predict.get_by_label("Body").nth(0)
        body.fill('{"rows": [{"x": 12345678901234567890}]}')
        predict.get_by_role("button", name="Send").nth(0).click()
        answer = predict.locator("pre").nth(0)
        wait_for(page, answer, "422")
        assert "rows[0].x" in answer.inner_text()
        ready = card(page, "/ready")
        ready.locator("summary").click()
        ready.get_by_role("button", name="Send").click()
        wait_for(page, ready.locator("pre"), "ready")


def test_a_server_with_a_token(page, servable):
    with served(servable, token=TOKEN) as url:
        page.goto(f"{url}docs")
        page.get_by_label("Token").wait_for()
        assert page.locator("details").count() == 0
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Go on").click()
        card(page, "/v1/predict").wait_for()
        assert not page.get_by_label("Token").is_visible()
        card(page, "/v1/predict").get_by_role("button", name="Send").nth(0).click()
        answer = card(page, "/v1/predict").locator("pre").nth(0)
        wait_for(page, answer, "200")


def test_large_integers_stay_whole(page, servable):
    """JavaScript has 53 bits for them; ids are often hashes of 64."""
    large = 2**60 + 1

    def change(route):
        answer = route.fetch()
        text = re.sub(r'"item_id":\d+', f'"item_id":{large}', answer.text())
        route.fulfill(response=answer, body=text)

    with served(servable) as url:
        page.route("**/openapi.json", change)
        page.goto(f"{url}docs")
        body = card(page, "/v1/predict").get_by_label("Body").nth(0)
        assert f'"item_id": {large}' in body.input_value()
