"""``tzrec serve`` as a process, with a small application and a fake model: no torch is loaded.

As a script it is the command; ``serve_process.py worker`` is one of its workers.
"""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path
from urllib.parse import parse_qsl

HERE = Path(__file__).resolve()


def create_app(engine, options, *, is_full):
    """The application: predicts a number, sleeps or hangs on a model thread."""
    from serve_fakes import Recorder

    told = []
    engine.observer = Recorder()
    engine.observer.on_state = lambda **state: told.append(state)

    async def answer(path, arguments):
        from serve_fakes import columns_of

        if is_full() and path != "/health":
            return 503, {"code": "too_many_connections"}
        if path == "/ready":
            state = engine.state()
            return (200 if state.is_ready else 503), {"reason": state.reason}
        if path == "/predict":
            scored = await engine.predict(columns_of(float(arguments["x"])), rows=1)
            return 200, {"version": scored.version, "y": scored.outputs["y"].tolist()}
        if path == "/told":
            return 200, {"told": told, "copies": engine.servable.copies}
        if path == "/sleep":
            await engine.call(time.sleep, float(arguments["seconds"]))
            return 200, {"slept": True}
        if path == "/large":
            return 200, "x" * int(arguments["bytes"])
        if path == "/hang":
            await engine.call(wait_for_file, arguments["file"])
            return 200, {"slept": True}
        return 200, {"pid": os.getpid(), "options": json.loads(options.to_json())}

    async def app(scope, receive, send):
        from tzrec.serving.faults import Fault

        assert scope["type"] == "http"
        try:
            status, body = await answer(
                scope["path"], dict(parse_qsl(scope["query_string"].decode()))
            )
        except Fault as fault:
            status, body = fault.status, {"code": fault.code}
        text = json.dumps(body).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    return app


def wait_for_file(path):
    while not os.path.exists(path):
        time.sleep(0.02)


def install_fakes():
    """Puts the application and the loading of models in place."""
    from serve_fakes import FakeServable

    from tzrec.cli import serve
    from tzrec.errors import ServingError
    from tzrec.serving import loading, protocol, server

    def load(directory, *, version="", copies=None):
        settings = json.loads((Path(directory) / "model.json").read_text())
        if "gate" in settings:
            wait_for_file(settings["gate"])
        if "error" in settings:
            raise ServingError(settings["error"])
        servable = FakeServable(version or Path(directory).name, factor=settings["factor"])
        servable.model = "FakeModel"
        servable.copies = copies
        column = types.SimpleNamespace(name="x")
        output = types.SimpleNamespace(name="y")
        servable.signatures = {
            "predict": types.SimpleNamespace(
                inputs=(column,), outputs=(output,), example={"x": settings["factor"]}
            )
        }
        return servable

    app = types.ModuleType("tzrec.serving.app")
    app.create_app = create_app
    sys.modules["tzrec.serving.app"] = app
    loading.load = load
    server.prepare = lambda options: None
    protocol._HEAD_SECONDS = 0.5
    serve.WORKER = (sys.executable, str(HERE), "worker")


class Serving:
    """A running server.

    Attributes:
        process: of the command.
        lines: what it has written so far, both streams.
        port: that it answers at, None before it is known.
    """

    def __init__(self, *arguments, script=(sys.executable, str(HERE))):
        self.process = subprocess.Popen(
            [*script, *(str(argument) for argument in arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=dict(os.environ)  # noqa: TID251
            | {"PYTHONPATH": str(HERE.parent), "PYTHONUNBUFFERED": "1"},
        )
        self.lines = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)

    @property
    def text(self):
        return "".join(self.lines)

    @property
    def port(self):
        found = re.search(r"for http://127\.0\.0\.1:(\d+)", self.text)
        return int(found[1]) if found else None

    def wait_for(self, condition, seconds=60):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"it did not happen in time:\n{self.text}"
            time.sleep(0.02)
        return self

    def until(self, text, seconds=60):
        """Waits until it has written this."""
        return self.wait_for(lambda: text in self.text or self.process.poll() is not None, seconds)

    def connect(self, timeout=30):
        return contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        )

    def get(self, path, timeout=30):
        with self.connect(timeout) as connection:
            return ask(connection, path)

    def end(self, what=signal.SIGTERM, seconds=30):
        """Sends a signal; returns the exit code."""
        self.process.send_signal(what)
        return self.exit_code(seconds)

    def exit_code(self, seconds=60):
        code = self.process.wait(seconds)
        self._reader.join(10)
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def ask(connection, path):
    """Returns status and JSON of an answer."""
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


if __name__ == "__main__":
    install_fakes()
    if sys.argv[1] == "worker":
        from tzrec.cli import serve_worker
        from tzrec.serving.server import end_process

        end_process(serve_worker.main())
    from tzrec.cli import main

    sys.exit(main(["serve", *sys.argv[1:]]))
