"""The browser page against a fake server: what it sends, shows, and says when things go wrong."""

import json
import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from page_fakes import (
    HOUR,
    ITEM,
    LARGE_ID,
    LARGE_ITEM,
    RANK,
    USER,
    FakeServer,
    column,
    failed,
    fails,
    running,
    scored,
    signature,
)

import tzrec.serving.page
from tzrec.serving.page import FILES

pytest_plugins = ["page_browser"]

FOLDER = Path(tzrec.serving.page.__file__).parent
ROW = {one["name"]: one["example"] for one in [*USER, HOUR, *ITEM]}
CONTEXT = {one["name"]: one["example"] for one in [*USER, HOUR]}
SHOE = {"item_id": "shoe 7", "price": 1.25}


@pytest.fixture(scope="module")
def running_server():
    server = FakeServer(RANK)
    with running(server.app()) as url:
        server.url = url
        yield server


@pytest.fixture
def server(running_server):
    running_server.reset(answer=scored(lambda place: 0.1 + 0.2 * place))
    return running_server


@pytest.fixture
def opened(page, server):
    """The page of a model that scores, loaded."""
    page.goto(server.url)
    page.get_by_role("button", name="Score").wait_for()
    return page


def field(page, name):
    return page.get_by_role("textbox", name=name, exact=True)


def score(page):
    page.get_by_role("button", name="Score", exact=True).click()
    page.locator("[data-part=answer-line]").wait_for()


def texts(page, selector):
    return page.locator(selector).all_inner_texts()


# -- what is served ---------------------------------------------------------------------------


