"""Beam search in a tree, rows of parsed features, and what both are made of."""

import pickle

import numpy as np
import pyarrow as pa
import pytest
import torch
from google.protobuf import text_format

from tzrec.datasets.data_parser import DataParser
from tzrec.datasets.samplers.tdm_predict import TDMPredictSampler
from tzrec.errors import ConfigError, DataError, ServingError
from tzrec.features.feature import create_features
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.protos.sampler_pb2 import TDMSampler
from tzrec.retrieval.tree_build import Items, build_tree
from tzrec.retrieval.tree_codes import depth_of, leaf_codes
from tzrec.retrieval.tree_files import write_tree
from tzrec.retrieval.tree_retriever import probabilities
from tzrec.retrieval.tree_rows import append_rows, pick_rows
from tzrec.retrieval.tree_search import beam_search


def make_tree(root, num_items, n=2):
    """The tree of items 10, 11, …: as built, and as read."""
    items = Items(pa.array(np.arange(10, 10 + num_items)), {}, {})
    tree = build_tree(items, leaf_codes(num_items, n), n)
    write_tree(tree, str(root), item_id_field="item", attr_delimiter=":")
    return tree, read_tree(root)


def read_tree(root, **more):
    config = TDMSampler(
        item_input_path=f"{root}/node_table.txt",
        edge_input_path="unused",
        predict_edge_input_path=f"{root}/predict_edge_table.txt",
        item_id_field="item",
    )
    sampler = TDMPredictSampler(config, {"item": pa.int64()}, **more)
    sampler.build()
    return sampler


def one_by_one(children, level_of, score, n, num_rows, k):
    """The rule of the interface, a row at a time, in sets and lists."""
    depth = max(level_of.values())
    level = min(depth_of(2 * n * k, n), depth)
    result = []
    for row in range(num_rows):
        beam = [node for node, found in level_of.items() if found == level]
        for _ in range(level, depth):
            beam = sorted(beam, key=lambda node: -score[row, node])[: 2 * k]
            beam = [child for node in beam for child in children[node]]
        result.append(sorted(beam, key=lambda node: -score[row, node])[:k])
    return result


@pytest.mark.parametrize(("num_items", "n", "k"), [(200, 2, 3), (200, 3, 2), (70, 5, 1), (9, 2, 4)])
def test_beam_search_follows_the_rule(tmp_path, num_items, n, k):
    tree, sampler = make_tree(tmp_path, num_items, n)
    ids = tree.nodes.ids.to_pylist()
    level_of = dict(zip(ids, tree.levels().tolist(), strict=True))
    children = {node: [] for node in ids}
    for place, parent in enumerate(tree.parents().tolist()):
        if parent >= 0:
            children[ids[parent]].append(ids[place])
    table = np.random.default_rng(0).random((7, max(ids) + 1)).astype(np.float32)
    names = np.array(sampler.nodes.items.column("item"))
    calls = []

    def score(rows, nodes):
        calls.append(len(rows))
        return table[rows, names[nodes]]

    found = beam_search(sampler, score, 7, k)
    expected = one_by_one(children, level_of, table, n, 7, k)
    assert names[found.positions].tolist() == expected
    for row, leaves in enumerate(expected):
        assert found.scores[row].tolist() == table[row, leaves].tolist()
    # One pass for a level, whatever the number of rows.
    assert len(calls) == tree.num_levels - min(depth_of(2 * n * k, n), tree.num_levels - 1)
    assert sampler.branching == n


def test_beam_search_finds_the_best_leaves_where_parents_are_as_good(tmp_path):
    """The tree of the paper: a node is as good as its best leaf."""
    _, sampler = make_tree(tmp_path, 300)
    nodes, rng = sampler.nodes, np.random.default_rng(0)
    table = np.zeros((5, len(nodes.levels)), np.float32)
    leaves = nodes.on_level(nodes.num_levels - 1)
    table[:, leaves] = rng.random((5, len(leaves)))
    for level in range(nodes.num_levels - 2, -1, -1):
        owners, children = sampler.expand(nodes.on_level(level))
        for row in range(5):
            best = np.zeros(len(nodes.on_level(level)), np.float32)
            np.maximum.at(best, owners, table[row, children])
            table[row, nodes.on_level(level)] = best
    found = beam_search(sampler, lambda rows, places: table[rows, places], 5, 10)
    for row in range(5):
        best = leaves[np.argsort(-table[row, leaves])[:10]]
        assert found.positions[row].tolist() == best.tolist()


def test_fewer_leaves_than_asked_for(tmp_path):
    _, sampler = make_tree(tmp_path, 3)
    found = beam_search(sampler, lambda rows, nodes: nodes.astype(np.float32), 2, 5)
    assert (found.positions >= 0).sum(1).tolist() == [3, 3]
    assert found.positions[0, 3:].tolist() == [-1, -1]
    assert np.isneginf(found.scores[:, 3:]).all()
    with pytest.raises(ConfigError, match="0 items are asked for"):
        beam_search(sampler, lambda rows, nodes: nodes, 2, 0)


