"""How tests of the application ask it, and read what it says."""

import asyncio
import io
import json
import threading

import pyarrow as pa
from prometheus_client.parser import text_string_to_metric_families
from serving_jobs import CONTEXT, as_objects, make_rows

ARROW = "application/vnd.apache.arrow.stream"
TABLE = make_rows(5, seed=9).drop_columns(["label"])
ROWS = as_objects(TABLE)
ITEMS = [{n: row[n] for n in row if n not in CONTEXT} for row in ROWS]
USER = {name: ROWS[0][name] for name in CONTEXT}
SCOPE = {
    "type": "http", "method": "POST", "path": "/v1/predict", "query_string": b"",
    "headers": [(b"content-type", b"application/json")], "root_path": "",
}  # fmt: skip


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

    await app(SCOPE, receive, send)
    return sent


def in_a_thread(function, *arguments):
    """Runs a coroutine where no other event loop is: a browser of other tests keeps one here."""
    results = []
    thread = threading.Thread(target=lambda: results.append(asyncio.run(function(*arguments))))
    thread.start()
    thread.join(30)
    return results[0]


def numbers_of(client):
    """(name, labels...) → value of the metrics."""
    text = client.get("/metrics").text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
