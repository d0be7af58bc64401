"""The tree sampler: positives against the tree, negatives against their weights, and the join."""

import itertools
import pickle
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tzrec.datasets.samplers.tdm import TDMSampler
from tzrec.datasets.samplers.tdm_join import TreeRows, join_tree_rows
from tzrec.errors import ConfigError, DataError
from tzrec.protos.sampler_pb2 import TDMSampler as Config
from tzrec.retrieval.tree_build import Items, build_tree
from tzrec.retrieval.tree_codes import leaf_codes
from tzrec.retrieval.tree_files import write_tree

FIELDS = {"item": pa.int64(), "cate": pa.string(), "price": pa.float32(), "user": pa.int64()}


# One of the edges of item 17 in a tree of 8 items.
EDGE = "17\t19\t1.0\n"


def make_tree(root, num_items, n=2, **columns):
    """Items 10, 11, … below a tree; returns it."""
    ids = np.arange(10, 10 + num_items)
    cate = [f"c{i % 3}" for i in range(num_items)]
    items = Items(
        pa.array(ids), {"cate": pa.array(cate)}, {"price": pa.array(ids / 2, pa.float32())}
    )
    tree = build_tree(items, leaf_codes(num_items, n), n)
    write_tree(tree, str(root), item_id_field="item", attr_delimiter=":")
    return tree


def config_of(root, counts, **more):
    config = Config(
        item_input_path=f"{root}/node_table.txt",
        edge_input_path=f"{root}/edge_table.txt",
        predict_edge_input_path=f"{root}/predict_edge_table.txt",
        item_id_field="item",
        attr_fields=["item", "cate", "price"],
        layer_num_sample=counts,
    )
    for name, value in more.items():
        setattr(config, name, value)
    return config


def make_sampler(config, fields=FIELDS):
    sampler = TDMSampler(config, fields, is_training=True)
    sampler.build()
    return sampler


def draw(sampler, items, seed=0):
    return sampler.get({"item": pa.array(items)}, np.random.default_rng(seed))


