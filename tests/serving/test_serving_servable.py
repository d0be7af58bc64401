"""Everything that a directory can hold: towers, retrievers, trees; and that it is not trusted."""

import pickle
import shutil

import jsonschema_rs
import match_jobs
import numpy as np
import pyarrow as pa
import pytest
import torch
from export_kinds import make_match, make_tree
from serving_jobs import export_rank, load_servable, serving

from tzrec.deploy import Predictor
from tzrec.errors import ServingError
from tzrec.retrieval import Index, Retriever, TreeRetriever


@pytest.fixture(scope="module")
def match(tmp_path_factory):
    """An export of towers, and ``retriever/`` beside it."""
    root = tmp_path_factory.mktemp("match")
    make_match(root)
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """An export of a TDM, and ``tree/`` beside it."""
    root = tmp_path_factory.mktemp("tree")
    make_tree(root)
    return root


def users(num_rows=3):
    table = match_jobs.make_rows(num_rows, seed=7).select(["user_id", "likes", "age"])
    return table, table.to_pylist()


def error_of(response):
    error = response.json()["error"]
    return response.status_code, error["code"], error["field"]


def send_examples(client, paths):
    """Sends every example of a description; answers must be as it says."""
    sent = 0
    for path, methods in paths.items():
        if "post" not in methods:
            continue
        operation = methods["post"]
        body = operation["requestBody"]["content"]["application/json"]
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        for example in body["examples"].values():
            jsonschema_rs.validator_for(body["schema"]).validate(example["value"])
            answer = client.post(path, json=example["value"])
            assert answer.status_code == 200
            jsonschema_rs.validator_for(schema).validate(answer.json())
            sent += 1
    assert sent >= 2


class TestRetriever:
    @pytest.fixture(scope="class")
    def client(self, match):
        with serving(load_servable(match / "retriever", "r1"), max_rows=100) as client:
            yield client

    def test_schema(self, client):
        schema = client.get("/v1/schema").json()
        assert schema["capabilities"] == ["retrieve", "embed"]
        assert schema["kind"] == "retriever"
        found = schema["retrieve"]
        assert sorted(found["example"]) == ["age", "likes", "user_id"]
        assert (found["num_items"], found["item_id_type"], found["can_exclude"]) == (
            40, "int64", True)  # fmt: skip
        assert list(schema["embed"]) == ["user"]
        answer = client.post("/v1/retrieve", json={"rows": found["examples"]})
        assert answer.status_code == 200

    def test_items_are_those_of_the_library(self, client, match):
        table, rows = users()
        wanted = Retriever.load(match / "retriever").retrieve(table, 7)
        found = client.post("/v1/retrieve", json={"rows": rows, "k": 7}).json()
        assert (found["version"], found["num_rows"]) == ("r1", 3)
        assert found["item_ids"] == wanted.ids
        np.testing.assert_allclose(found["scores"], wanted.scores, rtol=1e-6)

    def test_exclude(self, client):
        _, rows = users()
        first = client.post("/v1/retrieve", json={"rows": rows, "k": 3}).json()["item_ids"]
        body = {"rows": rows, "k": 3, "exclude": [first[0], None, [first[2][0], 10**6]]}
        second = client.post("/v1/retrieve", json=body).json()["item_ids"]
        assert not set(first[0]) & set(second[0])
        assert second[1] == first[1]
        assert second[2][:2] == first[2][1:]

    def test_k(self, client):
        _, rows = users(1)
        assert len(client.post("/v1/retrieve", json={"rows": rows}).json()["item_ids"][0]) == 10
        many = client.post("/v1/retrieve", json={"rows": rows, "k": 1_000_000}).json()
        assert sorted(many["item_ids"][0]) == list(range(40))

    @pytest.mark.parametrize(
        ("more", "status", "code", "field"),
        [
            ({"k": 0}, 422, "out_of_range", "k"),
            ({"k": 2**40}, 422, "out_of_range", "k"),
            ({"k": 1.5}, 422, "wrong_type", "k"),
            ({"k": True}, 422, "wrong_type", "k"),
            ({"k": 500_000}, 413, "too_many_items", "k"),
            ({"exclude": [1]}, 422, "wrong_length", "exclude"),
            ({"exclude": 1}, 422, "wrong_type", "exclude"),
            ({"exclude": [[], 1, []]}, 422, "wrong_type", "exclude[1]"),
            ({"exclude": [[], [], ["1"]]}, 422, "wrong_type", "exclude[2]"),
            ({"outputs": []}, 422, "unknown_field", "outputs"),
        ],
    )
    def test_what_is_wrong_is_named(self, client, more, status, code, field):
        answer = client.post("/v1/retrieve", json={"rows": users()[1]} | more)
        assert error_of(answer) == (status, code, field)

    def test_predict_is_not_served(self, client):
        answer = client.post("/v1/predict", json={"rows": []})
        assert error_of(answer)[:2] == (404, "not_served")
        assert "/v1/retrieve and /v1/embed" in answer.json()["error"]["hint"]

    def test_vectors(self, client, match):
        table, rows = users()
        wanted = Retriever.load(match / "retriever").embed(table)
        for body in ({"rows": rows}, {"rows": rows, "tower": "user"}):
            found = client.post("/v1/embed", json=body).json()
            assert found["tower"] == "user"
            np.testing.assert_allclose(found["vectors"], wanted, rtol=0, atol=1e-6)

    def test_arrow(self, client, match):
        table, _ = users()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as out:
            out.write_table(table)
        body = sink.getvalue().to_pybytes()
        kind = "application/vnd.apache.arrow.stream"
        headers = {"Content-Type": kind, "Accept": kind}
        answer = client.post("/v1/retrieve?k=4", content=body, headers=headers)
        found = pa.ipc.open_stream(answer.content).read_all()
        wanted = Retriever.load(match / "retriever").retrieve(table, 4)
        assert found["item_ids"].to_pylist() == wanted.ids
        answer = client.post("/v1/embed", content=body, headers=headers)
        assert pa.ipc.open_stream(answer.content).read_all().schema.names == ["vectors"]

    def test_openapi_describes_what_is_served(self, client):
        paths = client.get("/openapi.json").json()["paths"]
        send_examples(client, paths)
        assert [p for p in paths if p.startswith("/v1/")] == [
            "/v1/retrieve", "/v1/embed", "/v1/schema"]  # fmt: skip


