"""Which tables are shared, and what cannot be."""

from functools import partial
from typing import Any

import pytest
import torch
from modules_fakes import FakeFeature, dense, ids, to_batch, to_parsed
from test_modules_embedding import parse
from torch import nn
from torchrec.modules.embedding_configs import DataType

from tzrec.errors import ConfigError
from tzrec.modules.embedding import EmbeddingGroup

DEEP = 'feature_groups { group_name: "deep" group_type: DEEP feature_names: ["a", "b"] }'
SEQUENCE = """
feature_groups { group_name: "seq" group_type: SEQUENCE feature_names: ["a", "b", "s"] }
"""


def build(text: str, features: list[FakeFeature]) -> Any:
    torch.manual_seed(0)
    return EmbeddingGroup(features, parse(text))


def pair(**second: Any) -> list[FakeFeature]:
    """Features a and b that share the table t, b with other settings; and a sequence."""
    a = ids("a", embedding_name="t")
    return [a, ids("b", **{"embedding_name": "t", **second}), ids("s", is_sequence=True)]


def table_names(group: Any) -> list[str]:
    return [name.split(".")[-2] for name, _ in group.named_parameters()]


@pytest.mark.parametrize("text", [DEEP, SEQUENCE])
def test_equal_names_share(text: str) -> None:
    features = pair()
    group = build(text, features)
    assert table_names(group) == (["t"] if text is DEEP else ["t", "s_emb"])
    rows = {"a": [[1], [2]], "b": [[2], [1]], "s": [[], []]}
    out = group(to_batch(features, to_parsed(features, rows)))
    x = out["deep" if text is DEEP else "seq.query"]
    assert torch.equal(x[0, :4], x[1, 4:])
    assert torch.equal(x[0, 4:], x[1, :4])


@pytest.mark.parametrize("text", [DEEP, SEQUENCE])
@pytest.mark.parametrize(
    ("second", "difference"),
    [
        ({"num_embeddings": 11}, "num_embeddings 10 and 11"),
        ({"embedding_dim": 8}, "embedding_dim 4 and 8"),
        ({"pooling": "mean"}, "pooling PoolingType.SUM and PoolingType.MEAN"),
        ({"data_type": DataType.FP16}, "data_type"),
        ({"trainable": False}, "trainable True and False"),
        ({"init_fn": nn.init.zeros_}, "init_fn uniform_.* and zeros_"),
        ({"init_fn": partial(nn.init.uniform_, a=-1.0, b=1.0)}, r"init_fn .* and uniform_\(a=-1"),
    ],
)
def test_mismatch_names_both_features_and_the_difference(
    text: str, second: dict[str, Any], difference: str
) -> None:
    if "pooling" in second and text is SEQUENCE:
        assert build(text, pair(**second)) is not None  # un-pooled tables have no pooling
        return
    with pytest.raises(ConfigError, match=f"'a' and 'b' share the table 't'.*{difference}"):
        build(text, pair(**second))


def test_equal_init_fn_is_no_mismatch() -> None:
    features = pair(init_fn=partial(nn.init.uniform_, a=-1.0, b=1.0))
    features[0].init_fn = partial(nn.init.uniform_, a=-1.0, b=1.0)
    assert table_names(build(DEEP, features)) == ["t"]


def test_deep_and_sequence_groups_have_independent_tables() -> None:
    names = [name for name, _ in build(DEEP + SEQUENCE, pair()).named_parameters()]
    assert names == [
        "emb_impls.__BASE__.ebc.embedding_bags.t.weight",
        "seq_emb_impls.__BASE__.ec_dict.4.embeddings.t.weight",
        "seq_emb_impls.__BASE__.ec_dict.4.embeddings.s_emb.weight",
    ]


def test_one_feature_in_several_tables() -> None:
    text = """
    feature_groups { group_name: "plain" group_type: DEEP feature_names: "a" }
    feature_groups { group_name: "own" group_type: DEEP feature_names: ["b", "a"]
                     embedding_name_suffix: "own" }
    feature_groups { group_name: "wide" group_type: WIDE feature_names: "a"
                     embedding_name_suffix: "own" }
    """
    features = pair()[:2]
    group = build(text, features)
    assert table_names(group) == ["t", "t_own", "t_wide_own"]
    rows = {"a": [[1], [2]], "b": [[3], [4]]}
    out = group(to_batch(features, to_parsed(features, rows)))
    weights = {name.split(".")[-2]: p for name, p in group.named_parameters()}
    assert torch.equal(out["plain"], weights["t"][[1, 2]])
    assert torch.equal(
        out["own"], torch.cat([weights["t_own"][[3, 4]], weights["t_own"][[1, 2]]], dim=1)
    )
    assert torch.equal(out["wide"], weights["t_wide_own"][[1, 2]])


