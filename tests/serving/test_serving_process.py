"""``tzrec serve`` as processes: ports, signals, workers. The model is a fake."""

import gc
import http.client
import json
import os
import shutil
import signal
import socket
import sys
import threading
import time

import numpy as np
import pytest
from serve_process import Serving, ask

from tzrec.cli import main
from tzrec.errors import ConfigError
from tzrec.options import set_thread_counts
from tzrec.serving.acceptor import Shares
from tzrec.serving.options import ServeOptions
from tzrec.serving.server import address_of, bind, prepare
from tzrec.serving.worker import Assignment


def write_model(path, **settings):
    path.mkdir(parents=True, exist_ok=True)
    (path / "model.json").write_text(json.dumps({"factor": 2} | settings))
    return path


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "model")


def in_background(function, *arguments):
    """Returns a list that gets what the function returns, and the thread."""
    results = []

    def run():
        try:
            results.append(function(*arguments))
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return results, thread


def test_sigterm_ends_running_requests_first(model):
    with Serving(model, "--port", 0) as serving:
        serving.until("try:")
        assert serving.get("/predict?x=3") == (200, {"version": "model", "y": [6.0]})
        assert serving.get("/ready")[0] == 200
        with serving.connect() as kept:
            assert ask(kept, "/ready")[0] == 200
            slow, thread = in_background(serving.get, "/sleep?seconds=1.5")
            time.sleep(0.4)
            serving.process.send_signal(signal.SIGTERM)
            time.sleep(0.4)
            with pytest.raises(ConnectionError):
                serving.get("/ready")
            with pytest.raises((ConnectionError, http.client.HTTPException)):
                ask(kept, "/ready")  # idle connections are closed
        thread.join()
        assert slow == [(200, {"slept": True})]
        assert serving.exit_code() == 0
        assert "Traceback" not in serving.text


@pytest.mark.parametrize("workers", [1, 2])
def test_answers_do_not_wait_for_the_client(model, workers):
    """Nagle's algorithm would hold the end of each answer back, for 40 ms."""
    with Serving(model, "--port", 0, "--workers", workers) as serving:
        serving.until("try:")
        seconds = []
        with serving.connect() as kept:
            for _ in range(40):
                began = time.monotonic()
                ask(kept, "/ready")
                seconds.append(time.monotonic() - began)
    assert np.median(seconds) < 0.03


def test_metrics_are_told_and_copies_of_models_removed(model):
    """Nobody asks for metrics: with several workers, another one may be asked."""
    with Serving(model, "--port", 0) as serving:
        serving.until("try:")
        serving.wait_for(lambda: len(serving.get("/told")[1]["told"]) > 1)
        found = serving.get("/told")[1]
        state = {"version": "model", "is_ready": True, "queued_rows": 0}
        assert found["told"][-1] == state
        assert os.path.isdir(found["copies"])
        assert serving.end() == 0
        assert not os.path.exists(found["copies"])


def test_a_request_that_does_not_end_is_given_up_and_so_with_a_second_signal(model):
    with Serving(model, "--port", 0, "--drain-seconds", 1, "--request-timeout", 60) as serving:
        serving.until("try:")
        slow, thread = in_background(serving.get, "/sleep?seconds=40")
        time.sleep(0.4)
        began = time.monotonic()
        assert serving.end(signal.SIGINT) == 0
        assert 0.9 < time.monotonic() - began < 12
        thread.join()
        assert slow[0] != (200, {"slept": True})
    with Serving(model, "--port", 0, "--request-timeout", 60) as serving:
        serving.until("try:")
        slow, thread = in_background(serving.get, "/sleep?seconds=40")
        time.sleep(0.4)
        serving.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        began = time.monotonic()
        assert serving.end(signal.SIGINT) == 0
        assert time.monotonic() - began < 12  # not the 30 s of --drain-seconds
        thread.join()


