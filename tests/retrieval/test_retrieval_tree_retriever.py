"""`TreeRetriever` against the model on whole rows, with features of users, of nodes and of both."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from google.protobuf import text_format

from tzrec.datasets.samplers.tdm_predict import TDMPredictSampler
from tzrec.deploy.predictor import Predictor
from tzrec.errors import ServingError
from tzrec.models.factory import create_model
from tzrec.models.wrappers import ScriptWrapper
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.retrieval.tree_build import Items, build_tree
from tzrec.retrieval.tree_codes import leaf_codes
from tzrec.retrieval.tree_files import write_tree
from tzrec.retrieval.tree_retriever import TreeRetriever
from tzrec.training.build import build_features

CONFIG = """
train_input_path: "" eval_input_path: "" model_dir: ""
data_config {{ dataset_type: ParquetDataset fg_mode: {mode} label_fields: "clk"
  input_fields {{ input_name: "item" input_type: INT64 }}
  input_fields {{ input_name: "cate" input_type: STRING }}
  tdm_sampler {{
    item_input_path: "{root}/node_table.txt" edge_input_path: "{root}/edge_table.txt"
    predict_edge_input_path: "{root}/predict_edge_table.txt" item_id_field: "item"
    attr_fields: ["item", "cate"] attr_delimiter: "," layer_num_sample: [0, 1]
  }}
}}
feature_configs {{ id_feature {{ feature_name: "item" expression: "item:item" num_buckets: 99 embedding_dim: 8 embedding_name: "item" }} }}
feature_configs {{ id_feature {{ feature_name: "cate" expression: "item:cate" hash_bucket_size: 9 embedding_dim: 4 }} }}
feature_configs {{ id_feature {{ feature_name: "age" expression: "user:age" num_buckets: 9 embedding_dim: 4 }} }}
feature_configs {{ combo_feature {{ feature_name: "age_cate" expression: ["user:age", "item:cate"] hash_bucket_size: 50 embedding_dim: 4 }} }}
feature_configs {{ sequence_feature {{ sequence_name: "click" sequence_length: 8 sequence_delim: ";"
  features {{ id_feature {{ feature_name: "item" expression: "item:item" num_buckets: 99 embedding_dim: 8 embedding_name: "item" }} }}
}} }}
model_config {{
  feature_groups {{ group_name: "seq" feature_names: ["item", "click__item"] group_type: SEQUENCE }}
  feature_groups {{ group_name: "rest" feature_names: ["cate", "age", "age_cate"] }}
  tdm {{ multiwindow_din {{ windows_len: [2, 6] attn_mlp {{ hidden_units: 8 }} }} final {{ hidden_units: 8 }} }}
  losses {{ binary_cross_entropy {{}} }}
}}
"""  # noqa: E501
USERS = {"age": [3, 4, 5], "click__item": ["1;2", "", "7;8;9"]}


class EagerPredictor(Predictor):
    """The model itself in the place of its export."""

    def __init__(self, config, input_tile=0):
        self.config, self.device = config, torch.device("cpu")
        self.features = build_features(config.data_config, config.feature_configs)
        torch.manual_seed(0)
        model = create_model(config.model_config, self.features, []).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)
        model.set_is_inference(True)
        self._wrapper = ScriptWrapper(model, input_tile=input_tile)
        self._parser = self._wrapper._data_parser
        self._rows = None
        self._types = self._column_types()

    def forward(self, data):
        self.last = data
        with torch.no_grad():
            return self._wrapper(data)


def retriever_of(root, mode="FG_NORMAL", input_tile=0, **more):
    items = Items(pa.array(range(40)), {"cate": pa.array([f"c{i % 4}" for i in range(40)])}, {})
    tree = build_tree(items, leaf_codes(40, 2), 2)
    write_tree(tree, str(root), item_id_field="item", attr_delimiter=",")
    config = text_format.Parse(CONFIG.format(root=root, mode=mode), EasyRecConfig())
    predictor = EagerPredictor(config, input_tile)
    sampler = TDMPredictSampler(config.data_config.tdm_sampler, predictor.column_types)
    sampler.build()
    return TreeRetriever(predictor, sampler, **more)


@pytest.mark.parametrize("mode", ["FG_NORMAL", "FG_DAG"])
def test_scores_are_those_of_whole_rows(tmp_path, mode):
    retriever = retriever_of(tmp_path, mode)
    assert [feature.name for feature in retriever.user_features] == ["age", "click__item"]
    assert retriever.mixed_columns == ["age"]
    assert sorted(retriever.input_columns) == ["age", "click__item"]
    found = retriever.retrieve(USERS, k=40)
    for row in range(3):
        assert sorted(found.ids[row]) == list(range(40))
        items = found.ids[row]
        pairs = {name: [column[row]] * 40 for name, column in USERS.items()}
        pairs |= {"item": items, "cate": [f"c{i % 4}" for i in items]}
        scores = retriever.predictor.predict(pairs)["probs"]
        np.testing.assert_allclose(found.scores[row], scores, rtol=1e-5)
        assert len(set(scores.tolist())) > 20


@pytest.mark.parametrize("input_tile", [2, 3])
def test_a_tiled_model_reads_users_once(tmp_path, monkeypatch, input_tile):
    monkeypatch.setattr("tzrec.retrieval.tree_retriever._PAIRS_AT_ONCE", 16)
    plain = retriever_of(tmp_path / "plain").retrieve(USERS, k=40)
    retriever = retriever_of(tmp_path / "tiled", input_tile=input_tile)
    found = retriever.retrieve(USERS, k=40)
    for row in range(3):
        expected = dict(zip(plain.ids[row], plain.scores[row], strict=True))
        scores = [expected[item] for item in found.ids[row]]
        np.testing.assert_allclose(found.scores[row], scores, rtol=1e-5)
    data = retriever.predictor.last
    users, pairs = len(data["age.lengths"]), len(data["item.lengths"])
    assert users == len(data["click__item.lengths"]) == len(data["batch_size"]) < pairs
    assert data["batch_size"].sum() == pairs


def test_a_tiled_model_whose_users_features_read_nodes(tmp_path, monkeypatch):
    """Each pair is then a user of its own."""
    reads_nodes = CONFIG.replace('["user:age", "item:cate"]', '["user:age", "user:cate"]')
    monkeypatch.setitem(globals(), "CONFIG", reads_nodes)
    retriever = retriever_of(tmp_path, input_tile=3)
    assert retriever.mixed_columns == ["age"]
    retriever.retrieve(USERS, k=3)
    assert retriever.predictor.last["batch_size"].tolist() == 1


def test_rows_together_are_rows_alone_whatever_the_threads(tmp_path, monkeypatch):
    monkeypatch.setattr("tzrec.retrieval.tree_retriever._PAIRS_AT_ONCE", 16)
    retriever = retriever_of(tmp_path, threads=3)
    together = retriever.retrieve(USERS, k=4)
    for row in range(3):
        alone = retriever.retrieve({n: [c[row]] for n, c in USERS.items()}, k=4)
        assert alone.ids == [together.ids[row]]
        np.testing.assert_allclose(alone.scores[0], together.scores[row], rtol=1e-5)


def test_a_model_without_a_tree(tmp_path, monkeypatch):
    retriever = retriever_of(tmp_path)
    retriever.predictor.config.data_config.ClearField("tdm_sampler")
    monkeypatch.setattr(Predictor, "load", lambda *_, **__: retriever.predictor)
    with pytest.raises(ServingError, match="no tdm_sampler in its config"):
        TreeRetriever.load(tmp_path)