def get(url, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def test_every_file_is_served_and_none_else(server):
    shipped = {path.name for path in FOLDER.iterdir() if path.suffix not in ("", ".py")}
    assert {name for name, _ in FILES.values()} == shipped
    for path, (name, kind) in FILES.items():
        status, headers, body = get(server.url + path[1:])
        assert (status, headers["content-type"]) == (200, kind)
        assert body == (FOLDER / name).read_bytes()
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert get(server.url + path[1:], **{"If-None-Match": headers["etag"]})[0] == 304
    for path in ("page/__init__.py", "page/../page/__init__.py", "page/%2e%2e/batcher.py", "page/"):
        assert get(server.url + path)[0] == 404


def test_the_files_are_in_the_package_data():
    text = (FOLDER.parents[2] / "pyproject.toml").read_text()
    assert '"serving/page/*.*"' in text


def test_nothing_inline_and_nothing_from_elsewhere():
    html = (FOLDER / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", html)
    assert re.findall(r'(?:src|href)="(?:https?:)?//', html) == []
    for path in FOLDER.glob("*.js"):
        text = path.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|\beval\(|new Function", text)
        assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text) == []


# -- scoring ----------------------------------------------------------------------------------


def test_scores_the_example(opened, server):
    assert opened.get_by_role("heading", name="DeepFM").is_visible()
    assert field(opened, "hour").input_value() == "20"
    assert field(opened, "item_id of candidate 1").input_value() == "shoe 7"
    score(opened)
    assert server.requests[-1][0] == "/v1/predict"
    # Every digit of a large id, separators of texts, short floats: what the schema said.
    assert server.body() == {"context": CONTEXT, "items": [SHOE]}
    assert str(LARGE_ID) in server.requests[-1][1]
    assert texts(opened, "table.scores [data-output=probs]") == ["0.10000"]
    assert "1 candidate · version v1" in opened.locator("[data-part=answer-line]").inner_text()


def test_candidates_are_added_copied_and_removed(opened, server):
    opened.get_by_role("button", name="Add a candidate").click()
    # The new row is where one goes on to type.
    opened.keyboard.press("Control+A")
    opened.keyboard.type("sock")
    opened.get_by_role("button", name="Copy candidate 1").click()
    field(opened, "price of candidate 2").fill("3")
    score(opened)
    assert server.body()["items"] == [SHOE, SHOE | {"price": 3}, SHOE | {"item_id": "sock"}]
    # The best first; the number is the place in the request.
    assert texts(opened, "table.scores tbody th") == ["3", "2", "1"]
    assert texts(opened, "table.scores [data-output=probs]") == ["0.50000", "0.30000", "0.10000"]
    opened.get_by_role("button", name="Remove candidate 2").click()
    assert field(opened, "item_id of candidate 2").input_value() == "sock"
    opened.get_by_role("button", name="Remove candidate 1").click()
    assert opened.get_by_role("button", name="Remove candidate 1").is_disabled()


def test_scores_can_be_sorted_by_each_output(opened, server):
    server.answer = scored(lambda place: 0.9 - 0.2 * place)
    opened.get_by_role("button", name="Add a candidate").click()
    score(opened)
    assert texts(opened, "table.scores tbody th") == ["1", "2"]
    opened.get_by_role("button", name="logits").click()
    assert texts(opened, "table.scores tbody th") == ["2", "1"]
    opened.get_by_role("button", name="logits").press("Enter")
    assert texts(opened, "table.scores tbody th") == ["1", "2"]
    assert opened.locator("th[aria-sort=ascending]").inner_text() == "logits ↑"
    widths = opened.evaluate("[...document.querySelectorAll('.fill')].map((f) => f.style.width)")
    assert widths == ["100%", "77.78%"]  # .9 and .7 of .9


def test_works_with_the_keyboard_alone(opened, server):
    field(opened, "hour").focus()
    opened.keyboard.press("Control+A")
    opened.keyboard.type("7")
    opened.keyboard.press("Enter")
    opened.locator("[data-part=answer-line]").wait_for()
    assert server.body()["context"]["hour"] == 7


def test_columns_move_between_context_and_candidates(opened, server):
    opened.get_by_role("button", name="Another hour for each candidate").click()
    opened.get_by_role("button", name="Copy candidate 1").click()
    field(opened, "hour of candidate 2").fill("21")
    opened.get_by_role("button", name="One price for all candidates").click()
    score(opened)
    assert server.body() == {
        "context": {name: ROW[name] for name in ("user_id", "tags", "history", "price")},
        "items": [{"item_id": "shoe 7", "hour": 20}, {"item_id": "shoe 7", "hour": 21}],
    }
    opened.get_by_role("button", name="Example again").click()
    assert opened.locator("[data-part=answer-line]").count() == 0
    assert field(opened, "price").input_value() == "1.25"


@pytest.mark.parametrize("sides", ["user", "item"])
def test_rows_where_all_columns_are_of_one_side(page, server, sides):
    columns = [one | {"side": sides} for one in [*USER, HOUR]]
    server.schema = RANK | {"predict": signature(columns)}
    page.goto(server.url)
    score(page)
    assert server.body() == {"rows": [CONTEXT]}


def test_features_are_shown_and_differences_marked(opened, server):
    features = ["user_id:7 | hour:20 | price:1.25", "user_id:7 | hour:20 | price:9.5"]
    server.answer = scored(lambda place: 0.5, __features__=features)
    opened.get_by_role("button", name="Add a candidate").click()
    score(opened)
    assert "features" not in server.body()
    opened.get_by_label("show the generated features").check()
    score(opened)
    opened.locator("[data-part=features] td").first.wait_for()
    assert server.body()["features"] is True
    assert texts(opened, "[data-part=features] td") == ["7", "7", "20", "20", "1.25", "9.5"]
    (differing,) = texts(opened, "[data-part=features] tr.differs th")
    assert differing.split() == ["price", "(differs)"]


def test_outputs_that_are_lists_and_whole_numbers(opened, server):
    outputs = {"classes": [[0.25, 0.75]], "best": [1]}
    server.answer = lambda body: (200, {"version": "v1", "num_rows": 1, "outputs": outputs})
    score(opened)
    assert texts(opened, "[data-output=classes]") == ["[0.25, 0.75]"]
    assert texts(opened, "[data-output=best]") == ["1"]


def test_the_request_as_a_command(opened, server):
    field(opened, "item_id of candidate 1").fill("it's")
    score(opened)
    opened.get_by_text("The request, and the answer").click()
    command = opened.locator("[data-part=request] pre").first.inner_text()
    body = server.requests[-1][1]
    opened.locator("[data-part=request]").get_by_role("button", name="Copy").first.click()
    opened.get_by_role("button", name="Copied").wait_for()
    assert opened.evaluate("navigator.clipboard.readText()") == command
    assert command == (
        f'curl -s {server.url}v1/predict -H "Content-Type: application/json" \\\n'
        f"  -d '" + body.replace("'", "'\\''") + "'"
    )


# -- what cannot be sent, and what the server refuses -----------------------------------------


@pytest.mark.parametrize(
    ("name", "typed", "said"),
    [
        ("hour", "3.5", "not a whole number"),
        ("user_id", "", "needs a value"),
        ("history", "3, 4", "write it as JSON, for example [1, 2]"),
        ("price of candidate 1", "cheap", "not a number"),
    ],
)
def test_values_of_another_type_are_not_sent(opened, server, name, typed, said):
    field(opened, name).fill(typed)
    opened.get_by_role("button", name="Score").click()
    opened.get_by_role("alert").wait_for()
    wrong = field(opened, name)
    assert wrong.get_attribute("aria-invalid") == "true"
    assert said in opened.locator(f"#{wrong.get_attribute('aria-describedby')}").inner_text()
    assert opened.evaluate("document.activeElement.id") == wrong.get_attribute("id")
    assert server.requests == []
    wrong.press("End")
    opened.keyboard.type("1")
    assert wrong.get_attribute("aria-invalid") is None


def test_missing_values_are_null(opened, server):
    for name in ("tags", "history", "hour", "price of candidate 1"):
        field(opened, name).fill("")
    field(opened, "item_id of candidate 1").fill('""')
    score(opened)
    assert server.body() == {
        "context": {"user_id": LARGE_ID, "tags": None, "history": None, "hour": None},
        "items": [{"item_id": "", "price": None}],
    }


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("context.hour", "hour"),
        ("context.history[1]", "history"),
        ("items[1].price", "price of candidate 2"),
        ("hour", "hour"),
    ],
)
def test_errors_of_the_server_stand_at_the_field(opened, server, place, name):
    opened.get_by_role("button", name="Add a candidate").click()
    server.answer = fails(422, code="wrong", message="99 is too much", field=place, hint="take 3")
    opened.get_by_role("button", name="Score").click()
    opened.get_by_role("alert").wait_for()
    assert opened.get_by_role("alert").inner_text().split("\n\n") == ["99 is too much", "take 3"]
    assert texts(opened, ".problem:not([hidden])") == ["99 is too much"]
    assert opened.evaluate("document.activeElement.id") == field(opened, name).get_attribute("id")
    server.answer = scored(lambda place: 0.5)
    score(opened)
    assert not opened.get_by_role("alert").is_visible()
    assert texts(opened, ".problem:not([hidden])") == []