def test_children_of_nodes(tmp_path):
    _, sampler = make_tree(tmp_path, 4)
    # Node 14 is the root, 15 and 16 its children.
    rows = sampler.get({"item": pa.array([-1, 16, 14, 10])})
    assert rows.columns["item"].to_pylist() == [14, 11, 10, 15, 16]
    assert rows.num_negatives == 5
    one = read_tree(tmp_path, expand_factor=1)
    few = pickle.loads(pickle.dumps(one))
    assert few.get({"item": pa.array([-1, 16, 14])}).columns["item"].to_pylist() == [14, 11, 15]
    assert (sampler.estimated_sample_num(8), few.estimated_sample_num(8)) == (16, 8)
    with pytest.raises(DataError, match="node 99 is not in the tree"):
        sampler.get({"item": pa.array([14, 99])})


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ("16\t14\t1.0", "from node 16 of level 1 to node 14 of level 0"),
        ("14\t11\t1.0", "from node 14 of level 0 to node 11 of level 2"),
        ("15\t11\t1.0\n16\t11\t1.0", "node 11 has 2 parents"),
        ("", "node 11 has 0 parents"),
    ],
)
def test_edges_that_are_no_tree(tmp_path, new, words):
    make_tree(tmp_path, 4)
    path = tmp_path / "predict_edge_table.txt"
    text = path.read_text()
    assert "16\t11\t1.0\n" in text
    path.write_text(text.replace("16\t11\t1.0\n", f"{new}\n" if new else ""))
    with pytest.raises(DataError, match=words):
        read_tree(tmp_path)


FEATURES = """
train_input_path: "" eval_input_path: "" model_dir: ""
feature_configs { id_feature { feature_name: "id" num_buckets: 50 embedding_dim: 4 } }
feature_configs { id_feature { feature_name: "tags" num_buckets: 50 embedding_dim: 4 weighted: true } }
feature_configs { raw_feature { feature_name: "size" value_dim: 2 } }
feature_configs { sequence_feature { sequence_name: "s" sequence_delim: ";"
  features { id_feature { feature_name: "id" num_buckets: 50 embedding_dim: 4 } }
  features { id_feature { feature_name: "tags" value_dim: 0 num_buckets: 50 embedding_dim: 4 } }
  features { raw_feature { feature_name: "price" } }
} }
"""  # noqa: E501


def _rows(num_rows):
    rng = np.random.default_rng(0)
    steps = rng.integers(0, 4, num_rows)
    join = ";".join

    def ids(n):
        return [str(v) for v in rng.integers(0, 50, n)]

    return {
        "id": pa.array([None if rng.random() < 0.3 else int(v) for v in rng.integers(0, 50, 20)]),
        "tags": pa.array(["\x03".join(f"{v}:0.5" for v in ids(n)) for n in steps]),
        "size": pa.array([[float(v), 1.0] for v in range(num_rows)]),
        "s__id": pa.array([join(ids(n)) for n in steps]),
        "s__tags": pa.array([join("\x03".join(ids(1 + i)) for i in range(n)) for n in steps]),
        "s__price": pa.array([join(ids(n)) for n in steps]),
    }


def test_picked_rows_are_those_that_would_have_been_parsed():
    features = create_features(list(text_format.Parse(FEATURES, EasyRecConfig()).feature_configs))
    parser, columns = DataParser(features), _rows(20)
    parsed = parser.parse(columns)
    rows = np.random.default_rng(1).integers(0, 20, 57)
    expected = parser.parse({name: column.take(pa.array(rows)) for name, column in columns.items()})
    picked = pick_rows(parsed, torch.from_numpy(rows))
    assert set(picked) == set(expected)
    assert {key.rpartition(".")[2] for key in picked} == {
        "values", "lengths", "weights", "key_lengths",
    }  # fmt: skip
    for key, value in expected.items():
        assert torch.equal(picked[key], value), key
    halves = [
        parser.parse({n: c.slice(start, 10) for n, c in columns.items()}) for start in (0, 10)
    ]
    for key, value in append_rows(halves).items():
        assert torch.equal(value, parsed[key]), key


def test_which_output_leads_the_way():
    two = {"probs": torch.rand(3, 2), "probs1": torch.tensor([0.1, 0.2, 0.3])}
    assert probabilities(two).tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert probabilities({"probs": torch.ones(2)}).tolist() == [1, 1]
    for wrong in ({"y": torch.ones(2)}, {"probs": torch.rand(2, 3)}):
        with pytest.raises(ServingError, match="no probability to walk a tree by"):
            probabilities(wrong)