def paths_of(tree):
    """Item → ids of its ancestors from level 1 on, by the codes."""
    ids = dict(zip(tree.codes.tolist(), tree.nodes.ids.to_pylist(), strict=True))
    paths = {}
    for code in tree.codes[tree.level_starts[-2] :].tolist():
        path, node = [], code
        while (node := (node - 1) // tree.branching) > 0:
            path.insert(0, ids[node])
        paths[ids[code]] = path
    return paths


def test_positives_are_the_ancestors_and_negatives_others_of_their_levels(tmp_path):
    tree = make_tree(tmp_path, 40, 3)
    counts = [0, 2, 5, 4, 30]
    sampler = make_sampler(config_of(tmp_path, counts))
    items = [10, 49, 23, 10]
    rows = draw(sampler, items)
    paths = paths_of(tree)
    assert (rows.num_rows, rows.num_positives, rows.num_negatives) == (4, 3, 41)
    assert list(rows.columns) == ["item", "cate", "price"]
    found = rows.columns["item"].to_pylist()
    assert found[:12] == [node for item in items for node in paths[item]]
    level = dict(zip(tree.nodes.ids.to_pylist(), tree.levels().tolist(), strict=True))
    for i, item in enumerate(items):
        negatives = found[12 + 41 * i : 12 + 41 * (i + 1)]
        assert [level[node] for node in negatives] == [1] * 2 + [2] * 5 + [3] * 4 + [4] * 30
        assert len(set(negatives)) == len(negatives)
        assert not {item, *paths[item]} & set(negatives)
    # Attributes are those of the node, of the input columns' types.
    row_of = {node: i for i, node in enumerate(tree.nodes.ids.to_pylist())}
    places = pa.array([row_of[node] for node in found])
    assert rows.columns["cate"].equals(tree.nodes.attrs["cate"].take(places))
    assert rows.columns["price"].equals(tree.nodes.raw_attrs["price"].take(places))
    assert sampler.estimated_sample_num(100) == 100 * (sum(counts) + 3)


def test_one_generator_decides_all_draws(tmp_path):
    make_tree(tmp_path, 40)
    sampler = make_sampler(config_of(tmp_path, [0, 1, 2, 3, 4, 5, 6], remain_ratio=0.5))
    copy = pickle.loads(pickle.dumps(sampler))
    runs = [draw(s, [10, 20], seed) for s, seed in ((sampler, 1), (copy, 1), (sampler, 2))]
    assert runs[0].columns["item"].equals(runs[1].columns["item"])
    assert not runs[0].columns["item"].equals(runs[2].columns["item"])


def weighted_tables(root, weights):
    """A root, one node, and leaves 10, 11, … with weights; all three tables as Parquet."""
    ids = [1, 2, 3, *range(10, 10 + len(weights))]
    levels = [0, 1, 1] + [2] * len(weights)
    nodes = {"item": ids, "tree_level": levels, "w": [1.0, 1.0, 1.0, *weights]}
    pq.write_table(pa.table(nodes), root / "nodes.parquet")
    leaves = ids[3:]
    edges = {"src_id": leaves, "dst_id": [2 + i % 2 for i in range(len(leaves))]}
    pq.write_table(pa.table(edges), root / "edges.parquet")
    return Config(
        item_input_path=f"{root}/nodes.parquet",
        edge_input_path=f"{root}/edges.parquet",
        predict_edge_input_path="unused",
        item_id_field="item",
        weight_field="w",
    )


def _one_after_the_other(weights, number):
    """Probability of each set of places, drawn without replacement."""
    sets = Counter()
    for order in itertools.permutations(range(len(weights)), number):
        left, chance = sum(weights), 1.0
        for place in order:
            chance *= weights[place] / left
            left -= weights[place]
        sets[frozenset(order)] += chance
    return sets


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize(
    "weights", [[1, 1, 1, 1, 1, 1, 1], [4, 1, 2, 0.5, 1, 3, 0.1], [1, 1000, 1, 2, 3, 1, 0]]
)
def test_negatives_follow_the_weights(tmp_path, weights, number):
    """Chi-square of the drawn sets; the row's own leaf is the first one."""
    config = weighted_tables(tmp_path, weights)
    config.layer_num_sample.extend([0, 1, number])
    sampler = make_sampler(config, {"item": pa.int64()})
    num_rows = 20_000
    rows = draw(sampler, [10] * num_rows, seed=5)
    found = np.array(rows.columns["item"])[num_rows:].reshape(num_rows, 1 + number)
    assert set(found[:, 0]) == {3}
    expected = {
        frozenset(place + 11 for place in places): chance * num_rows
        for places, chance in _one_after_the_other(weights[1:], number).items()
        if chance
    }
    counts = Counter(frozenset(row) for row in found[:, 1:].tolist())
    assert not set(counts) - set(expected)
    # Rare sets count as one.
    common = [key for key in expected if expected[key] >= 8]
    pairs = [(counts[key], expected[key]) for key in common]
    rest = num_rows - sum(e for _, e in pairs)
    if rest > 8:
        pairs.append((num_rows - sum(c for c, _ in pairs), rest))
    chi = sum((c - e) ** 2 / e for c, e in pairs)
    degrees = max(len(pairs) - 1, 1)
    assert chi < degrees + 5 * np.sqrt(2 * degrees)


@pytest.mark.parametrize(
    ("kind", "odds"),
    [("UNIFORM", [1, 1, 1, 1]), ("ARITHMETIC", [1, 2, 3, 4]), ("RECIPROCAL", [3, 4, 6, 12])],
)
def test_which_levels_are_kept(tmp_path, kind, odds):
    tree = make_tree(tmp_path, 32)
    level = dict(zip(tree.nodes.ids.to_pylist(), tree.levels().tolist(), strict=True))
    config = config_of(tmp_path, [0, 1, 1, 1, 1, 2], remain_ratio=0.25, probability_type=kind)
    sampler = make_sampler(config)
    rng, counts = np.random.default_rng(0), Counter()
    for _ in range(3000):
        rows = sampler.get({"item": pa.array([10, 11])}, rng)
        assert (rows.num_positives, rows.num_negatives) == (1, 3)
        levels = [level[node] for node in rows.columns["item"].to_pylist()]
        assert levels == [levels[0]] * 2 + [levels[0], 5, 5] * 2
        counts[levels[0]] += 1
    expected = 3000 * np.array(odds) / sum(odds)
    chi = sum((counts[i + 1] - e) ** 2 / e for i, e in enumerate(expected))
    assert chi < 20
    for ratio, kept in ((0.0, 0), (0.6, 2), (1.0, 4)):
        config.remain_ratio = ratio
        rows = draw(make_sampler(config), [10])
        assert (rows.num_positives, rows.num_negatives) == (kept, kept + 2)


def test_joined_rows():
    columns = {
        "item": pa.array([1, 2]),
        "user": pa.array(["a", "b"]),
        "clk": pa.array([0.0, 1.0]),
        "weight": pa.array([0.5, None]),
    }
    nodes = TreeRows({"item": pa.array([11, 12, 21, 22, 91, 92])}, 2, 2, 1)
    joined = join_tree_rows(columns, nodes, ["clk"])
    assert joined["item"].to_pylist() == [1, 2, 11, 12, 21, 22, 91, 92]
    assert joined["user"].to_pylist() == ["a", "b", "a", "a", "b", "b", "a", "b"]
    assert joined["clk"].equals(pa.array([1, 1, 1, 1, 1, 1, 0, 0]))
    assert joined["weight"].to_pylist() == [0.5, None, 0.5, 0.5, None, None, 0.5, None]
    assert nodes.num_joined == 8
    assert nodes.is_negative().tolist() == [False] * 6 + [True] * 2
    with pytest.raises(DataError, match=r"column 'user' is string, but .* is int64"):
        join_tree_rows(columns, TreeRows({"user": pa.array([1, 2])}, 2, 1, 0), [])
    empty = {name: column[:0] for name, column in columns.items()}
    assert join_tree_rows(empty, TreeRows({}, 0, 2, 1), ["clk"]) == empty


def test_small_trees(tmp_path):
    make_tree(tmp_path / "two", 2)
    rows = draw(make_sampler(config_of(tmp_path / "two", [0, 1])), [10, 11])
    assert rows.columns["item"].to_pylist() == [11, 10]
    assert rows.num_positives == 0
    make_tree(tmp_path / "one", 1)
    rows = draw(make_sampler(config_of(tmp_path / "one", [0])), [10])
    assert rows.num_joined == 1


def test_ids_of_text(tmp_path):
    items = Items(pa.array(["b", "a", "ä c"]), {}, {})
    write_tree(build_tree(items, leaf_codes(3, 2), 2), str(tmp_path), item_id_field="item",
               attr_delimiter=":")  # fmt: skip
    config = config_of(tmp_path, [0, 1, 1], string_ids=True)
    del config.attr_fields[:]
    rows = draw(make_sampler(config, {"item": pa.string()}), ["ä c", "b"])
    assert rows.columns["item"].to_pylist()[:2] == ["nonleaf#1", "nonleaf#2"]
    assert rows.columns["item"].to_pylist()[2::2] == ["nonleaf#2", "nonleaf#1"]


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([10, 999], "row 1 of the batch: item 999 is no leaf of the tree"),
        ([41, 10], "row 0 of the batch: item 41 is no leaf"),
        ([10, None], "row 1 of the batch: 'item' is empty"),
    ],
)
def test_rows_without_a_leaf(tmp_path, items, words):
    make_tree(tmp_path, 20)
    sampler = make_sampler(config_of(tmp_path, [0, 1, 1, 1, 1, 1]))
    with pytest.raises(DataError, match=words):
        draw(sampler, pa.array(items, pa.int64()))
    with pytest.raises(DataError, match="column 'item' is not in the batch"):
        sampler.get({"user": pa.array([1])}, np.random.default_rng())


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ([0, 1, 1], r"has 3 numbers, the tree has 4 levels with 1, 2, 4, 8 nodes"),
        ([0, 1, 4, 1], r"4 nodes of level 2, which has 4(.|\n)*at most \[0, 1, 3, 7\]"),
    ],
)
def test_counts_that_the_tree_does_not_have(tmp_path, counts, words):
    make_tree(tmp_path, 8)
    with pytest.raises(ConfigError, match=words):
        make_sampler(config_of(tmp_path, counts))