def test_while_the_model_is_being_loaded(model):
    write_model(model, gate=str(model / "gate"))
    with Serving(model, "--port", 0) as serving:
        serving.wait_for(lambda: serving.port is not None)
        serving.wait_for(lambda: serving.get("/ready")[0] == 503, 20)
        assert serving.get("/health")[0] == 200
        assert serving.get("/predict?x=1") == (503, {"code": "not_ready"})
        (model / "gate").touch()
        serving.until("try:")
        assert serving.get("/ready")[0] == 200
        assert serving.get("/predict?x=1")[0] == 200


@pytest.mark.parametrize("workers", [1, 2])
def test_a_model_that_cannot_be_loaded_ends_the_command(model, workers):
    write_model(model, error="it does not score here")
    with Serving(model, "--port", 0, "--workers", workers) as serving:
        assert serving.exit_code() == 1
        assert serving.text.count("it does not score here") == 1
        assert "Traceback" not in serving.text


def test_wrong_commands_answer_before_anything_is_loaded(model, tmp_path, monkeypatch, capsys):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr("tzrec.serving.worker.run_server", None)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        for arguments, code, message in (
            ([tmp_path / "nothing"], 1, "is not a directory"),
            ([model, "--port", "70000"], 2, "must be at most 65535"),
            ([model, "--max-wait-ms", "-1"], 2, "max_wait_ms -1.0: must be at least 0"),
            ([model, "--token-file", tmp_path / "none"], 2, "cannot be read"),
            ([model, "--tokn-file", "x"], 2, "did you mean '--token-file'"),
            ([model, "--host", "256.1.1.1"], 2, "cannot listen at '256.1.1.1'"),
            ([model, "--port", port], 2, f"127.0.0.1 port {port}: Address already in use"),
            ([model, "--port", port], 2, "--port 0 takes a free port"),
        ):
            assert main(["serve", *map(str, arguments)]) == code
            assert message in capsys.readouterr().err


def test_flags_become_options(model, tmp_path):
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    flags = {
        "threads": 3,
        "torch_threads": 2,
        "max_batch_rows": 11,
        "max_wait_ms": 1.5,
        "max_queue_rows": 12,
        "request_timeout": 13.5,
        "max_body_bytes": 14,
        "max_rows": 15,
        "max_text": 16,
        "max_depth": 17,
        "max_connections": 18,
        "reload_seconds": 19.5,
        "drain_seconds": 20.0,
        "watchdog_seconds": 21.5,
    }
    named = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    with Serving(model, "--port", 0, "--token-file", token, *named) as serving:
        serving.until("try:")
        options = serving.get("/")[1]["options"]
        expected = flags | {
            "host": "127.0.0.1",
            "port": serving.port,
            "workers": 1,
            "token": "s3cret",
            "metrics_dir": "",
        }
        assert options == expected
        assert "s3cret" not in serving.text
    assert set(expected) == set(json.loads(ServeOptions().to_json()))


def test_slow_heads_and_too_many_connections(model):
    """The fake command gives a head half a second."""
    with Serving(model, "--port", 0, "--max-connections", 6) as serving:
        serving.until("try:")
        began = time.monotonic()
        with (
            serving.connect() as good,
            socket.create_connection(("127.0.0.1", serving.port)) as bad,
        ):
            assert ask(good, "/health")[0] == 200
            bad.sendall(b"GET /health HTTP/1.1\r\nhost")
            bad.settimeout(10)
            assert bad.recv(100) == b""  # closed
            assert 0.4 < time.monotonic() - began < 5
            time.sleep(0.8)
            assert ask(good, "/health")[0] == 200  # idle between requests is fine
            good.sock.sendall(b"GET /health HTTP/1.1\r\nhost: x")
            good.sock.settimeout(10)
            assert good.sock.recv(100) == b""
        many = [http.client.HTTPConnection("127.0.0.1", serving.port) for _ in range(8)]
        for connection in many:
            connection.connect()
        time.sleep(0.1)
        assert ask(many[-1], "/")[0] == 503
        assert ask(many[-1], "/health")[0] == 200
        for connection in many[6:]:
            connection.close()
        assert ask(many[0], "/")[0] == 200  # six are not too many
        for connection in many:
            connection.close()