class TestTowers:
    def test_both(self, match):
        servable = load_servable(match / "export")
        assert (servable.kind, servable.version) == ("towers", "export")
        assert servable.capabilities == ("embed",)
        item = match_jobs.make_items().slice(3, 2).select(["item_id", "price"])
        wanted = Predictor.load(match / "export" / "item").predict(item)["item_tower_emb"]
        with serving(servable) as client:
            body = {"tower": "item", "rows": item.to_pylist()}
            found = client.post("/v1/embed", json=body).json()
            np.testing.assert_allclose(found["vectors"], wanted, rtol=0, atol=1e-6)
            send_examples(client, client.get("/openapi.json").json()["paths"])
            schema = client.get("/v1/schema").json()["embed"]
            assert sorted(schema["item"]["example"]) == ["item_id", "price"]
            assert sorted(schema["user"]["example"]) == ["age", "likes", "user_id"]
            for tower, code in ((None, "missing_field"), ("x", "unknown_tower"), (1, None)):
                answer = client.post("/v1/embed", json={"tower": tower, "rows": []})
                assert error_of(answer) == (422, code or "unknown_tower", "tower")

    def test_one(self, match):
        servable = load_servable(match / "export" / "user")
        assert servable.capabilities == ("predict", "embed")
        assert servable.towers == ("user",)
        columns = {n: users()[0][n].combine_chunks() for n in ("user_id", "likes", "age")}
        vectors = servable.embed("user", columns)["user_tower_emb"]
        np.testing.assert_array_equal(servable.predict(columns)["user_tower_emb"], vectors)
        with pytest.raises(ServingError, match="has no embed/item"):
            servable.embed("item", columns)