def test_one_feature_in_several_unpooled_tables() -> None:
    text = "".join(
        f"""feature_groups {{ group_name: "{name}" group_type: SEQUENCE feature_names: ["a", "s"]
        embedding_name_suffix: "{name}" }}"""
        for name in ("x", "y")
    )
    features = pair()
    group = build(text, features)
    assert table_names(group) == ["t_x", "s_emb_x", "t_y", "s_emb_y"]
    rows = {"a": [[1], [2]], "b": [[], []], "s": [[1, 2], [3]]}
    out = group(to_batch(features, to_parsed(features, rows)))
    weights = {name.split(".")[-2]: p for name, p in group.named_parameters()}
    for name in ("x", "y"):
        assert torch.equal(out[f"{name}.query"], weights[f"t_{name}"][[1, 2]])
        assert torch.equal(out[f"{name}.sequence"][0], weights[f"s_emb_{name}"][[1, 2]])


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("", "x", "reached in two ways: feature 'a' of group 'one' .no suffix. and feature 'b'"),
        ("y", "x", "suffix 'y'.*suffix 'x'"),
    ],
)
def test_one_name_by_different_suffixes(first: str, second: str, message: str) -> None:
    a = ids("a", embedding_name=f"t_{second}".removesuffix(f"_{first}") if first else "t_x")
    b = ids("b", embedding_name="t")
    if first:
        a, b = ids("a", embedding_name="t_x"), ids("b", embedding_name="t_x_y")
        second = ""
    text = f"""
    feature_groups {{ group_name: "one" group_type: DEEP feature_names: "a"
                      embedding_name_suffix: "{first}" }}
    feature_groups {{ group_name: "two" group_type: DEEP feature_names: "b"
                      embedding_name_suffix: "{second}" }}
    """
    expected = message if not first else "suffix 'y'.*no suffix"
    with pytest.raises(ConfigError, match=expected):
        build(text, [a, b])


def test_wide_table_is_not_shared_by_accident() -> None:
    text = """
    feature_groups { group_name: "deep" group_type: DEEP feature_names: "a" }
    feature_groups { group_name: "wide" group_type: WIDE feature_names: "b" }
    """
    with pytest.raises(ConfigError, match="'t_wide' is reached in two ways"):
        build(text, [ids("a", embedding_name="t_wide"), ids("b", embedding_name="t")])


def test_trainable_travels_with_the_table() -> None:
    features = [ids("a"), ids("b", trainable=False), ids("s", is_sequence=True, trainable=False)]
    group = build(DEEP + SEQUENCE, features)
    pooled = group.emb_impls["__BASE__"].ebc.embedding_bag_configs()
    assert {t.name: t.trainable for t in pooled} == {"a_emb": True, "b_emb": False}
    rows = group.seq_emb_impls["__BASE__"].ec_dict["4"].embedding_configs()
    assert {t.name: t.trainable for t in rows} == {"a_emb": True, "b_emb": False, "s_emb": False}


def test_data_type_of_the_table() -> None:
    features = [ids("a", data_type=DataType.FP16), ids("b"), ids("s", is_sequence=True)]
    group = build(DEEP + SEQUENCE, features)
    dtypes = {name.split(".")[-2]: p.dtype for name, p in group.named_parameters()}
    assert dtypes == {"a_emb": torch.float16, "b_emb": torch.float32, "s_emb": torch.float32}
    rows = {"a": [[1], [2]], "b": [[3], [4]], "s": [[1], [2]]}
    out = group(to_batch(features, to_parsed(features, rows)))
    assert {v.dtype for k, v in out.items() if not k.endswith("length")} == {torch.float32}


@pytest.mark.parametrize("name", ["with.dot", "keys"])
def test_names_that_torch_refuses(name: str) -> None:
    with pytest.raises(ConfigError, match="embedding_name"):
        build(DEEP, [ids("a", embedding_name=name), ids("b")])


def test_features_keep_their_own_configs() -> None:
    """Building a group changes no config of a feature."""
    features = pair()
    before = [f.emb_bag_config.feature_names for f in features]
    build(DEEP, features)
    assert [f.emb_bag_config.feature_names for f in features] == before


def test_dense_features_have_no_table() -> None:
    group = build(DEEP, [dense("a"), dense("b", 3)])
    assert list(group.named_parameters()) == []
    assert group.group_feature_dims("deep") == {"a": 1, "b": 3}