def test_overload_says_when_to_try_again(opened, server):
    server.answer = fails(429, code="overloaded", message="too many rows wait")
    server.headers = {"Retry-After": "3"}
    opened.get_by_role("button", name="Score").click()
    opened.get_by_role("alert").wait_for()
    assert "Try again in 3 s." in opened.get_by_role("alert").inner_text()


def test_answers_that_are_not_json(opened, server):
    opened.route("**/v1/predict", lambda route: route.fulfill(status=502, body="<html>oops"))
    opened.get_by_role("button", name="Score").click()
    opened.get_by_role("alert").wait_for()
    assert opened.get_by_role("alert").inner_text() == "The server answered 502."
    opened.unroute("**/v1/predict")
    opened.route("**/v1/predict", lambda route: route.abort())
    opened.get_by_role("button", name="Score").click()
    opened.get_by_text("The server does not answer.").wait_for()


def test_waits_until_the_server_is_ready(page, server):
    server.schema = failed("not_ready", "no model is loaded yet")
    page.goto(server.url)
    page.get_by_text("no model is loaded yet").wait_for()
    assert page.locator("#state").inner_text() == "loading"
    server.schema = RANK
    page.get_by_role("button", name="Score").wait_for()
    assert page.locator("#state").inner_text() == "serving"


def test_asks_for_a_token_and_keeps_it_in_the_tab(page, server):
    server.token = "sesame"
    page.goto(server.url)
    page.get_by_label("Token").fill("wrong")
    page.keyboard.press("Enter")
    from playwright.sync_api import expect

    expect(page.get_by_label("Token")).to_be_focused()
    page.get_by_label("Token").fill("sesame")
    page.keyboard.press("Enter")
    score(page)
    assert "$TOKEN" in page.locator("[data-part=request] pre").first.text_content()
    assert "sesame" not in page.content()
    page.reload()
    page.get_by_role("button", name="Score").wait_for()
    assert page.evaluate("localStorage.length") == 0