class TestTree:
    @pytest.fixture(scope="class")
    def client(self, tree):
        with serving(load_servable(tree / "export")) as client:
            yield client

    def test_items_are_those_of_the_library(self, client, tree):
        schema = client.get("/v1/schema").json()
        assert schema["kind"] == "tree"
        assert schema["capabilities"] == ["retrieve", "predict", "embed"]
        assert sorted(schema["retrieve"]["example"]) == ["age", "click__item"]
        assert schema["retrieve"]["num_items"] == 40
        rows = [{"age": "3", "click__item": "1;2"}, {"age": "5", "click__item": None}]
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        wanted = TreeRetriever.load(tree / "export" / "model").retrieve(columns, 5)
        found = client.post("/v1/retrieve", json={"rows": rows, "k": 5}).json()
        assert found["item_ids"] == wanted.ids
        np.testing.assert_allclose(found["scores"], wanted.scores, rtol=1e-5)

    def test_a_tree_cannot_leave_items_out(self, client):
        body = {"rows": [{"age": "3", "click__item": "1"}], "exclude": [[1]]}
        assert error_of(client.post("/v1/retrieve", json=body)) == (422, "not_served", "exclude")
        assert client.get("/v1/schema").json()["retrieve"]["can_exclude"] is False

    def test_predict_and_embed(self, client, tree):
        send_examples(client, client.get("/openapi.json").json()["paths"])
        row = {"item": 3, "cate": "c3", "age": "3", "click__item": "1;2"}
        found = client.post("/v1/predict", json={"rows": [row]}).json()["outputs"]["probs"]
        columns = {name: [value] for name, value in row.items()}
        wanted = Predictor.load(tree / "export" / "model").predict(columns)["probs"]
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
        body = {"rows": [{"item": 3}], "tower": "item"}
        assert np.shape(client.post("/v1/embed", json=body).json()["vectors"]) == (1, 8)

    def test_the_tree_may_lie_in_the_export(self, tree, tmp_path):
        moved = shutil.copytree(tree / "export", tmp_path / "moved")
        shutil.copytree(tree / "tree", moved / "tree")
        for part in ("model", "embedding"):
            text = (tree / "export" / part / "pipeline.config").read_text()
            assert str(tree) in text
        away = (tree / "tree").rename(tree / "gone")
        try:
            assert load_servable(moved).num_items == 40
            with pytest.raises(Exception, match="node_table"):
                load_servable(tree / "export")
        finally:
            away.rename(tree / "tree")


class TestLoading:
    def test_nothing_to_serve(self, tmp_path):
        with pytest.raises(ServingError, match=r"holds no manifest\.json"):
            load_servable(tmp_path)

    def test_an_index_without_a_user_tower(self, match, tmp_path):
        alone = Index.load(match / "retriever").save(tmp_path / "index")
        with pytest.raises(ServingError, match="index without a user tower"):
            load_servable(alone)

    def test_a_damaged_part(self, match, tmp_path):
        copy = shutil.copytree(match / "export", tmp_path / "copy")
        (copy / "item" / "golden.npz").write_bytes(b"x")
        with pytest.raises(ServingError, match=r"golden\.npz"):
            load_servable(copy)

    @pytest.mark.parametrize("kind", ["rank", "export", "retriever", "tree"])
    def test_nothing_is_unpickled(self, match, tree, tmp_path, monkeypatch, kind):
        """Python's unpickler runs what a file says; no file of ours needs it."""
        path = {"rank": None, "tree": tree / "export"}.get(kind, match / kind)
        path = path or export_rank(tmp_path)

        def refuse(*_, **__):
            raise AssertionError("a file is unpickled")

        for name in ("load", "loads", "Unpickler", "_Unpickler"):
            monkeypatch.setattr(pickle, name, refuse)
        monkeypatch.setattr(torch, "load", refuse)
        monkeypatch.setattr(np.lib.format, "pickle", None, raising=False)
        servable = load_servable(path)
        servable.warm_up()
        assert servable.capabilities

    def test_warm_up_runs_everything(self, match, monkeypatch):
        servable = load_servable(match / "retriever")
        sizes, found = [], []
        tower = servable._retriever.user_tower
        real, search = tower.predict, servable._retriever.retrieve
        monkeypatch.setattr(tower, "predict", lambda rows: sizes.append(len(rows)) or real(rows))
        monkeypatch.setattr(
            servable._retriever, "retrieve", lambda rows, k: found.append(k) or search(rows, k)
        )
        servable.warm_up()
        assert sizes[:6] == [1, 1, 2, 2, 64, 64]
        assert found == [10]
