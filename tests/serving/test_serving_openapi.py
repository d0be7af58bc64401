"""The description of the server is true: examples, answers, and whatever it allows."""

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serving_jobs import export_rank, load_servable, serving

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    servable = load_servable(export_rank(tmp_path_factory.mktemp("rank")), "v1")
    with serving(servable, max_rows=50) as client:
        yield client


@pytest.fixture(scope="module")
def document(client):
    return client.get("/openapi.json").json()


@pytest.fixture(scope="module")
def described(client):
    return schemathesis.openapi.from_asgi("/openapi.json", client.app)


def body_of(document, path):
    return document["paths"][path]["post"]["requestBody"]["content"]["application/json"]


def test_the_examples_are_allowed_and_answered(client, document):
    body = body_of(document, "/v1/predict")
    assert list(body["examples"]) == ["rows", "columns", "context"]
    validator = jsonschema_rs.validator_for(body["schema"])
    answers = []
    for example in body["examples"].values():
        validator.validate(example["value"])
        answer = client.post("/v1/predict", json=example["value"])
        assert answer.status_code == 200
        answers.append(answer.json()["outputs"])
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize(
    "change",
    [
        {"price": "x"},
        {"item_id": 2**63},
        {"item_id": 0.5},
        {"user_id": 5},
        {"tags": "t1"},
        {"tags": [1]},
        {"tastes": {"b0": "x"}},
        {"label": 1},
        {"hour": 2**31},
        {"price": None},
        {"tags": None},
        {"age": 3},
        {"age": 1e300},
        {"price": 1e39},
        {"price": 3.4028235e38},
        {"price": 3.4028236e38},
        {"item_id": 5.0},
        {"tastes": {}},
        {"user_id": "x" * 70_000},
    ],
)
def test_what_it_allows_is_what_the_server_takes(client, document, change):
    body = body_of(document, "/v1/predict")
    row = body["examples"]["rows"]["value"]["rows"][0] | change
    is_allowed = jsonschema_rs.validator_for(body["schema"]).is_valid({"rows": [row]})
    answer = client.post("/v1/predict", json={"rows": [row]})
    assert (answer.status_code == 200) == is_allowed


def test_answers_are_as_described(client, document):
    example = body_of(document, "/v1/predict")["examples"]["rows"]["value"]
    responses = document["paths"]["/v1/predict"]["post"]["responses"]
    good = responses["200"]["content"]["application/json"]["schema"]
    answer = client.post("/v1/predict", json=example | {"features": True}).json()
    jsonschema_rs.validator_for(good).validate(answer)
    bad = document["components"]["schemas"]["Error"]
    jsonschema_rs.validator_for(bad).validate(client.post("/v1/predict", json={}).json())


def test_nothing_is_described_that_is_not_there(client, document):
    for path, methods in document["paths"].items():
        for method in methods:
            assert client.request(method, path).status_code not in (404, 405)


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        ("POST", "/v1/predict", "positive"),
        ("POST", "/v1/predict", "negative"),
        ("GET", "/v1/schema", "positive"),
        ("GET", "/ready", "positive"),
        ("GET", "/metrics", "positive"),
    ],
)
def test_requests_that_a_machine_makes_of_it(described, method, path, mode):
    mode = schemathesis.GenerationMode(mode)
    operation = described[path][method]
    statuses = set()

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case):
        answer = case.call()
        statuses.add(answer.status_code)
        case.validate_response(answer, checks=CHECKS)

    ask()
    assert (422 if mode is schemathesis.GenerationMode.NEGATIVE else 200) in statuses
