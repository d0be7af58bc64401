"""A server that answers the browser page as the real one does, and remembers what it was asked."""

import contextlib
import dataclasses
import json
import socket
import threading
import time

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from tzrec.serving.page import page_routes

# Neither fits a number of JavaScript.
LARGE_ID = 2**60 + 1
LARGE_ITEM = 2**62 - 1


def column(name, kind, side, example, nullable=True):
    return {
        "name": name,
        "type": kind,
        "side": side,
        "nullable": nullable,
        "example": example,
    }


USER = [
    column("user_id", "int64", "user", LARGE_ID, nullable=False),
    column("tags", "string", "user", "a\x1db"),
    column("history", "list<item: int64>", "user", [3, LARGE_ID]),
]
HOUR = column("hour", "int64", "context", 20)
ITEM = [
    column("item_id", "string", "item", "shoe 7"),
    column("price", "double", "item", 1.25),
]


def signature(columns):
    return {
        "inputs": columns,
        "outputs": [],
        "example": {one["name"]: one["example"] for one in columns},
    }


RANK = {
    "version": "v1",
    "model": "DeepFM",
    "kind": "rank",
    "capabilities": ["predict"],
    "predict": signature([*USER, HOUR, *ITEM]),
}


@dataclasses.dataclass
class FakeServer:
    """Answers, and what was asked.

    Attributes:
        schema: answer of ``/v1/schema``.
        answer: of everything that is posted: a function of the body gives (status, JSON).
        token: what requests must carry.
        requests: (path, body as text) of what was posted.
        url: of the page.
    """

    schema: dict
    answer: object = None
    token: str = ""
    requests: list = dataclasses.field(default_factory=list)
    url: str = ""
    headers: dict = dataclasses.field(default_factory=dict)

    def reset(self, schema=RANK, answer=None, token=""):
        self.schema, self.answer, self.token = schema, answer, token
        self.requests.clear()
        self.headers = {}

    def body(self):
        """The last body that was posted."""
        return json.loads(self.requests[-1][1])

    def app(self):
        async def get_schema(request):
            if (refused := self._refuse(request)) is not None:
                return refused
            status = 503 if "error" in self.schema else 200
            return JSONResponse(self.schema, status)

        async def post(request):
            body = await request.body()
            self.requests.append((request.url.path, body.decode()))
            if (refused := self._refuse(request)) is not None:
                return refused
            status, answer = self.answer(json.loads(body))
            return JSONResponse(answer, status, headers=self.headers)

        paths = ["/v1/predict", "/v1/retrieve", "/v1/embed"]
        routes = [Route(path, post, methods=["POST"]) for path in paths]
        return Starlette(routes=[*page_routes(), Route("/v1/schema", get_schema), *routes])

    def _refuse(self, request):
        wanted = f"Bearer {self.token}" if self.token else ""
        if request.headers.get("authorization", "") == wanted:
            return None
        return JSONResponse(failed("unauthorized", "this server needs a token"), 401)


@contextlib.contextmanager
def running(app):
    """Serves an application on a free port; gives its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join(10)


def failed(code, message, field=None, hint=""):
    return {"error": {"code": code, "message": message, "field": field, "hint": hint}}


def scored(probs, **more):
    """Scores each row by `probs`, a function of its place."""

    def answer(body):
        count = len(body.get("rows") or body.get("items"))
        outputs = {
            "logits": [2.0 + index for index in range(count)],
            "probs": [probs(index) for index in range(count)],
        }
        return 200, {"version": "v1", "num_rows": count, "outputs": outputs | more}

    return answer


def fails(status, **error):
    """Answers everything with an error."""
    return lambda body: (status, failed(**error))
