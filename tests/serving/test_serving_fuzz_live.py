"""`tzrec serve` as a process, and clients that mean no good; thousands of requests when slow."""

import http.client
import json
import socket
import sys
import time

import numpy as np
import psutil
import pytest
import schemathesis
from fuzzing import KINDS, ROUTES, example_table, fuzz, signature_key
from hostile import ARROW, JSON, changed, check, stream_of, streams, texts
from raw_http import GET, cases, talk
from serve_process import Serving
from serving_jobs import load_servable

COMMAND = (sys.executable, "-m", "tzrec.cli", "serve")


def served(directory, *flags):
    return Serving(directory, "--port", 0, "--request-timeout", 1.5, *flags, script=COMMAND)


@pytest.fixture(scope="module")
def rank(tmp_path_factory):
    return KINDS["rank"](tmp_path_factory.mktemp("rank"))


@pytest.fixture(scope="module")
def running(rank):
    with served(rank) as server:
        server.until("try:")
        yield server
        assert server.get("/ready")[0] == 200
        assert server.end() == 0
        assert "Traceback" not in server.text


def body_of(server):
    row = server.get("/v1/schema")[1]["predict"]["example"]
    return json.dumps({"rows": [row]}).encode()


def test_bytes_that_no_client_sends(running):
    wrong = []
    for name, data, statuses in cases(body_of(running)):
        try:
            answers = talk(running.port, data, len(statuses))
        except OSError as error:
            answers = [(0, repr(error))]
        if [status for status, _ in answers] != statuses:
            wrong.append((name, answers))
        for status, text in answers:
            if status >= 400 and text and list(json.loads(text)) != ["error"]:
                wrong.append((name, text))
    assert wrong == []


def test_clients_that_break_off(running):
    """In the head, in the body, and before the answer."""
    body = body_of(running)
    whole = next(data for name, data, _ in cases(body) if name == "plain")
    for end in range(1, len(whole) + 1, 23):
        with socket.create_connection(("127.0.0.1", running.port)) as connection:
            connection.sendall(whole[:end])
    assert talk(running.port, whole)[0][0] == 200
    assert talk(running.port, GET)[0] == (200, b'{"status":"ok"}')


def test_requests_made_from_its_description(running):
    url = f"http://127.0.0.1:{running.port}"
    described = schemathesis.openapi.from_url(f"{url}/openapi.json")
    for mode in ("positive", "negative"):
        assert set(fuzz(described, "/v1/predict", mode, 15)) <= {200, 400, 422}


def test_a_client_that_does_not_read(tmp_path):
    """The server of fakes looks every half second, and gives it two."""
    (tmp_path / "model.json").write_text('{"factor": 2}')
    with Serving(tmp_path, "--port", 0) as server:
        server.until("try:")
        with socket.socket() as slow, socket.socket() as lazy:
            for client in (slow, lazy):
                client.settimeout(20)
                client.connect(("127.0.0.1", server.port))
                client.sendall(b"GET /large?bytes=20000000 HTTP/1.1\r\nHost: x\r\n\r\n")
            began, taken = time.monotonic(), 0
            while taken < 20_000_000:
                part = slow.recv(1 << 16)
                assert part
                taken += len(part)
                time.sleep(0.01)
            time.sleep(max(0.0, began + 4 - time.monotonic()))
            taken = 0
            while part := lazy.recv(1 << 20):
                taken += len(part)
            assert taken < 20_000_000  # what the system held; the rest was dropped


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rank", "multi_task", "retriever"])
def test_thousands_of_requests(tmp_path, kind):
    """No fault, answers as described, the same process, and no memory that grows."""
    export = KINDS[kind](tmp_path)
    servable = load_servable(export)
    capabilities = [name for other, name in ROUTES if other == kind]
    with served(export, "--request-timeout", 30) as server:
        server.until("try:", 300)
        described = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
        process, sizes, sent = psutil.Process(server.process.pid), [], 0
        for _ in range(4):
            for capability in capabilities:
                path = f"/v1/{capability}"
                for mode in ("positive", "negative"):
                    statuses = fuzz(described, path, mode, 250 // len(capabilities))
                    assert set(statuses) <= {200, 400, 413, 422}
                    sent += statuses.total()
                row = servable.signatures[signature_key(servable, capability)].example
                table = example_table(servable, capability)
                sent += send_damaged(server, path, row, table, 600 // len(capabilities), sent)
            sizes.append(process.memory_info().rss >> 20)
        assert sent >= 3400
        assert server.process.poll() is None
        assert server.get("/ready")[0] == 200
        assert sizes[-1] - sizes[1] < 16, sizes
        assert "Traceback" not in server.text


def send_damaged(server, path, row, table, number, seed):
    """Sends hostile bodies, and bodies that were changed here and there; returns how many."""
    rng = np.random.default_rng(seed)
    odd = [*texts(row), *streams(table)]
    some = [odd[at] for at in rng.permutation(len(odd))[: number // 3]]
    bodies = [(case.body, case.kind, case) for case in some]
    for body, kind in ((json.dumps({"rows": [row]}).encode(), JSON), (stream_of(table), ARROW)):
        bodies += [(data, kind, None) for data in changed(body, number // 3, rng)]
    with server.connect() as connection:
        for body, kind, case in bodies:
            connection.request("POST", path, body, {"Content-Type": kind})
            answer = connection.getresponse()
            assert isinstance(answer, http.client.HTTPResponse)
            found = json.loads(answer.read())
            if case is None:
                assert answer.status in (200, 400, 413, 415, 422), (body, found)
            else:
                assert check(case, answer.status, found) == ""
    return len(bodies)
