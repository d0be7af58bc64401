"""``tzrec publish`` and ``tzrec serve`` with a real model, by their command lines."""

import http.client
import json
import os
import shutil
import signal
import sys
import threading

import numpy as np
import pytest
from serve_process import Serving
from serving_jobs import as_objects, export_rank, make_rows

from tzrec.cli import main
from tzrec.deploy import Predictor
from tzrec.errors import ServingError
from tzrec.serving.loading import load

TZREC = (sys.executable, "-m", "tzrec.cli")
BODY = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return export_rank(tmp_path_factory.mktemp("serve"))


def tzrec(*arguments):
    return main([str(argument) for argument in arguments])


def test_publish_lists_and_rolls_back(export, tmp_path, capsys):
    root = tmp_path / "models"
    assert tzrec("publish", export, root, "--name", "a") == 0
    assert tzrec("publish", export, root, "--name", "b", "--keep", 2) == 0
    assert capsys.readouterr().out.split() == ["a", "b"]
    assert tzrec("publish", root, "--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["a", "b"]
    assert [line.endswith("current") for line in lines] == [False, True]
    assert tzrec("publish", root, "--rollback") == 0
    assert capsys.readouterr().out == "a\n"
    assert (root / "current").read_text() == "a\n"
    assert tzrec("publish", export, root, "--name", "c", "--keep", 2) == 0
    # What answered before c is kept, not what was rolled back from.
    assert sorted(os.listdir(root / "versions")) == ["a", "c"]


def test_publish_refuses_what_does_not_work(export, tmp_path, capsys):
    root = tmp_path / "models"
    damaged = shutil.copytree(export, tmp_path / "damaged")
    with (damaged / "scripted_model.pt").open("r+b") as file:
        file.seek(-40, os.SEEK_END)
        file.write(b"damage")
    assert tzrec("publish", damaged, root) == 1
    assert "scripted_model.pt was changed after the export" in capsys.readouterr().err
    assert not (root / "current").exists()
    assert os.listdir(root / "versions") == []
    # One that is whole but scores differently: its golden batch says so.
    lying = shutil.copytree(export, tmp_path / "lying")
    golden = dict(np.load(lying / "golden.npz"))
    changed = [name for name in golden if "probs" in name]
    assert changed
    np.savez(lying / "golden.npz", **golden | {name: golden[name] + 0.1 for name in changed})
    rewrite_manifest(lying)
    assert tzrec("publish", lying, root) == 1
    assert "does not score here as where it was exported" in capsys.readouterr().err
    assert not (root / "current").exists()


def rewrite_manifest(directory):
    """Gives the manifest the checksums of the files as they are."""
    from tzrec.deploy.artefact import describe_files, read_manifest

    manifest = read_manifest(directory)
    manifest.files.update(describe_files(directory))
    (directory / "manifest.json").write_text(manifest.to_json())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a"], "got 1 paths, give EXPORT and ROOT"),
        (["a", "b", "--rollback"], "got 2 paths, give ROOT alone"),
        (["a", "--rollback", "--list"], "not allowed with"),
        (["a", "b", "--keep", "-1"], "too small"),
    ],
)
def test_wrong_publish_commands(arguments, message, capsys):
    assert tzrec("publish", *arguments) == 2
    assert message in capsys.readouterr().err


def test_remote_models_are_loaded_through_a_copy(export):
    from tzrec import storage

    storage.upload_tree(export, "memory://serving-remote/model")
    servable = load("memory://serving-remote/model")
    assert servable.version == "model"
    rows = make_rows(3).drop_columns("label")
    expected = Predictor.load(export).predict(rows)["probs"]
    np.testing.assert_array_equal(servable.predict(rows)["probs"], expected)
    storage.remove_tree("memory://serving-remote")
    with pytest.raises(ServingError):
        load("memory://serving-remote/model")


def test_serving_and_changing_versions_without_losing_a_request(export, tmp_path):
    """The whole way: publish, serve, ask, publish, ask, a broken one, SIGTERM."""
    root = tmp_path / "models"
    assert tzrec("publish", export, root, "--name", "a") == 0
    table = make_rows(20, seed=5)
    expected = Predictor.load(export).predict(table.drop_columns("label"))["probs"]
    rows = as_objects(table)
    arguments = ("serve", root, "--port", 0, "--reload-seconds", 0.1)
    with Serving(*arguments, script=TZREC) as serving:
        serving.until("try:", 120)
        assert "POST /v1/predict" in serving.text
        assert f"curl -s http://127.0.0.1:{serving.port}/v1/predict" in serving.text
        ended = threading.Event()
        answers = []
        clients = [
            threading.Thread(target=ask_until, args=(serving.port, i, rows[i::2], ended, answers))
            for i in range(2)
        ]
        for client in clients:
            client.start()
        serving.wait_for(lambda: len(answers) > 3)
        assert tzrec("publish", export, root, "--name", "b") == 0
        serving.wait_for(lambda: any(body["version"] == "b" for _, body in answers))
        shutil.copytree(root / "versions" / "a", root / "versions" / "broken")
        (root / "versions" / "broken" / "golden.npz").unlink()
        assert tzrec("publish", root, "--rollback", "--name", "broken") == 0
        serving.until("version broken cannot be loaded, b goes on answering")
        seen = len(answers)
        serving.wait_for(lambda: len(answers) > seen + 3)
        ended.set()
        for client in clients:
            client.join()
        assert serving.end(signal.SIGTERM) == 0
        assert "Traceback" not in serving.text
    assert {status for status, _ in answers} == {200}
    assert {body["version"] for _, body in answers} == {"a", "b"}
    for i in range(2):
        of_client = [body["outputs"]["probs"] for _, body in answers if body["client"] == i]
        np.testing.assert_allclose(
            of_client, np.tile(expected[i::2], (len(of_client), 1)), rtol=0, atol=1e-6
        )


@pytest.mark.slow
def test_two_workers_count_together(export):
    with Serving("serve", export, "--port", 0, "--workers", 2, script=TZREC) as serving:
        serving.wait_for(lambda: serving.text.count("is ready") == 2, 240)
        rows = as_objects(make_rows(3))
        for _ in range(20):
            with serving.connect() as connection:
                connection.request("POST", "/v1/predict", json.dumps({"rows": rows}), BODY)
                assert connection.getresponse().status == 200
        for _ in range(4):  # whichever answers
            with serving.connect() as connection:
                connection.request("GET", "/metrics")
                text = connection.getresponse().read().decode()
            counted = [line for line in text.splitlines() if "request_rows_count" in line]
            assert [float(line.split()[1]) for line in counted] == [20.0]
        assert serving.end() == 0


def ask_until(port, which, rows, ended, answers):
    """Asks for scores of rows without a pause; an error ends it, and shows."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = json.dumps({"rows": rows})
    while not ended.is_set():
        try:
            connection.request("POST", "/v1/predict", body, BODY)
            response = connection.getresponse()
            found = json.loads(response.read())
        except Exception as error:
            answers.append((repr(error), {"version": "", "client": which, "outputs": {}}))
            return
        answers.append((response.status, found | {"client": which}))
