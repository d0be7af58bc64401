"""`EmbeddingGroup` on features of a config and batches of the data parser."""

from typing import Any, Dict  # noqa: UP035

import numpy as np
import pyarrow as pa
import pytest
import torch
from google.protobuf import text_format
from modules_fakes import script
from torch import nn

from tzrec.datasets.data_parser import DataParser
from tzrec.errors import ConfigError
from tzrec.features.feature import create_features
from tzrec.modules.embedding import EmbeddingGroup
from tzrec.protos import pipeline_pb2

CONFIG = """
feature_configs { id_feature {
  feature_name: "user" expression: "user:user" num_buckets: 20 embedding_dim: 4 value_dim: 1
  init_fn: "nn.init.uniform_,a=0.5,b=0.75" } }
feature_configs { id_feature {
  feature_name: "tags" expression: "user:tags" hash_bucket_size: 10 embedding_dim: 4
  pooling: "mean" trainable: false } }
feature_configs { raw_feature { feature_name: "age" expression: "user:age" } }
feature_configs { raw_feature {
  feature_name: "price" expression: "item:price" embedding_dim: 4 autodis { num_channels: 3 } } }
feature_configs { raw_feature {
  feature_name: "pair" expression: "item:pair" value_dim: 2 embedding_dim: 5 mlp {} } }
feature_configs { id_feature {
  feature_name: "item" expression: "item:item" num_buckets: 30 embedding_dim: 8
  embedding_name: "item_emb" value_dim: 1 } }
feature_configs { sequence_feature {
  sequence_name: "click" sequence_length: 10 sequence_delim: ";"
  features { id_feature { feature_name: "item" expression: "item:item" num_buckets: 30
                          embedding_dim: 8 embedding_name: "item_emb" } }
  features { id_feature { feature_name: "words" expression: "item:words" num_buckets: 10
                          embedding_dim: 4 value_dim: 0 } }
  features { raw_feature { feature_name: "price" expression: "item:price" } } } }
model_config {
  feature_groups { group_name: "wide" group_type: WIDE feature_names: ["user", "tags"] }
  feature_groups {
    group_name: "deep" group_type: DEEP feature_names: ["user", "age", "price", "tags", "pair"]
    sequence_groups { group_name: "click"
      feature_names: ["item", "click__item", "click__words", "click__price"] }
    sequence_encoders { din_encoder { input: "click" attn_mlp { hidden_units: [8, 4] } } }
  }
}
"""
COLUMNS = {
    "user": pa.array([1, 2, 3, None]),
    "tags": pa.array(["1\x032", "", "3", None]),
    "age": pa.array([0.5, 1.0, 1.5, 2.0]),
    "price": pa.array([1.0, 2.0, 3.0, 4.0]),
    "pair": pa.array(["1\x032", "3\x034", "5\x036", "7\x038"]),
    "item": pa.array([4, 5, 6, 7]),
    "click__item": pa.array(["1;2;3", "", "4", "5;6"]),
    "click__words": pa.array(["1\x032;3;4", "", "5", "6;7\x038"]),
    "click__price": pa.array(["0.1;0.2;0.3", "", "0.4", "0.5;0.6"]),
}


class Exported(nn.Module):
    def __init__(self, parser: DataParser, group: EmbeddingGroup) -> None:
        super().__init__()
        self._parser = parser
        self.group = group

    def forward(
        self,
        parsed: Dict[str, torch.Tensor],  # noqa: UP006
    ) -> Dict[str, torch.Tensor]:  # noqa: UP006
        return self.group(self._parser.to_batch(parsed))


@pytest.fixture
def module() -> Any:
    torch.manual_seed(0)
    config = text_format.Parse(CONFIG, pipeline_pb2.EasyRecConfig(model_dir="m"))
    features = create_features(config.feature_configs, fg_encoded_multival_sep="\x03")
    group = EmbeddingGroup(
        features,
        config.model_config.feature_groups,
        wide_embedding_dim=4,
        wide_init_fn="nn.init.constant_,val=0.25",
    )
    return Exported(DataParser(features), group).eval()


def test_values(module: Any) -> None:
    out = module(module._parser.parse(COLUMNS))
    state = {key.split(".")[-2]: value for key, value in module.group.state_dict().items()}
    assert torch.equal(state["user_emb_wide"], torch.full((20, 4), 0.25))
    assert state["user_emb"].min() >= 0.5
    user = state["user_emb"].numpy()
    zero = np.zeros((1, 4), np.float32)
    deep = out["deep"].detach().numpy()
    np.testing.assert_array_equal(deep[:, :4], np.concatenate([user[1:4], zero]))
    np.testing.assert_array_equal(deep[:, 4], [0.5, 1.0, 1.5, 2.0])
    tags = state["tags_emb"].numpy()
    expected = np.stack([(tags[1] + tags[2]) / 2, zero[0], tags[3], zero[0]])
    np.testing.assert_allclose(deep[:, 9:13], expected, atol=1e-6)
    item = state["item_emb"].numpy()
    np.testing.assert_array_equal(out["click.query"].detach().numpy(), item[4:8])
    sequence = out["click.sequence"].detach().numpy()
    assert sequence.shape == (4, 3, 8 + 4 + 1)
    words = state["click__words_emb"].numpy()
    step = np.concatenate([item[1], words[1] + words[2], [0.1]])
    np.testing.assert_allclose(sequence[0, 0], step, atol=1e-6)
    step = np.concatenate([item[6], words[7] + words[8], [0.6]])
    np.testing.assert_allclose(sequence[3, 1], step, atol=1e-6)
    assert not sequence[1].any()
    assert out["click.sequence_length"].tolist() == [3, 0, 1, 2]
    assert out["deep"].shape[1] == module.group.group_total_dim("deep") == 4 + 1 + 4 + 4 + 5 + 13


def test_names_and_flags(module: Any) -> None:
    names = set(module.group.state_dict())
    assert "seq_emb_impls.__BASE__.ec_dict.8.embeddings.item_emb.weight" in names
    assert "emb_impls.__BASE__.ebc.embedding_bags.user_emb_wide.weight" in names
    dense = "emb_impls.__BASE__.dense_ec.dense_embs"
    assert f"{dense}.autodis_3_4_0p1_0p8.meta_emb_price.weight" in names
    assert f"{dense}.mlp_2_5.proj_w_pair.weight" in names
    tables = module.group.emb_impls["__BASE__"].ebc.embedding_bag_configs()
    assert {t.name: t.trainable for t in tables}["tags_emb"] is False


def test_scripted_equals_eager(module: Any) -> None:
    scripted = script(module)
    for rows in (slice(None), slice(1, 2), slice(2, 4)):
        parsed = module._parser.parse({name: column[rows] for name, column in COLUMNS.items()})
        expected, actual = module(parsed), scripted(parsed)
        for name, value in expected.items():
            torch.testing.assert_close(actual[name], value, atol=1e-6, rtol=0, msg=name)


def test_wrong_wide_init_fn() -> None:
    with pytest.raises(ConfigError, match="init_fn"):
        EmbeddingGroup([], [], wide_init_fn="nn.init.nope_")