def test_nodes_of_no_weight_are_not_drawn(tmp_path):
    config = weighted_tables(tmp_path, [1, 0, 1, 1])
    config.layer_num_sample.extend([0, 1, 3])
    with pytest.raises(ConfigError, match="3 nodes of level 2, which has 3"):
        make_sampler(config, {"item": pa.int64()})


NO_TREES = {
    "no root": ("node", "1.0\t0:", "1.0\t1:", "has 0 nodes of level 0"),
    "three roots": ("node", "1.0\t1:", "1.0\t0:", "has 3 nodes of level 0"),
    "a gap": ("node", "1.0\t2:", "1.0\t9:", "no node of level 2, but some of level 9"),
    "no level": ("node", "1.0\t0:", "1.0\t:", "row 2 after the header: the first .* is empty"),
    "no number": ("node", "1.0\t0:", "1.0\tx:", "'tree_level' cannot be int64"),
    "edge missing": ("edge", EDGE, "", "leaf 17 has 1 edges, it should have one to a node"),
    "edge to the root": ("edge", EDGE, "17\t18\t1.0\n", "from node 17 to node 18"),
    "edge to a leaf": ("edge", EDGE, "17\t10\t1.0\n", "from node 17 to node 10"),
    "edge from a node": ("edge", EDGE, "19\t20\t1.0\n", "from node 19 to node 20"),
    "two of a level": ("edge", EDGE, "17\t22\t1.0\n", "leaf 17 has 2 edges"),
}


@pytest.mark.parametrize("case", NO_TREES)
def test_tables_that_are_no_tree(tmp_path, case):
    file, old, new, words = NO_TREES[case]
    make_tree(tmp_path, 8)
    path = tmp_path / f"{file}_table.txt"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(DataError, match=words):
        make_sampler(config_of(tmp_path, [0, 1, 1, 1]))
