"""`EmbeddingGroup` on a batch with the rows of a sampler: each group has its own rows."""

from typing import Any, Dict  # noqa: UP035

import pyarrow as pa
import pytest
import torch
from google.protobuf import text_format
from modules_fakes import script
from torch import nn

from tzrec.datasets.data_parser import DataParser
from tzrec.features.feature import create_features
from tzrec.modules.embedding import EmbeddingGroup
from tzrec.protos import pipeline_pb2

ID = "num_buckets: 30 embedding_dim: 4"
CONFIG = f"""
feature_configs {{ id_feature {{ feature_name: "user" {ID} }} }}
feature_configs {{ raw_feature {{ feature_name: "age" }} }}
feature_configs {{ id_feature {{ feature_name: "item" {ID} embedding_name: "item_emb" }} }}
feature_configs {{ id_feature {{ feature_name: "tags" {ID} pooling: "mean" }} }}
feature_configs {{ id_feature {{ feature_name: "words" {ID} weighted: true }} }}
feature_configs {{ raw_feature {{
  feature_name: "price" embedding_dim: 4 autodis {{ num_channels: 3 }} }} }}
feature_configs {{ raw_feature {{ feature_name: "size" value_dim: 2 }} }}
feature_configs {{ sequence_feature {{ sequence_name: "click" sequence_length: 9 sequence_delim: ";"
  features {{ id_feature {{ feature_name: "item" {ID} embedding_name: "click_emb" }} }} }} }}
feature_configs {{ sequence_id_feature {{ feature_name: "shots" sequence_length: 9
  sequence_delim: ";" {ID} }} }}
model_config {{
  feature_groups {{ group_name: "user" feature_names: ["user", "age"] group_type: DEEP
    sequence_groups {{ group_name: "click" feature_names: ["click__item"] }}
    sequence_encoders {{ pooling_encoder {{ input: "click" }} }} }}
  feature_groups {{ group_name: "item" group_type: DEEP
    feature_names: ["item", "tags", "words", "price", "size"] }}
  feature_groups {{ group_name: "shots" feature_names: ["item", "shots"] group_type: SEQUENCE }}
}}
"""
SAMPLED = ["item", "tags", "words", "price", "size", "shots"]
USERS = {
    "user": pa.array([3, 4]),
    "age": pa.array([0.5, 1.5]),
    "click__item": pa.array(["1;2;3", ""]),
}
ITEMS = {
    "item": pa.array([5, 6, 7, 8, 5]),
    "tags": pa.array(["1\x032", "", "3", None, "4"]),
    "words": pa.array(["1:0.5\x032:2.0", "3:1.0", "", "4:0.1", "5:1.0"]),
    "price": pa.array([1.0, 2.0, 3.0, 4.0, 5.0]),
    "size": pa.array(["1\x032", "3\x034", "5\x036", "7\x038", "9\x0310"]),
    "shots": pa.array(["1", "2;3", "", "4;5;6", "7"]),
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


def build(neg_fields: Any = SAMPLED, force: bool = False) -> Any:
    torch.manual_seed(0)
    config = text_format.Parse(CONFIG, pipeline_pb2.EasyRecConfig(model_dir="m"))
    features = create_features(
        config.feature_configs,
        neg_fields=neg_fields,
        fg_encoded_multival_sep="\x03",
        force_base_data_group=force,
    )
    group = EmbeddingGroup(features, config.model_config.feature_groups)
    parser = DataParser(features, force_base_data_group=force)
    return Exported(parser, group).eval()


def take(columns: Any, rows: Any) -> Any:
    return {name: column.take(pa.array(rows)) for name, column in columns.items()}


def by_table(module: Any) -> Any:
    """Tables without the data group in their names."""
    state = module.group.state_dict()
    return {key.replace("__NEG__", "__BASE__"): value for key, value in state.items()}


@pytest.fixture
def plain() -> Any:
    """A group that knows of no sampler, with the weights of the one that does."""
    module = build(neg_fields=None)
    module.group.load_state_dict(by_table(build()))
    return module


def test_groups_of_all_kinds_have_their_rows(plain: Any) -> None:
    module = build()
    out = module(module._parser.parse({**USERS, **ITEMS}))
    assert set(module.group.emb_impls) == {"__BASE__", "__NEG__"}
    # One row of each at a time, where they are as many.
    for row in range(2):
        alone = plain(plain._parser.parse({**take(USERS, [row]), **take(ITEMS, [row])}))
        torch.testing.assert_close(out["user"][row], alone["user"][0])
    for row in range(5):
        alone = plain(plain._parser.parse({**take(USERS, [0]), **take(ITEMS, [row])}))
        torch.testing.assert_close(out["item"][row], alone["item"][0])
        torch.testing.assert_close(out["shots.query"][row], alone["shots.query"][0])
        steps = int(alone["shots.sequence_length"][0])
        assert out["shots.sequence_length"][row] == steps
        shots = out["shots.sequence"][row, :steps]
        torch.testing.assert_close(shots, alone["shots.sequence"][0, :steps])
    assert out["user"].shape[0] == 2
    assert out["item"].shape[0] == out["shots.sequence"].shape[0] == 5


def test_one_data_group_pads_with_empty_rows() -> None:
    apart, together = build(), build(force=True)
    together.group.load_state_dict(by_table(apart))
    columns = {**USERS, **ITEMS}
    expected = apart(apart._parser.parse(columns))
    out = together(together._parser.parse(columns))
    assert set(together.group.emb_impls) == {"__BASE__"}
    torch.testing.assert_close(out["item"], expected["item"])
    torch.testing.assert_close(out["shots.sequence"], expected["shots.sequence"])
    torch.testing.assert_close(out["user"][:2], expected["user"])
    assert not out["user"][2:].any()


@pytest.mark.parametrize("force", [False, True])
def test_scripted_equals_eager(force: bool) -> None:
    module = build(force=force)
    scripted = script(module)
    for rows in (range(5), range(2, 4)):
        parsed = module._parser.parse({**USERS, **take(ITEMS, list(rows))})
        expected, actual = module(parsed), scripted(parsed)
        assert expected.keys() == actual.keys()
        for name, value in expected.items():
            torch.testing.assert_close(actual[name], value, msg=name)


def test_every_table_of_every_group_learns() -> None:
    module = build()
    out = module.train()(module._parser.parse({**USERS, **ITEMS}))
    sum(value.float().sum() for value in out.values()).backward()
    for name, parameter in module.group.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
