"""The application over a ranking model: requests, answers, refusals, limits, metrics."""

import asyncio
import io
import json
import logging
import threading
import time

import numpy as np
import orjson
import pyarrow as pa
import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving_jobs import CONTEXT, as_objects, export_rank, load_servable, make_rows, serving

from tzrec.deploy import Predictor
from tzrec.errors import ServingError

ARROW = "application/vnd.apache.arrow.stream"
TABLE = make_rows(5, seed=9).drop_columns(["label"])
ROWS = as_objects(TABLE)
ITEMS = [{n: row[n] for n in row if n not in CONTEXT} for row in ROWS]
USER = {name: ROWS[0][name] for name in CONTEXT}


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return export_rank(tmp_path_factory.mktemp("rank"))


@pytest.fixture(scope="module")
def servable(export):
    return load_servable(export, "v1")


@pytest.fixture(scope="module")
def expected(export):
    """Scores of the library, on rows as they lie in files."""
    return Predictor.load(export).predict(TABLE)


@pytest.fixture(scope="module")
def client(servable):
    with serving(servable, max_rows=1000, max_body_bytes=1 << 20, max_text=1000) as client:
        yield client


def error_of(response):
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["code", "message", "field", "hint"]
    return response.status_code, body["error"]["code"], body["error"]["field"]


def stream_of(table):
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table)
    return sink.getvalue()


def post_arrow(client, table, query="", **headers):
    path = f"/v1/predict{query}"
    return client.post(path, content=stream_of(table), headers={"Content-Type": ARROW} | headers)