def test_a_new_version_is_said_and_loaded(opened, server):
    answer = scored(lambda place: 0.5)
    server.answer = lambda body: (200, answer(body)[1] | {"version": "v2"})
    server.schema = RANK | {"version": "v2", "predict": signature([*USER, *ITEM])}
    score(opened)
    assert "changed to version v2" in opened.locator("#notice").inner_text()
    opened.get_by_role("button", name="Load the fields again").click()
    field(opened, "hour").wait_for(state="detached")
    assert not opened.locator("#notice").is_visible()


# -- finding items, vectors -------------------------------------------------------------------


RETRIEVER = {
    "version": "v1",
    "model": "DSSM",
    "kind": "retriever",
    "capabilities": ["retrieve", "embed"],
    "retrieve": signature(USER) | {"can_exclude": True, "item_id_type": "int64"},
    "embed": {"user": signature(USER)},
}
NEIGHBOURS = {"version": "v1", "num_rows": 1, "item_ids": [[LARGE_ITEM, 5]], "scores": [[0.9, 0.4]]}


def test_finds_items(page, server):
    server.reset(RETRIEVER, lambda body: (200, NEIGHBOURS))
    page.goto(server.url)
    field(page, "k").fill("2")
    field(page, "exclude").fill(f"7, {LARGE_ID}")
    page.get_by_role("button", name="Find items").click()
    page.locator("[data-part=answer-line]").wait_for()
    assert server.requests[-1][0] == "/v1/retrieve"
    user = {one["name"]: one["example"] for one in USER}
    assert server.body() == {"rows": [user], "k": 2, "exclude": [[7, LARGE_ID]]}
    assert texts(page, "table.scores tbody th") == [str(LARGE_ITEM), "5"]
    field(page, "exclude").fill("seven")
    page.get_by_role("button", name="Find items").click()
    assert "not a whole number" in page.locator(".problem:not([hidden])").inner_text()


def test_ids_that_are_texts(page, server):
    texts_of = RETRIEVER["retrieve"] | {"item_id_type": "string"}
    found = NEIGHBOURS | {"item_ids": [["a\x1db", "c"]]}
    server.reset(RETRIEVER | {"retrieve": texts_of}, lambda body: (200, found))
    page.goto(server.url)
    field(page, "exclude").fill("x, y")
    page.get_by_role("button", name="Find items").click()
    page.locator("[data-part=answer-line]").wait_for()
    assert server.body()["exclude"] == [["x", "y"]]
    assert texts(page, "table.scores tbody th") == ["a\u241db", "c"]


def test_tabs_and_vectors(page, server):
    server.reset(RETRIEVER, lambda body: (200, {"version": "v1", "vectors": [[0.6, -0.8]]}))
    page.goto(server.url)
    page.get_by_role("tab", name="Find items").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", name="Vectors").get_attribute("aria-selected") == "true"
    assert not page.get_by_role("button", name="Find items").is_visible()
    page.get_by_role("button", name="Make the vector").click()
    page.locator("[data-part=vector]").wait_for()
    assert server.body()["tower"] == "user"
    assert "length 1.0000" in page.locator("[data-part=vector]").inner_text()
    assert page.locator("[data-part=vector] rect").count() == 2


def test_towers_can_be_chosen(page, server):
    towers = {"user": signature(USER), "item": signature(ITEM)}
    schema = {**RETRIEVER, "capabilities": ["embed"], "embed": towers}
    schema.pop("retrieve")
    server.reset(schema, lambda body: (200, {"version": "v1", "vectors": [[[1, 0], [0, 1]]]}))
    page.goto(server.url)
    page.get_by_label("Tower").select_option("item")
    page.get_by_role("button", name="Make the vector").click()
    page.locator("[data-part=vector]").first.wait_for()
    assert server.body() == {"tower": "item", "rows": [SHOE]}
    assert page.locator("[data-part=vector]").count() == 2  # several interests


# -- values -----------------------------------------------------------------------------------

VALUES = [
    ("int64", "-9223372036854775808", "-9223372036854775808"),
    ("uint64", " +7 ", "7"),
    ("double", "1e-3", "0.001"),
    ("double", "1e999", None),
    ("float", "NaN", None),
    ("bool", "true", "true"),
    ("bool", "yes", None),
    ("string", "null", '"null"'),
    ("string", "a␝b", '"a\\u001db"'),
    ("list<item: string>", '["a\\u001d", null]', '["a\\u001d", null]'),
    ("list<item: int64>", "[9007199254740993]", "[9007199254740993]"),
    ("list<item: double>", "[1e999]", None),
    ("map<string, float>", '{"a": 1.5}', '{"a": 1.5}'),
    ("any", "word", '"word"'),
    ("any", "12", "12"),
    ("any", "[1, 2]", "[1, 2]"),
    ("any", '"12"', '"12"'),
]


