"""Everything that a directory can hold: towers, retrievers, trees; and that it is not trusted."""

import pickle
import shutil

import match_jobs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from serving_jobs import export_rank, load_servable, serving

from tzrec.config import prepare
from tzrec.deploy import Predictor, parts
from tzrec.deploy.export import export_parts
from tzrec.errors import ServingError
from tzrec.options import from_environment
from tzrec.retrieval import IndexOptions, Retriever, TreeRetriever
from tzrec.retrieval.build import index_export
from tzrec.retrieval.tree_build import Items, build_tree
from tzrec.retrieval.tree_codes import leaf_codes
from tzrec.retrieval.tree_files import write_tree
from tzrec.training.build import build_features, build_model

TDM = """
train_input_path: "{root}/train.parquet" eval_input_path: "" model_dir: "{root}/run"
train_config {{ num_epochs: 1
    sparse_optimizer {{ adagrad_optimizer {{ lr: 0.1 }} constant_learning_rate {{}} }}
    dense_optimizer {{ adam_optimizer {{ lr: 0.01 }} constant_learning_rate {{}} }} }}
data_config {{ dataset_type: ParquetDataset batch_size: 32 fg_mode: FG_NORMAL label_fields: "clk"
  input_fields {{ input_name: "item" input_type: INT64 }}
  input_fields {{ input_name: "cate" input_type: STRING }}
  input_fields {{ input_name: "age" input_type: STRING }}
  input_fields {{ input_name: "click__item" input_type: STRING }}
  input_fields {{ input_name: "clk" input_type: INT64 }}
  tdm_sampler {{ item_input_path: "{root}/tree/node_table.txt"
    edge_input_path: "{root}/tree/edge_table.txt"
    predict_edge_input_path: "{root}/tree/predict_edge_table.txt" item_id_field: "item"
    attr_fields: ["item", "cate"] attr_delimiter: "," layer_num_sample: [0, 1, 1, 1, 1, 1, 1] }} }}
feature_configs {{ id_feature {{ feature_name: "item" expression: "item:item" num_buckets: 99
    embedding_dim: 8 embedding_name: "item" }} }}
feature_configs {{ id_feature {{ feature_name: "cate" expression: "item:cate" hash_bucket_size: 9
    embedding_dim: 4 }} }}
feature_configs {{ id_feature {{ feature_name: "age" expression: "user:age" num_buckets: 9
    embedding_dim: 4 }} }}
feature_configs {{ sequence_feature {{ sequence_name: "click" sequence_length: 8 sequence_delim: ";"
    features {{ id_feature {{ feature_name: "item" expression: "item:item" num_buckets: 99
        embedding_dim: 8 embedding_name: "item" }} }} }} }}
model_config {{
  feature_groups {{ group_name: "seq" feature_names: ["item", "click__item"] group_type: SEQUENCE }}
  feature_groups {{ group_name: "rest" feature_names: ["cate", "age"] }}
  tdm {{ multiwindow_din {{ windows_len: [2, 6] attn_mlp {{ hidden_units: 8 }} }}
    final {{ hidden_units: 8 }} }}
  losses {{ binary_cross_entropy {{}} }} }}
"""


def export_in_parts(config_path, root):
    config = prepare(config_path).config
    features = build_features(config.data_config, config.feature_configs)
    torch.manual_seed(1)
    model = build_model(config, features, with_labels=False).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.set_is_inference(True)
    made = parts.sample_parts(model, config, features, from_environment({}))
    return export_parts(made, root / "export")


@pytest.fixture(scope="module")
def match(tmp_path_factory):
    """An export of towers, and ``retriever/`` beside it."""
    root = tmp_path_factory.mktemp("match")
    export = export_in_parts(match_jobs.write_job(root), root)
    options = IndexOptions()
    index_export(str(export), str(root / "items.parquet"), str(root / "retriever"), options,
                 id_field="item_id")  # fmt: skip
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """An export of a TDM, and ``tree/`` beside it."""
    root = tmp_path_factory.mktemp("tree")
    items = Items(pa.array(range(40)), {"cate": pa.array([f"c{i % 4}" for i in range(40)])}, {})
    nodes = build_tree(items, leaf_codes(40, 2), 2)
    write_tree(nodes, str(root / "tree"), item_id_field="item", attr_delimiter=",")
    rows = {
        "item": [i % 40 for i in range(64)],
        "cate": [f"c{i % 4}" for i in range(64)],
        "age": [str(i % 9) for i in range(64)],
        "click__item": [f"{i % 40};{i % 7}" for i in range(64)],
        "clk": [i % 2 for i in range(64)],
    }
    pq.write_table(pa.table(rows), root / "train.parquet")
    (root / "job.config").write_text(TDM.format(root=root))
    export_in_parts(root / "job.config", root)
    return root


def users(num_rows=3):
    table = match_jobs.make_rows(num_rows, seed=7).select(["user_id", "likes", "age"])
    return table, table.to_pylist()


def error_of(response):
    error = response.json()["error"]
    return response.status_code, error["code"], error["field"]


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
            ({"k": 1.0}, 422, "wrong_type", "k"),
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
        copy = shutil.copytree(match / "retriever", tmp_path / "index")
        shutil.rmtree(copy / "user")
        with pytest.raises(ServingError, match="index without a user tower"):
            load_servable(copy)

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