class TestPredict:
    @pytest.mark.parametrize("shape", ["rows", "columns"])
    def test_scores_are_those_of_the_library(self, client, expected, shape):
        columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
        body = {"rows": ROWS} if shape == "rows" else {"columns": columns}
        answer = client.post("/v1/predict", json=body)
        assert answer.status_code == 200
        assert answer.headers["x-tzrec-version"] == "v1"
        found = answer.json()
        assert (found["version"], found["num_rows"]) == ("v1", 5)
        assert sorted(found["outputs"]) == sorted(expected) == ["logits", "probs"]
        for name, values in expected.items():
            # Shortest decimals that give the same float: equal bit by bit.
            assert np.float32(found["outputs"][name]).tobytes() == values.tobytes()

    @pytest.mark.parametrize("shape", ["objects", "columns"])
    def test_candidates_of_one_user(self, client, servable, shape):
        both = [USER | item for item in ITEMS]
        wanted = client.post("/v1/predict", json={"rows": both}).json()["outputs"]
        columns = {name: [item[name] for item in ITEMS] for name in ITEMS[0]}
        items = ITEMS if shape == "objects" else columns
        found = client.post("/v1/predict", json={"context": USER, "items": items}).json()
        assert found["num_rows"] == 5
        np.testing.assert_allclose(found["outputs"]["probs"], wanted["probs"], rtol=0, atol=1e-6)
        assert len(set(wanted["probs"])) > 1
        assert not servable.is_tiled

    @pytest.mark.parametrize("mode", [2, 3])
    def test_a_model_that_takes_users_once(self, client, tmp_path, monkeypatch, mode):
        """Other requests share no user: each row then has its own."""
        servable = load_servable(export_rank(tmp_path, input_tile=mode))
        assert servable.is_tiled
        asked, real = [], servable.predict_request
        monkeypatch.setattr(
            servable, "predict_request", lambda *both: asked.append(both) or real(*both)
        )
        requests = [{"context": USER, "items": ITEMS, "features": True}, {"rows": ROWS}]
        with serving(servable) as tiled:
            for body in requests:
                found, wanted = (
                    one.post("/v1/predict", json=body).json()["outputs"] for one in (tiled, client)
                )
                assert found.get("__features__") == wanted.get("__features__")
                np.testing.assert_allclose(found["probs"], wanted["probs"], rtol=0, atol=1e-6)
            numbers = numbers_of(tiled)
        ((context, items),) = asked
        assert (sorted(context), len(context["age"])) == (sorted(CONTEXT), 1)
        assert len(items["price"]) == 5
        assert numbers["tzrec_request_rows_sum", "/v1/predict"] == 10

    def test_arrow_in_and_out(self, client, expected):
        answer = post_arrow(client, TABLE, Accept=ARROW)
        assert answer.headers["content-type"] == ARROW
        found = pa.ipc.open_stream(answer.content).read_all()
        assert found.schema.metadata == {b"version": b"v1"}
        assert answer.headers["x-tzrec-version"] == "v1"
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name].to_numpy(), values)

    def test_arrow_in_json_out_and_back(self, client, expected):
        found = post_arrow(client, TABLE, "?outputs=probs&features=true").json()["outputs"]
        assert list(found) == ["probs", "__features__"]
        np.testing.assert_array_equal(np.float32(found["probs"]), expected["probs"])
        answer = client.post("/v1/predict", json={"rows": ROWS}, headers={"Accept": ARROW})
        table = pa.ipc.open_stream(answer.content).read_all()
        np.testing.assert_array_equal(table["probs"].to_numpy(), expected["probs"])

    @pytest.mark.parametrize(
        ("accept", "kind"),
        [
            ("*/*", "application/json"),
            ("application/*;q=0.5", "application/json"),
            (f"{ARROW};q=0.4, application/json;q=0.6", "application/json"),
            (f"application/json;q=0.4, {ARROW}", ARROW),
        ],
    )
    def test_the_client_chooses_the_answer(self, client, accept, kind):
        answer = client.post("/v1/predict", json={"rows": ROWS}, headers={"Accept": accept})
        assert answer.headers["content-type"] == kind

    def test_outputs_and_features(self, client):
        body = {"rows": ROWS, "outputs": ["probs"], "features": True}
        found = client.post("/v1/predict", json=body).json()["outputs"]
        assert list(found) == ["probs", "__features__"]
        texts = found["__features__"]
        assert len(texts) == 5
        parts = dict(part.split(":", 1) for part in texts[0].split(" | "))
        assert parts["item_id"] == str(ROWS[0]["item_id"])
        assert float(parts["price"]) == pytest.approx(ROWS[0]["price"])
        assert parts["click__item_id"] == ROWS[0]["click__item_id"]

    def test_no_rows(self, client):
        for body in ({"rows": []}, {"rows": [], "features": True}):
            found = client.post("/v1/predict", json=body).json()
            assert found["num_rows"] == 0
            assert set(map(len, found["outputs"].values())) == {0}

    def test_nulls_are_missing_values(self, client, export):
        row = ROWS[0] | {"tags": None, "price": None, "tastes": None, "click__item_id": None}
        found = client.post("/v1/predict", json={"rows": [row]}).json()["outputs"]["probs"]
        columns = {name: [value] for name, value in row.items()}
        wanted = Predictor.load(export).predict(columns)["probs"]
        np.testing.assert_allclose(np.float32(found), wanted, rtol=0, atol=1e-7)

    def test_a_large_request_goes_in_slices(self, servable):
        rows = make_rows(600, seed=2).drop_columns(["label"])
        wanted = servable.predict({n: rows[n].combine_chunks() for n in rows.schema.names})
        with serving(servable, max_batch_rows=128) as client:
            found = client.post("/v1/predict", json={"rows": as_objects(rows)}).json()
        np.testing.assert_allclose(found["outputs"]["probs"], wanted["probs"], rtol=0, atol=1e-6)

    def test_requests_at_the_same_time(self, client, servable):
        """Merged or not, everybody gets the own scores."""
        rows = as_objects(make_rows(24, seed=4))
        wanted = client.post("/v1/predict", json={"rows": rows}).json()["outputs"]["probs"]
        found = {}

        def ask(i):
            answer = client.post("/v1/predict", json={"rows": rows[i : i + 2]})
            found[i] = answer.json()["outputs"]["probs"]

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(0, 24, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for i in range(0, 24, 2):
            np.testing.assert_allclose(found[i], wanted[i : i + 2], rtol=0, atol=1e-6)


class TestRefusals:
    @pytest.mark.parametrize(
        ("body", "status", "code", "field"),
        [
            ({"rows": [{**ROWS[0], "price": "x"}]}, 422, "wrong_type", "rows[0].price"),
            ({"rows": [ROWS[0], {**ROWS[0], "item_id": 2**63}]}, 422, "out_of_range",
             "rows[1].item_id"),
            ({"rows": [{**ROWS[0], "label": 1}]}, 422, "unknown_field", "rows[0].label"),
            ({"rows": [{**ROWS[0], "user_id": "u" * 1001}]}, 422, "text_too_long",
             "rows[0].user_id"),
            ({"rows": [ROWS[0]] * 1001}, 413, "too_many_rows", "rows"),
            ({"rows": [], "output": ["probs"]}, 422, "unknown_field", "output"),
            ({"rows": [], "outputs": "probs"}, 422, "wrong_type", "outputs"),
            ({"rows": [], "outputs": ["probs", "prob"]}, 422, "unknown_output", "outputs[1]"),
            ({"rows": [], "outputs": ["probs", "probs"]}, 422, "repeated_output", "outputs[1]"),
            ({"rows": [], "outputs": [{}]}, 422, "unknown_output", "outputs[0]"),
            ({"rows": [], "features": 1}, 422, "wrong_type", "features"),
            ({"rows": [], "k": 3}, 422, "unknown_field", "k"),
            ({}, 422, "bad_shape", None),
        ],
    )  # fmt: skip
    def test_what_is_wrong_is_named(self, client, body, status, code, field):
        assert error_of(client.post("/v1/predict", json=body)) == (status, code, field)

    def test_what_the_model_refuses_is_named(self, tmp_path):
        """Encoded ids must lie inside the table; only the model knows."""
        with serving(load_servable(export_encoded(tmp_path), "v1")) as client:
            good = {"user_id": 1, "item_id": 2}
            bad = good | {"item_id": 40}
            for body, field in (
                ({"rows": [good, bad]}, "rows[1].item_id"),
                ({"columns": {"user_id": [1, 1], "item_id": [2, 40]}}, "columns.item_id[1]"),
                ({"context": {"user_id": 1}, "items": [good["item_id"], 40]}, "items[0]"),
                ({"context": {"item_id": 40}, "items": [{"user_id": 1}]}, "context.item_id"),
            ):
                status, code, found = error_of(client.post("/v1/predict", json=body))
                assert (status, found) == (422, field)
                assert code == ("wrong_type" if field == "items[0]" else "invalid_value")
            assert client.post("/v1/predict", json={"rows": [good]}).status_code == 200

    @pytest.mark.parametrize(
        ("headers", "status", "code"),
        [
            ({}, 415, "unsupported_media_type"),
            ({"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
            ({"Content-Type": "application/json; charset=latin-1"}, 415, "unsupported_media_type"),
            ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415, "compressed"),
            ({"Content-Type": "application/json", "Accept": "text/html"}, 406, "not_acceptable"),
            ({"Content-Type": "application/json", "Accept": "*/*;q=x"}, 406, "not_acceptable"),
        ],
    )
    def test_headers(self, client, headers, status, code):
        answer = client.post("/v1/predict", content=b'{"rows": []}', headers=headers)
        assert error_of(answer) == (status, code, None)

    @pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=UTF-8"])
    def test_spellings_of_json(self, client, kind):
        answer = client.post("/v1/predict", content=b'{"rows": []}', headers={"Content-Type": kind})
        assert answer.status_code == 200

    @pytest.mark.parametrize("chunked", [False, True])
    def test_a_body_that_is_too_large(self, client, chunked):
        taken = []

        def chunks():
            for _ in range(64):
                taken.append(1)
                yield b" " * (1 << 15)

        content = chunks() if chunked else b" " * ((1 << 20) + 1)
        headers = {"Content-Type": "application/json"}
        answer = client.post("/v1/predict", content=content, headers=headers)
        assert error_of(answer) == (413, "body_too_large", None)
        assert "connection" not in answer.headers

    def test_a_body_that_does_not_come(self, servable):
        """Asked at the level of ASGI, as a test client always sends."""
        with serving(servable, request_timeout=0.05) as client:
            sent = []

            async def receive():
                await asyncio.sleep(5)
                raise AssertionError("waited for too long")

            async def send(message):
                sent.append(message)

            scope = {
                "type": "http", "method": "POST", "path": "/v1/predict", "query_string": b"",
                "headers": [(b"content-type", b"application/json")], "root_path": "",
            }  # fmt: skip
            # On a thread: a browser of other tests keeps an event loop in this one.
            thread = threading.Thread(target=lambda: asyncio.run(client.app(scope, receive, send)))
            thread.start()
            thread.join()
        assert sent[0]["status"] == 408
        assert json.loads(sent[1]["body"])["error"]["code"] == "timeout"

    def test_a_client_that_goes_costs_no_model_call(self, servable, monkeypatch):
        """Asked at the level of ASGI: the second of two requests goes while it waits."""
        gate, calls, real = threading.Event(), [], servable.predict

        def predict(columns):
            calls.append(len(columns["price"]))
            assert gate.wait(20)
            return real(columns)

        async def ask(client):
            first = asyncio.create_task(post(client.app, {"rows": ROWS[:1]}))
            while not calls:
                await asyncio.sleep(0.01)
            gone = await post(client.app, {"rows": ROWS[:2]}, goes=True)
            gate.set()
            return (await first)[0]["status"], gone

        monkeypatch.setattr(servable, "predict", predict)
        with serving(servable, threads=1) as client:
            status, gone = in_a_thread(ask, client)
            assert status == 200
            assert gone[0]["status"] == 499
            assert client.post("/v1/predict", json={"rows": ROWS}).status_code == 200
            key = "tzrec_request_seconds_count", "/v1/predict", "499"
            assert numbers_of(client)[key] == 1
        assert calls == [1, 5]

    def test_bodies_that_are_too_large_together(self, servable):
        """Seventeen clients that each send all but the end of the largest body."""
        size = 1000

        async def ask(client):
            ends = asyncio.Event()
            body = json.dumps({"rows": []}).ljust(size - 1)
            open_ones = [asyncio.create_task(post(client.app, body, ends=ends)) for _ in range(17)]
            done, _ = await asyncio.wait(open_ones, return_when=asyncio.FIRST_COMPLETED)
            refused = [task.result()[0]["status"] for task in done]
            ends.set()
            return refused, [(await task)[0]["status"] for task in open_ones]

        with serving(servable, max_body_bytes=size) as client:
            refused, statuses = in_a_thread(ask, client)
            assert refused == [429]
            assert sorted(statuses) == [200] * 16 + [429]
            for _ in range(20):
                assert client.post("/v1/predict", content=b'{"rows": []}', headers={
                    "Content-Type": "application/json"}).status_code == 200  # fmt: skip

    def test_arguments_behind_the_path(self, client):
        answer = client.post("/v1/predict?outputs=probs", json={"rows": ROWS})
        assert error_of(answer) == (422, "unknown_field", "outputs")
        assert error_of(post_arrow(client, TABLE, "?output=probs"))[1:] == (
            "unknown_field", "output")  # fmt: skip
        assert error_of(post_arrow(client, TABLE, "?outputs=a&outputs=b"))[1:] == (
            "repeated_key", "outputs")  # fmt: skip
        assert error_of(post_arrow(client, TABLE, "?features=yes"))[1:] == (
            "wrong_type", "features")  # fmt: skip

    def test_arrow_bodies(self, client):
        wrong = TABLE.drop_columns(["price"])
        assert error_of(post_arrow(client, wrong)) == (422, "missing_field", "price")
        headers = {"Content-Type": ARROW}
        answer = client.post("/v1/predict", content=b"[]", headers=headers)
        assert error_of(answer) == (400, "bad_arrow", None)

    def test_what_the_model_does_not_do(self, client):
        for path in ("/v1/retrieve", "/v1/embed"):
            answer = client.post(path, json={"rows": []})
            assert error_of(answer) == (404, "not_served", None)
            assert "/v1/predict" in answer.json()["error"]["hint"]

    def test_paths_and_methods(self, client):
        assert error_of(client.get("/v2/predict"))[:2] == (404, "not_found")
        assert error_of(client.get("/v1/predict/", follow_redirects=False))[:2] == (
            404, "not_found")  # fmt: skip
        for path in ("/../../etc/passwd", "/page/../app.py", "/page/%2e%2e/app.py", "//etc/passwd"):
            assert client.get(path).status_code == 404
        answer = client.get("/v1/predict")
        assert error_of(answer)[:2] == (405, "method_not_allowed")
        assert answer.headers["allow"] == "POST"

    def test_a_fault_of_ours_tells_nothing(self, servable, monkeypatch, caplog):
        secret = "the password of the database"

        def broken(columns):
            raise ServingError(secret) if len(columns["price"]) == 1 else ZeroDivisionError(secret)

        with serving(servable) as client:
            monkeypatch.setattr(servable, "predict", broken)
            for rows in (ROWS[:1], ROWS):
                caplog.clear()
                with caplog.at_level(logging.ERROR, "tzrec"):
                    logging.getLogger("tzrec").propagate = True
                    answer = client.post("/v1/predict", json={"rows": rows})
                assert error_of(answer)[:2] == (500, "internal")
                assert secret not in answer.text
                number = answer.json()["error"]["message"].split()[-1]
                assert number in caplog.text
                assert secret in caplog.text
            monkeypatch.undo()
            assert client.post("/v1/predict", json={"rows": ROWS}).status_code == 200


async def post(app, body, *, goes=False, ends=None):
    """Asks for scores at the level of ASGI; returns what is sent.

    Args:
        app: the application.
        body: JSON, or its text.
        goes: the client goes when it has sent the body.
        ends: the last part of the body is sent only then.
    """
    text = body if isinstance(body, str) else json.dumps(body)
    parts, sent = [text.encode()], []

    async def receive():
        if parts:
            return {"type": "http.request", "body": parts.pop(), "more_body": ends is not None}
        if ends is not None and not ends.is_set():
            await ends.wait()
            return {"type": "http.request", "body": b"", "more_body": False}
        if not goes:
            await asyncio.sleep(30)
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/predict", "query_string": b"",
        "headers": [(b"content-type", b"application/json")], "root_path": "",
    }  # fmt: skip
    await app(scope, receive, send)
    return sent


def in_a_thread(function, *arguments):
    """Runs a coroutine where no other event loop is: a browser of other tests keeps one here."""
    results = []
    thread = threading.Thread(target=lambda: results.append(asyncio.run(function(*arguments))))
    thread.start()
    thread.join(30)
    return results[0]


def export_encoded(root):
    """A model of two ids that are made already."""
    import pyarrow.parquet as pq
    import serving_jobs as jobs

    features = """
    feature_configs { id_feature { feature_name: "user_id" expression: "user:user_id"
        num_buckets: 50 embedding_dim: 4 } }
    feature_configs { id_feature { feature_name: "item_id" expression: "item:item_id"
        num_buckets: 40 embedding_dim: 4 } }"""
    model = """model_config { feature_groups { group_name: "deep" group_type: DEEP
        feature_names: ["user_id", "item_id"] }
      multi_tower { towers { input: "deep" mlp { hidden_units: [4] } } final { hidden_units: 4 } }
      losses { binary_cross_entropy {} } }"""
    ids = pa.table({"user_id": [1, 2] * 8, "item_id": [3, 4] * 8, "label": [0, 1] * 8})
    pq.write_table(ids, root / "train.parquet")
    return jobs.export_model(root, features, model, "FG_NONE")


class TestToken:
    @pytest.fixture(scope="class")
    def guarded(self, servable):
        with serving(servable, token="s3cret") as client:
            yield client

    @pytest.mark.parametrize(
        "authorization",
        [None, "s3cret", "Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "Bearer é"],
    )
    @pytest.mark.parametrize("path", ["/v1/schema", "/metrics", "/openapi.json", "/v1/nothing"])
    def test_without_it(self, guarded, path, authorization):
        headers = {} if authorization is None else {"Authorization": authorization.encode()}
        answer = guarded.get(path, headers=headers)
        assert error_of(answer)[:2] == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"

    def test_with_it(self, guarded):
        headers = {"Authorization": "Bearer s3cret"}
        answer = guarded.post("/v1/predict", json={"rows": ROWS}, headers=headers)
        assert answer.status_code == 200
        assert guarded.get("/openapi.json", headers=headers).json()["security"] == [{"token": []}]

    def test_the_body_is_not_read_without_it(self, guarded):
        answer = guarded.post("/v1/predict", content=b"{", headers={})
        assert answer.status_code == 401

    @pytest.mark.parametrize("path", ["/health", "/ready", "/", "/docs", "/page/docs.js"])
    def test_what_needs_none(self, guarded, path):
        assert guarded.get(path).status_code == 200


class TestOtherRoutes:
    def test_schema(self, client):
        schema = client.get("/v1/schema").json()
        assert schema["version"] == "v1"
        assert schema["model"] == "MultiTowerDIN"
        assert schema["capabilities"] == ["predict"]
        inputs = {one["name"]: one for one in schema["predict"]["inputs"]}
        assert {name: (one["type"], one["side"]) for name, one in inputs.items()} == {
            "user_id": ("string", "user"),
            "age": ("double", "user"),
            "tags": ("list<item: string>", "user"),
            "tastes": ("map<string, float>", "user"),
            "brand": ("string", "item"),
            "item_id": ("int64", "item"),
            "price": ("float", "item"),
            "hour": ("int32", "context"),
            "click__item_id": ("string", "user"),
        }
        assert all(one["nullable"] for one in inputs.values())
        assert [one["name"] for one in schema["predict"]["outputs"]] == ["logits", "probs"]
        assert schema["limits"]["max_rows"] == 1000

    def test_the_examples_can_be_sent(self, client, export):
        """As they stand, and the server then does what the library does with the row."""
        schema = client.get("/v1/schema").json()["predict"]
        answer = client.post("/v1/predict", json={"rows": schema["examples"]})
        assert answer.status_code == 200
        assert schema["examples"][0] == schema["example"]
        assert {one["name"]: one["example"] for one in schema["inputs"]} == schema["example"]
        columns = {n: [row[n] for row in schema["examples"]] for n in schema["example"]}
        wanted = Predictor.load(export).predict(columns)["probs"]
        np.testing.assert_allclose(answer.json()["outputs"]["probs"], wanted, rtol=0, atol=1e-6)
        assert None not in schema["example"].values()

    def test_health_and_ready(self, client, servable):
        assert client.get("/health").json() == {"status": "ok"}
        assert client.get("/ready").json() == {"status": "ready", "version": "v1"}
        with serving(servable) as other:
            other.engine.drain()
            assert error_of(other.get("/ready"))[:2] == (503, "not_ready")
            assert other.get("/health").status_code == 200

    def test_before_a_model_is_loaded(self, servable):
        with serving(servable, start=False) as client:
            for answer in (
                client.get("/ready"),
                client.get("/v1/schema"),
                client.get("/openapi.json"),
                client.post("/v1/predict", json={"rows": ROWS}),
            ):
                assert error_of(answer)[:2] == (503, "not_ready")
            assert client.get("/health").status_code == 200
            assert client.get("/docs").status_code == 200

    def test_pages_load_nothing_from_elsewhere(self, client):
        for path in ("/", "/docs", "/page/docs.js", "/page/docs.css"):
            answer = client.get(path)
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert "://" not in answer.text
            assert "<script>" not in answer.text

    def test_answers_are_not_kept_or_guessed_at(self, client):
        for answer in (client.get("/v1/schema"), client.get("/nothing"), client.get("/metrics")):
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"


class TestOverload:
    def test_faults_of_the_runtime(self, servable, monkeypatch):
        """One row waits behind a slow one: a second is too many, and the slow one too late."""
        gate = threading.Event()
        real = servable.predict

        def slow(columns):
            assert gate.wait(20)
            return real(columns)

        monkeypatch.setattr(servable, "predict", slow)
        answers = []
        with serving(servable, max_queue_rows=1, threads=1, request_timeout=1) as client:

            def ask():
                answers.append(client.post("/v1/predict", json={"rows": ROWS[:1]}))

            threads = [threading.Thread(target=ask) for _ in range(4)]
            for thread in threads:
                thread.start()
                time.sleep(0.1)
            for thread in threads:
                thread.join(20)
            gate.set()
            found = sorted(error_of(answer)[:2] for answer in answers)
            assert (429, "overloaded") in found
            assert (504, "deadline_exceeded") in found
            refused = next(answer for answer in answers if answer.status_code == 429)
            assert int(refused.headers["retry-after"]) >= 1
            numbers = numbers_of(client)
        assert numbers["tzrec_faults_total", "overloaded"] >= 1


def numbers_of(client):
    """(name, labels...) → value of the metrics."""
    text = client.get("/metrics").text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics(servable):
    with serving(servable) as client:
        client.post("/v1/predict", json={"rows": ROWS})
        client.post("/v1/predict", json={"rows": ROWS[:1]})
        client.post("/v1/predict", json={})
        client.get("/surely/not/there")
        numbers = numbers_of(client)
    assert numbers["tzrec_request_seconds_count", "/v1/predict", "200"] == 2
    assert numbers["tzrec_request_seconds_count", "/v1/predict", "422"] == 1
    # Paths of clients are no labels: they would be without end.
    assert numbers["tzrec_request_seconds_count", "other", "404"] == 1
    assert numbers["tzrec_request_rows_sum", "/v1/predict"] == 6
    assert numbers["tzrec_batch_rows_sum",] == 6
    assert numbers["tzrec_batch_requests_count",] == 2
    assert numbers["tzrec_ready",] == 1
    assert numbers["tzrec_queue_rows",] == 0
    assert numbers["tzrec_requests_in_flight",] == 1  # the one for the metrics
    assert numbers["tzrec_model_info", "v1"] == 1
    assert numbers["tzrec_reloads_total", "loaded"] == 1
    assert numbers["tzrec_reload_seconds_count",] == 1


def test_outputs_that_are_not_finite_become_null(servable, monkeypatch):
    """JSON has no NaN."""
    values = {"probs": np.float32([np.nan, 1]), "logits": np.float32([np.inf, 2])}
    monkeypatch.setattr(servable, "predict", lambda columns: values)
    with serving(servable) as client:
        answer = client.post("/v1/predict", json={"rows": ROWS[:2]})
    assert orjson.loads(answer.content)["outputs"] == {"logits": [None, 2.0], "probs": [None, 1.0]}