def test_values_that_are_typed(opened):
    typed = opened.evaluate(
        """async (values) => {
          const { fromText, dumpJson } = await import("/page/values.js");
          return values.map(([type, text]) => {
            try { return dumpJson(fromText(text, type)); } catch { return null; }
          });
        }""",
        VALUES,
    )
    wanted = [None if json_text is None else json.loads(json_text) for _, _, json_text in VALUES]
    assert [None if text is None else json.loads(text) for text in typed] == wanted


def test_values_of_the_schema_survive_the_field(opened):
    values = [
        *[("int64", "-9223372036854775808"), ("string", '"a\\u001db"'), ("string", '""')],
        *[("string", "null"), ("any", '"12"'), ("any", '"word"'), ("any", "12"), ("any", '""')],
        *[("any", '["a", 1.5]'), ("list<item: string>", '["x\\u0003"]'), ("double", "0.1")],
    ]
    found = opened.evaluate(
        """async (values) => {
          const { dumpJson, fromText, parseJson, toText } = await import("/page/values.js");
          const there = ([type, text]) => toText(parseJson(text), type);
          return values.map((one) => dumpJson(fromText(there(one), one[0])));
        }""",
        values,
    )
    assert [json.loads(text) for text in found] == [json.loads(text) for _, text in values]


# -- for everybody ----------------------------------------------------------------------------

HOSTILE = "<img src=x onerror=alert(1)>"


def test_hostile_texts_are_texts(page, server):
    server.schema = RANK | {
        "model": HOSTILE,
        "version": HOSTILE,
        "predict": signature([column(HOSTILE, "string", "item", HOSTILE)]),
    }
    features = [f"{HOSTILE}:{HOSTILE}"]
    server.answer = lambda body: (
        200,
        {"version": HOSTILE, "num_rows": 1, "outputs": {HOSTILE: [0.5], "__features__": features}},
    )
    page.goto(server.url)
    score(page)
    assert page.locator("img").count() == 1  # our own
    assert page.get_by_text(HOSTILE).count() > 3
    server.answer = fails(422, code=HOSTILE, message=HOSTILE, field=HOSTILE, hint=HOSTILE)
    page.get_by_role("button", name="Score").click()
    page.get_by_role("alert").wait_for()
    assert page.locator("img").count() == 1


CONTRAST = """() => {
  const light = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).map((v) => {
      const c = Number(v) / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const back = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (!/, 0\\)$/.test(color)) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const all = [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility()
    && !e.closest("svg") && !e.disabled
    && (e.value || [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())));
  return all.map((e) => {
    const [a, b] = [light(getComputedStyle(e).color), light(back(e))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), e.tagName, e.className, e.textContent.slice(0, 20)];
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_their_background(page, server, scheme):
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    server.answer = scored(lambda place: 0.5, __features__=["a:1 | b:2", "a:1 | b:3"])
    page.goto(server.url)
    page.get_by_role("button", name="Add a candidate").click()
    score(page)
    page.get_by_text("The request, and the answer").click()
    measured = page.evaluate(CONTRAST)
    server.answer = fails(422, code="wrong", message="too much", field="context.hour", hint="3")
    page.get_by_role("button", name="Score").click()
    page.get_by_role("alert").wait_for()
    measured += page.evaluate(CONTRAST)
    assert len(measured) > 60
    assert [entry for entry in measured if entry[0] < 4.5] == []
    backgrounds = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", backgrounds)[0]) < 128) == (scheme == "dark")


def test_everything_has_a_name(opened):
    opened.get_by_role("button", name="Add a candidate").click()
    tree = opened.locator("body").aria_snapshot()
    assert tree.count("textbox") == 4 + 2 * 2
    nameless = re.findall(r"- (?:textbox|button|checkbox|combobox|link)(?! \")", tree)
    assert nameless == []
    ids = opened.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))


def test_fits_a_small_screen(opened):
    opened.set_viewport_size({"width": 360, "height": 700})
    score(opened)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360
