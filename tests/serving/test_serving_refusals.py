"""The application over a ranking model: what it refuses, limits, tokens, metrics."""

import asyncio
import json
import logging
import threading
import time

import pyarrow as pa
import pytest
from app_requests import (
    ARROW,
    ROWS,
    SCOPE,
    TABLE,
    error_of,
    in_a_thread,
    numbers_of,
    post,
    post_arrow,
)
from serving_jobs import export_rank, load_servable, serving

from tzrec.errors import ServingError


@pytest.fixture(scope="module")
def servable(tmp_path_factory):
    return load_servable(export_rank(tmp_path_factory.mktemp("rank")), "v1")


@pytest.fixture(scope="module")
def client(servable):
    with serving(servable, max_rows=1000, max_body_bytes=1 << 20, max_text=1000) as client:
        yield client


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

            in_a_thread(client.app, SCOPE, receive, send)
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


def test_a_request_with_features_has_one_end(servable, monkeypatch):
    """Scores take most of the time that a request has; its features get what is left."""
    real = servable.predict

    def slow(columns):
        time.sleep(0.4)
        return real(columns)

    def slower(columns):
        time.sleep(1.5)
        raise AssertionError("nobody waits any more")

    monkeypatch.setattr(servable, "predict", slow)
    monkeypatch.setattr(servable, "features_text", slower)
    with serving(servable, request_timeout=0.6) as client:
        began = time.monotonic()
        answer = client.post("/v1/predict", json={"rows": ROWS[:1], "features": True})
        assert error_of(answer)[:2] == (504, "deadline_exceeded")
        assert time.monotonic() - began < 0.95


def test_faults_before_the_queue_are_counted_too(servable):
    with serving(servable, start=False) as client:
        assert client.post("/v1/predict", json={"rows": ROWS}).status_code == 503
        assert client.get("/v1/schema").status_code == 503
        assert client.get("/ready").status_code == 503  # a question, and its answer
        assert numbers_of(client)["tzrec_faults_total", "not_ready"] == 2


def test_too_many_connections(servable):
    """Whoever watches the server is answered; everybody else gets JSON, and is counted."""
    full = [True]
    with serving(servable, is_full=lambda: full[0]) as client:
        answer = client.post("/v1/predict", json={"rows": ROWS})
        assert error_of(answer) == (503, "too_many_connections", None)
        assert answer.headers["connection"] == "close"
        assert answer.headers["retry-after"] == "1"
        assert {client.get(path).status_code for path in ("/health", "/ready")} == {200}
        numbers = numbers_of(client)
        full.clear()
        full.append(False)
        assert client.post("/v1/predict", json={"rows": ROWS}).status_code == 200
    assert numbers["tzrec_faults_total", "too_many_connections"] == 1
    assert numbers["tzrec_request_seconds_count", "other", "503"] == 1


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