def pids_of(serving, want, seconds=30):
    """Returns the processes that answer, as soon as there are so many."""
    found = set()
    end = time.monotonic() + seconds
    while len(found) < want and time.monotonic() < end:
        found.add(serving.get("/")[1]["pid"])
    return found


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_workers_share_a_port_and_are_replaced_when_they_die(model):
    with Serving(model, "--port", 0, "--workers", 2) as serving:
        serving.wait_for(lambda: serving.text.count("is ready") == 2)
        assert serving.text.count("try:") == 1  # the first one tells
        pids = pids_of(serving, 2)
        assert len(pids) == 2
        shared = serving.get("/")[1]["options"]["metrics_dir"]
        assert os.path.isdir(shared)
        # New connections are shared, however long they live.
        connections = [http.client.HTTPConnection("127.0.0.1", serving.port) for _ in range(24)]
        for connection in connections:
            connection.connect()
        owners = [ask(connection, "/")[1]["pid"] for connection in connections]
        assert min(owners.count(pid) for pid in pids) >= 9
        for connection in connections:
            connection.close()
        # One that does not accept, though it has the fewest, holds nobody up.
        stopped = min(pids)
        os.kill(stopped, signal.SIGSTOP)
        began = time.monotonic()
        assert {serving.get("/")[1]["pid"] for _ in range(10)} == pids - {stopped}
        assert time.monotonic() - began < 5
        os.kill(stopped, signal.SIGCONT)
        victim = min(pids)
        os.kill(victim, signal.SIGKILL)
        for _ in range(10):
            try:
                assert serving.get("/predict?x=3")[0] == 200
            except (OSError, http.client.HTTPException):
                continue  # a connection of the one that died
        serving.wait_for(lambda: serving.text.count("is ready") == 3)
        assert f"worker {victim} ended (signal SIGKILL); a new one starts" in serving.text
        replaced = pids_of(serving, 2)
        assert len(replaced) == 2
        assert victim not in replaced
        slow, thread = in_background(serving.get, "/sleep?seconds=2")
        time.sleep(0.5)
        serving.process.send_signal(signal.SIGTERM)
        time.sleep(0.7)
        with pytest.raises(ConnectionError):
            serving.get("/ready")
        assert serving.exit_code() == 0
        thread.join()
        assert slow == [(200, {"slept": True})]
        assert not any(is_alive(pid) for pid in pids | replaced)
        assert not os.path.exists(shared)


def test_a_stuck_worker_is_replaced(model):
    flags = ("--workers", 2, "--watchdog-seconds", 0.6, "--drain-seconds", 1)
    with Serving(model, "--port", 0, "--request-timeout", 0.3, *flags) as serving:
        serving.wait_for(lambda: serving.text.count("is ready") == 2)
        assert serving.get(f"/hang?file={model}/end") == (504, {"code": "deadline_exceeded"})
        serving.wait_for(lambda: serving.text.count("is ready") == 3)
        assert "a model call has been running for 1 s: this worker ends" in serving.text
        assert "(exit code 70)" in serving.text
        assert serving.get("/predict?x=3")[0] == 200


def test_alone_a_stuck_server_is_not_ready(model):
    flags = ("--watchdog-seconds", 0.5, "--request-timeout", 0.2, "--threads", 1)
    with Serving(model, "--port", 0, *flags) as serving:
        serving.until("try:")
        assert serving.get(f"/hang?file={model}/end")[0] == 504
        serving.wait_for(lambda: serving.get("/ready")[0] == 503)
        assert serving.get("/predict?x=1") == (504, {"code": "deadline_exceeded"})
        assert serving.get("/health")[0] == 200
        (model / "end").touch()
        serving.wait_for(lambda: serving.get("/ready")[0] == 200)
        assert serving.get("/predict?x=1")[0] == 200


