"""The application over a ranking model: requests and answers."""

import threading

import numpy as np
import orjson
import pyarrow as pa
import pytest
from app_requests import ARROW, ITEMS, ROWS, TABLE, USER, error_of, numbers_of, post_arrow
from serving_jobs import CONTEXT, as_objects, export_rank, load_servable, make_rows, serving

from tzrec.deploy import Predictor


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


def test_outputs_that_are_not_finite_become_null(servable, monkeypatch):
    """JSON has no NaN."""
    values = {"probs": np.float32([np.nan, 1]), "logits": np.float32([np.inf, 2])}
    monkeypatch.setattr(servable, "predict", lambda columns: values)
    with serving(servable) as client:
        answer = client.post("/v1/predict", json={"rows": ROWS[:2]})
    assert orjson.loads(answer.content)["outputs"] == {"logits": [None, 2.0], "probs": [None, 1.0]}
