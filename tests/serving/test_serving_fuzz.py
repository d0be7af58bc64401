"""Hostile and made-up requests to servers of every kind: refused with a field, never a fault."""

import functools
import json
import time

import numpy as np
import pytest
import schemathesis
from fuzzing import KINDS, ROUTES, example_table, fuzz, signature_key
from hostile import ARROW, JSON, Hostile, arguments, changed, check, stream_of, streams, texts
from serving_jobs import load_servable, serving

# The slowest takes a tenth of it on a quiet machine.
MOST_SECONDS = 5


@pytest.fixture(scope="module")
def servable_of(tmp_path_factory):
    @functools.cache
    def load(kind):
        return load_servable(KINDS[kind](tmp_path_factory.mktemp(kind)), "v1")

    return load


@pytest.fixture(scope="module", params=ROUTES, ids="-".join)
def route(request, servable_of):
    """A client, a path, an example row as JSON has it, and rows as a table."""
    kind, capability = request.param
    servable = servable_of(kind)
    row = servable.signatures[signature_key(servable, capability)].example
    with serving(servable) as client:
        yield client, f"/v1/{capability}", row, example_table(servable, capability)


def send(client, path, case):
    """Returns what is wrong with the answer."""
    began = time.monotonic()
    answer = client.post(path, content=case.body, headers={"Content-Type": case.kind})
    if time.monotonic() - began > MOST_SECONDS:
        return f"{case.name}: takes {time.monotonic() - began:.1f} s"
    return check(case, answer.status_code, answer.json())


def test_hostile_bodies_are_refused(route, request):
    client, path, row, table = route
    cases = [*arguments(path, row), *streams(table)]
    # What reads JSON is the same for all of them.
    if request.node.callspec.params["route"] in (ROUTES[0], ROUTES[2]):
        cases += texts(row)
        assert len(cases) > 200
    assert [found for case in cases if (found := send(client, path, case))] == []
    good = [
        Hostile("json", json.dumps({"rows": [row]}).encode(), (200,)),
        Hostile("arrow", stream_of(table), (200,), kind=ARROW),
    ]
    assert [found for case in good if (found := send(client, path, case))] == []


def test_damaged_bodies_are_answered_or_refused(route):
    client, path, row, table = route
    rng = np.random.default_rng(5)
    bodies = [(json.dumps({"rows": [row, row]}).encode(), JSON), (stream_of(table), ARROW)]
    for body, kind in bodies:
        for number, damaged in enumerate(changed(body, 80, rng)):
            case = Hostile(f"{kind}_{number}", damaged, (200, 400, 413, 415, 422), kind=kind)
            assert send(client, path, case) == ""


@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_requests_made_from_the_description(route, mode):
    client, path, _, _ = route
    described = schemathesis.openapi.from_asgi("/openapi.json", client.app)
    statuses = fuzz(described, path, mode, 25)
    assert set(statuses) <= {200, 400, 413, 422}
    assert statuses[200 if mode == "positive" else 422] >= 2


def test_what_feature_generation_refuses_names_its_column(servable_of):
    """The message says which features read which columns."""
    servable = servable_of("rank")
    row = servable.signatures["predict"].example
    bad = row | {"click__item_id": "5;x"}
    user = {name: bad[name] for name in bad if name not in ("item_id", "brand", "price")}
    items = [{name: row[name] for name in ("item_id", "brand", "price")}]
    with serving(servable) as client:
        for body, field in (
            ({"rows": [row, bad]}, "rows[1].click__item_id"),
            ({"columns": {name: [row[name], bad[name]] for name in row}},
             "columns.click__item_id[1]"),
            ({"context": user, "items": items}, "context.click__item_id"),
        ):  # fmt: skip
            error = client.post("/v1/predict", json=body).json()["error"]
            assert (error["code"], error["field"]) == ("invalid_value", field)
            assert "not a whole number" in error["message"]