def test_a_call_that_is_stuck_in_the_event_loop_ends_the_process(model):
    flags = ("--watchdog-seconds", 0.5, "--threads", 0)
    with Serving(model, "--port", 0, *flags) as serving:
        serving.until("try:")
        assert serving.get("/predict?x=3")[0] == 200
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            serving.get(f"/hang?file={model}/end")
        assert serving.exit_code() == 70
        assert "a model call has been running for 1 s: this process ends" in serving.text


def test_a_worker_that_is_stuck_in_its_event_loop_is_replaced(model):
    flags = ("--workers", 2, "--watchdog-seconds", 0.6, "--threads", 0)
    with Serving(model, "--port", 0, *flags) as serving:
        serving.wait_for(lambda: serving.text.count("is ready") == 2)
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            serving.get(f"/hang?file={model}/end")
        serving.wait_for(lambda: serving.text.count("is ready") == 3)
        assert "(exit code 70)" in serving.text
        assert serving.get("/predict?x=3")[0] == 200


def test_workers_end_when_their_supervisor_is_killed(model):
    with Serving(model, "--port", 0, "--workers", 2) as serving:
        serving.wait_for(lambda: serving.text.count("is ready") == 2)
        pids = pids_of(serving, 2)
        shared = serving.get("/")[1]["options"]["metrics_dir"]
        serving.process.kill()
        serving.wait_for(lambda: not any(is_alive(pid) for pid in pids), 20)
        shutil.rmtree(shared)


def test_a_socket_and_its_address():
    with bind("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        assert address_of(sock) == f"http://127.0.0.1:{port}"
        with pytest.raises(ConfigError, match="in use"):
            bind("127.0.0.1", port)
    with bind("0.0.0.0", 0) as sock:
        assert address_of(sock) == f"http://127.0.0.1:{sock.getsockname()[1]}"
    with bind("localhost", port):
        pass  # the port is free again


def test_what_a_worker_is_told_survives_the_way():
    told = Assignment("models", ServeOptions(port=9, token='a"\\'), 3, 4, 1, is_first=True)
    line = told.to_json()
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert Assignment.from_json(line) == told


def test_who_lets_others_take_connections(tmp_path):
    shares, other = Shares(str(tmp_path), 3), Shares(str(tmp_path), 3)
    assert not any(shares.is_ahead(worker) for worker in range(3))
    shares.set(0, 4)
    assert not other.is_ahead(0)  # the others do not take any
    other.set(1, 3)
    assert shares.is_ahead(0)
    assert not shares.is_ahead(1)
    other.set(1, 4)
    assert not shares.is_ahead(0)
    shares.set(2, 0)
    assert [other.is_ahead(worker) for worker in range(3)] == [True, True, False]
    other.close(2)
    assert not shares.is_ahead(0)


@pytest.mark.parametrize(
    ("given", "variable", "count"), [(None, None, 1), (None, "3", 3), (2, "3", 2), (2, None, 2)]
)
def test_threads_of_torch(monkeypatch, given, variable, count):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "9")
    if variable is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert set_thread_counts(given, 1) == count
    assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == str(count)  # noqa: TID251


def test_a_serving_process_is_prepared():
    import torch

    before = torch.get_num_threads(), sys.getswitchinterval(), gc.get_freeze_count()
    try:
        prepare(ServeOptions(torch_threads=3))
        assert torch.get_num_threads() == 3
        assert sys.getswitchinterval() < 0.001
        assert gc.get_freeze_count() > before[2]
    finally:
        torch.set_num_threads(before[0])
        sys.setswitchinterval(before[1])
        gc.unfreeze()


def test_sigterm_while_the_model_is_being_loaded(model):
    write_model(model, gate=str(model / "gate"))
    with Serving(model, "--port", 0) as serving:
        serving.wait_for(lambda: serving.port is not None)
        serving.wait_for(lambda: serving.get("/health")[0] == 200)
        assert serving.end() == 0
