"""`EmbeddingGroup` against look-ups in NumPy."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from modules_fakes import FakeFeature, autodis, dense, ids, to_batch, to_parsed

from tzrec.errors import DataError
from tzrec.modules.embedding import EmbeddingGroup
from tzrec.protos import model_pb2

FEATURES = [
    ids("user", num_embeddings=20),
    ids("tags", value_dim=0, pooling="mean"),
    ids("likes", value_dim=0, is_weighted=True),
    dense("age"),
    dense("vector", 3),
    dense("price", dense_emb_config=autodis()),
    dense("map", 2, embedding_dim=5, dense_emb_config=SimpleNamespace()),
    ids("item", embedding_dim=6),
    ids("clicks", is_sequence=True, embedding_dim=6),
    ids("words", is_sequence=True, value_dim=0, pooling="mean"),
    ids("marks", is_sequence=True, value_dim=0),
    dense("times", 2, is_sequence=True),
]
ROWS: dict[str, list[Any]] = {
    "user": [[1], [], [3], [19]],
    "tags": [[1, 2], [], [3], [4, 5, 6]],
    "likes": [{1: 0.5, 2: 2.0}, {}, {4: -1.0}, {3: 3.0}],
    "age": [[1], [2], [3], [4]],
    "vector": [[1, 2, 3], [4, 5, 6], [7, 8, 9], [0, 0, 0]],
    "price": [[0.1], [0.2], [0.3], [0.4]],
    "map": [[0.1, 1], [0.2, 2], [0.3, 3], [0, 0]],
    "item": [[1], [2], [], [3]],
    "clicks": [[1, 2, 3], [], [4], [5, 5]],
    "words": [[[1], [2, 3], []], [], [[4]], [[5, 5, 6], [7]]],
    "marks": [[[1], [2, 3], []], [], [[4]], [[5, 5, 6], [7]]],
    "times": [[[1, 2], [3, 4], [5, 6]], [], [[7, 8]], [[9, 9], [8, 8]]],
}
CONFIG = """
feature_groups {
  group_name: "deep" group_type: DEEP
  feature_names: ["age", "user", "tags", "likes", "vector", "price", "map", "clicks"]
}
feature_groups { group_name: "wide" group_type: WIDE feature_names: ["user", "tags", "likes"] }
feature_groups {
  group_name: "seq" group_type: SEQUENCE
  feature_names: ["item", "vector", "map", "likes", "clicks", "words", "tags", "marks", "times"]
}
feature_groups {
  group_name: "flat" group_type: JAGGED_SEQUENCE feature_names: ["clicks", "words", "times"]
}
"""


def parse(text: str) -> Any:
    return text_format.Parse(text, model_pb2.ModelConfig()).feature_groups


def pick(*names: str) -> list[FakeFeature]:
    return [feature for feature in FEATURES if feature.name in names]


def build(text: str = CONFIG, features: list[FakeFeature] = FEATURES, **more: Any) -> Any:
    torch.manual_seed(0)
    return EmbeddingGroup(features, parse(text), **more)


def batch(rows: dict[str, list[Any]] = ROWS, features: list[FakeFeature] = FEATURES) -> Any:
    return to_batch(features, to_parsed(features, rows))


class Tables:
    """Row-by-row look-ups in the weights of a group."""

    def __init__(self, group: EmbeddingGroup) -> None:
        self.state = {k: v.double().numpy() for k, v in group.state_dict().items()}

    def weight(self, name: str, sequence: bool = False) -> np.ndarray:
        middle = f".embeddings.{name}.weight" if sequence else f".embedding_bags.{name}.weight"
        found = [value for key, value in self.state.items() if key.endswith(middle)]
        assert len(found) == 1
        return found[0]

    def pooled(self, table: np.ndarray, row: Any, mean: bool) -> np.ndarray:
        pairs = row.items() if isinstance(row, dict) else [(i, 1.0) for i in row]
        total = sum((w * table[i] for i, w in pairs), np.zeros(table.shape[1]))
        return total / max(len(row), 1) if mean else total

    def feature(self, feature: FakeFeature, suffix: str = "", sequence: bool = False) -> Any:
        """Per row a vector; for a sequence feature in a sequence group a list of vectors."""
        rows = ROWS[feature.name]
        mean = feature.pooling == "mean"
        if not feature.is_sparse:
            return rows
        table = self.weight(f"{feature.name}_emb{suffix}", sequence)
        if not feature.is_sequence or not sequence:
            return [self.pooled(table, row, mean) for row in rows]
        if feature.value_dim == 1:
            return [[table[i] for i in row] for row in rows]
        return [[self.pooled(table, step, mean) for step in row] for row in rows]


def by_name(name: str) -> FakeFeature:
    return next(feature for feature in FEATURES if feature.name == name)


def close(actual: torch.Tensor, expected: Any) -> None:
    expected = np.array(expected, np.float64)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual.detach().double().numpy(), expected, atol=1e-5)


def test_deep_and_wide() -> None:
    group = build(wide_embedding_dim=3)
    out = group(batch())
    tables = Tables(group)
    dims = {"age": 1, "user": 4, "tags": 4, "likes": 4, "vector": 3, "price": 4, "map": 5}
    dims["clicks"] = 6
    assert group.group_feature_dims("deep") == dims
    columns = dict(zip(dims, out["deep"].split(list(dims.values()), dim=1), strict=True))
    for name in ("age", "user", "tags", "likes", "vector", "clicks"):
        close(columns[name], tables.feature(by_name(name)))
    weight = tables.state["emb_impls.__BASE__.dense_ec.dense_embs.mlp_2_5.proj_w_map.weight"]
    close(columns["map"], np.array(ROWS["map"]) @ weight)
    autodis_state = {
        key.split(".")[-2]: value for key, value in tables.state.items() if "autodis" in key
    }
    price = []
    for (x,) in ROWS["price"]:
        h = autodis_state["proj_w_price"][0] * x
        h = np.where(h > 0, h, 0.01 * h)
        e = np.exp((autodis_state["proj_m_price"] @ h + 0.8 * h) / 0.1)
        price.append((e / e.sum()) @ autodis_state["meta_emb_price"])
    close(columns["price"], price)
    names = ("user", "tags", "likes")
    wide = [tables.feature(by_name(name), "_wide") for name in names]
    close(out["wide"], np.concatenate(wide, axis=1))
    assert group.group_dims("wide") == [3, 3, 3]


def test_unweighted_collection_pools_in_the_table() -> None:
    features = pick("user", "tags")
    text = 'feature_groups { group_name: "g" group_type: DEEP feature_names: ["user", "tags"] }'
    group = build(text, features)
    close(
        group(batch(features=features))["g"],
        np.concatenate([Tables(group).feature(f) for f in features], axis=1),
    )
    poolings = [t.pooling.value for t in group.emb_impls["__BASE__"].ebc.embedding_bag_configs()]
    assert poolings == ["SUM", "MEAN"]


def test_sequence_group() -> None:
    group = build()
    out = group(batch())
    tables = Tables(group)
    query = [tables.feature(by_name(name), sequence=True) for name in ("item", "vector")]
    mapped = "seq_emb_impls.__BASE__.dense_ec.dense_embs.mlp_2_5.proj_w_map.weight"
    query.append(np.array(ROWS["map"]) @ tables.state[mapped])
    query += [tables.feature(by_name(name), sequence=True) for name in ("likes", "tags")]
    close(out["seq.query"], np.concatenate(query, axis=1))
    expected = np.zeros((4, 3, 6 + 4 + 4 + 2))
    start = 0
    for name, dim in {"clicks": 6, "words": 4, "marks": 4, "times": 2}.items():
        for row, steps in enumerate(tables.feature(by_name(name), sequence=True)):
            for step, value in enumerate(steps):
                expected[row, step, start : start + dim] = value
        start += dim
    close(out["seq.sequence"], expected)
    assert out["seq.sequence_length"].tolist() == [3, 0, 1, 2]
    assert group.group_dims("seq.sequence") == [6, 4, 4, 2]
    assert group.group_dims("seq.query") == [6, 3, 5, 4, 4]
    assert group.group_total_dim("seq.query") == 22


def test_jagged_sequence_group() -> None:
    group = build()
    out = group(batch())
    parts = []
    for name in ("clicks", "words", "times"):
        rows = Tables(group).feature(by_name(name), sequence=True)
        parts.append([step for row in rows for step in row])
    close(out["flat.sequence"], np.concatenate(parts, axis=1))
    assert out["flat.sequence_length"].tolist() == [3, 0, 1, 2]
    assert "flat.query" not in out
    assert not group.has_group("flat.query")


def test_first_sequence_feature_decides_the_steps() -> None:
    features = pick("clicks", "times")
    rows = ROWS | {"times": [[[1, 2]], [[3, 4]], [[7, 8]] * 5, []]}
    text = """feature_groups { group_name: "g" group_type: %s feature_names: ["%s", "%s"] }"""
    out = build(text % ("SEQUENCE", "clicks", "times"), features)(batch(rows, features))
    assert out["g.sequence"].shape == (4, 3, 8)
    assert out["g.sequence_length"].tolist() == [3, 0, 1, 2]
    assert out["g.sequence"][2, :, 6:].tolist() == [[7, 8]] * 3
    out = build(text % ("SEQUENCE", "times", "clicks"), features)(batch(rows, features))
    assert out["g.sequence"].shape == (4, 5, 8)
    assert out["g.sequence_length"].tolist() == [1, 1, 5, 0]
    with pytest.raises(DataError, match="clicks and times of one JAGGED_SEQUENCE group differ"):
        build(text % ("JAGGED_SEQUENCE", "clicks", "times"), features)(batch(rows, features))


def test_single_value_takes_the_first_row() -> None:
    features = pick("item", "clicks")
    rows = ROWS | {"item": [[1, 2], [], [3, 3, 3], [4]]}
    text = (
        'feature_groups { group_name: "g" group_type: SEQUENCE feature_names: ["item", "clicks"] }'
    )
    group = build(text, features)
    table = Tables(group).weight("item_emb", sequence=True)
    expected = np.stack([table[1], np.zeros(6), table[3], table[4]])
    close(group(batch(rows, features))["g.query"], expected)


NESTED = """
feature_groups {
  group_name: "deep" group_type: DEEP feature_names: ["user", "age"]
  sequence_groups { group_name: "a" feature_names: ["item", "clicks"] }
  sequence_groups {
    group_name: "b" feature_names: ["clicks", "times"] embedding_name_suffix: "own"
  }
  sequence_encoders { pooling_encoder { input: "b" pooling_type: "sum" } }
  sequence_encoders { simple_attention { input: "a" } }
  sequence_encoders { din_encoder { input: "a" attn_mlp { hidden_units: 3 } } }
  embedding_name_suffix: "x"
}
"""


def test_nested_sequence_groups() -> None:
    group = build(NESTED)
    out = group(batch())
    keys = ["a.query", "a.sequence", "a.sequence_length", "b.sequence", "b.sequence_length", "deep"]
    assert sorted(out) == keys == group.grouped_features_keys()
    names = {
        "user": 4,
        "age": 1,
        "deep_seq_encoder_0": 8,
        "deep_seq_encoder_1": 6,
        "deep_seq_encoder_2": 6,
    }
    assert group.group_feature_dims("deep") == names
    assert group.group_dims("deep") == list(names.values())
    assert group.group_total_dim("deep") == 25 == out["deep"].shape[1]
    tables = Tables(group)
    # The suffix of the parent is inherited unless the nested group has its own.
    assert tables.weight("user_emb_x").shape == (20, 4)
    own = tables.weight("clicks_emb_own", sequence=True)
    assert tables.weight("clicks_emb_x", sequence=True).shape == own.shape
    columns = dict(zip(names, out["deep"].split(list(names.values()), dim=1), strict=True))
    sums = [sum((own[i] for i in row), np.zeros(6)) for row in ROWS["clicks"]]
    times = [np.array(row).sum(0) if row else np.zeros(2) for row in ROWS["times"]]
    close(columns["deep_seq_encoder_0"], np.concatenate([sums, times], axis=1))
    close(columns["user"], tables.feature(by_name("user"), "_x"))
    item, clicks = (tables.weight(f"{n}_emb_x", sequence=True) for n in ("item", "clicks"))
    attended = np.zeros((4, 6))
    for row, steps in enumerate(ROWS["clicks"]):
        if steps:
            q = item[ROWS["item"][row][0]] if ROWS["item"][row] else np.zeros(6)
            e = np.exp(clicks[steps] @ q)
            attended[row] = (e / e.sum()) @ clicks[steps]
    close(columns["deep_seq_encoder_1"], attended)


def test_single_unnamed_sequence_group_takes_the_name_of_its_parent() -> None:
    group = build(
        """feature_groups {
          group_name: "deep" group_type: DEEP
          sequence_groups { feature_names: "clicks" }
          sequence_encoders { pooling_encoder { input: "" } }
        }"""
    )
    out = group(batch())
    assert sorted(out) == ["deep", "deep.sequence", "deep.sequence_length"]
    assert out["deep"].shape == (4, 6)
    assert group.group_names() == ["deep"]
    assert group.group_total_dim("deep.sequence") == 6


def test_parameter_names() -> None:
    text = """
    feature_groups { group_name: "deep" group_type: DEEP feature_names: ["user", "item"] }
    feature_groups { group_name: "wide" group_type: WIDE feature_names: "user"
                     embedding_name_suffix: "s" }
    feature_groups { group_name: "seq" group_type: SEQUENCE feature_names: ["item", "clicks"] }
    feature_groups { group_name: "words" group_type: SEQUENCE feature_names: "words" }
    """
    shapes = {name: tuple(p.shape) for name, p in build(text).named_parameters()}
    assert shapes == {
        "emb_impls.__BASE__.ebc.embedding_bags.user_emb.weight": (20, 4),
        "emb_impls.__BASE__.ebc.embedding_bags.item_emb.weight": (10, 6),
        "emb_impls.__BASE__.ebc.embedding_bags.user_emb_wide_s.weight": (20, 4),
        "seq_emb_impls.__BASE__.ec_dict.6.embeddings.item_emb.weight": (10, 6),
        "seq_emb_impls.__BASE__.ec_dict.6.embeddings.clicks_emb.weight": (10, 6),
        "seq_emb_impls.__BASE__.ec_dict.4.embeddings.words_emb.weight": (10, 4),
    }


def test_data_groups_have_their_own_tables() -> None:
    features = [ids("u"), ids("i", data_group="__NEG__", embedding_name="u_emb")]
    text = """
    feature_groups { group_name: "user" group_type: DEEP feature_names: "u" }
    feature_groups { group_name: "item" group_type: DEEP feature_names: "i" }
    """
    group = build(text, features)
    rows = {"u": [[1], [2]], "i": [[3], [4], [5]]}
    out = group(batch(rows, features))
    assert out["user"].shape == (2, 4)
    assert out["item"].shape == (3, 4)
    state = group.state_dict()
    bags = "ebc.embedding_bags.u_emb.weight"
    close(out["user"], state[f"emb_impls.__BASE__.{bags}"][[1, 2]])
    close(out["item"], state[f"emb_impls.__NEG__.{bags}"][[3, 4, 5]])


def test_empty_sequences_everywhere() -> None:
    rows = {name: column[1:2] for name, column in ROWS.items()}
    out = build()(batch(rows))
    assert out["seq.sequence"].shape == (1, 1, 16)
    assert not out["seq.sequence"].any()
    assert out["flat.sequence"].shape == (0, 12)
    nested = build(NESTED)(batch(rows))
    assert nested["deep"].isfinite().all()


def test_gradients_reach_every_parameter_and_only_the_rows_of_the_batch() -> None:
    group = build(CONFIG + NESTED.replace("deep", "nested"))
    torch.manual_seed(1)
    out = group(batch())
    sum((v * torch.randn(v.shape)).sum() for v in out.values()).backward()
    for name, parameter in group.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if "linear.bias" not in name:
            assert parameter.grad.any(), name
    grad = group.emb_impls["__BASE__"].ebc.embedding_bags["user_emb"].weight.grad
    assert grad.any(dim=1).nonzero().squeeze(1).tolist() == [1, 3, 19]


def test_wide_init_fn_and_default_dim() -> None:
    def init(weight: torch.Tensor) -> None:
        torch.nn.init.constant_(weight, 0.5)

    group = build(wide_init_fn=init)
    state = group.state_dict()
    wide = state["emb_impls.__BASE__.ebc.embedding_bags.user_emb_wide.weight"]
    assert wide.shape == (20, 4)
    assert (wide == 0.5).all()
    assert not (state["emb_impls.__BASE__.ebc.embedding_bags.user_emb.weight"] == 0.5).any()


def test_meta_device() -> None:
    assert all(p.is_meta for p in build(NESTED, device="meta").parameters())
    assert all(p.is_meta for p in build(device="meta").parameters())
