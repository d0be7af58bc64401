"""Item trees: codes, clustering, nodes above the items, and their files."""

import csv
import itertools
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tzrec.errors import ConfigError, DataError
from tzrec.retrieval.tree_build import Items, build_tree
from tzrec.retrieval.tree_cluster import cluster_codes
from tzrec.retrieval.tree_codes import depth_of, first_code, leaf_codes
from tzrec.retrieval.tree_files import write_serving_tree, write_tree


def _codes_one_by_one(num_items, n):
    """The rule of the interface, leaf by leaf."""
    codes = {}

    def cut(items, code):
        if len(items) == 1:
            codes[items[0]] = code
            return
        edges = [len(items) * i // n for i in range(n + 1)]
        for i, (start, stop) in enumerate(itertools.pairwise(edges)):
            if stop > start:
                cut(items[start:stop], n * code + n - i)

    cut(list(range(num_items)), 0)
    depth = 0
    while n**depth < num_items:
        depth += 1
    last = sum(n**level for level in range(depth))
    result = []
    for i in range(num_items):
        code = codes[i]
        while code < last:
            code = n * code + 1
        result.append(code)
    return result


def test_codes_of_small_trees():
    assert leaf_codes(1, 2).tolist() == [0]
    assert leaf_codes(2, 2).tolist() == [2, 1]
    assert leaf_codes(4, 2).tolist() == [6, 5, 4, 3]
    # Two items right of the root's first half; the lone one moves down to a first child.
    assert leaf_codes(3, 2).tolist() == [5, 4, 3]
    assert leaf_codes(3, 3).tolist() == [3, 2, 1]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(2, 5))
def test_codes_follow_the_rule(num_items, n):
    codes = leaf_codes(num_items, n)
    assert codes.tolist() == _codes_one_by_one(num_items, n)
    depth = depth_of(num_items, n)
    assert len(set(codes.tolist())) == num_items
    assert first_code(depth, n) <= codes.min()
    assert codes.max() < first_code(depth + 1, n)


def _planted(num_items, dim, seed):
    """Vectors on a binary tree: items of one subtree are near to each other, at every level."""
    rng = np.random.default_rng(seed)
    place = np.arange(num_items)
    vectors = rng.normal(size=(num_items, dim)) * 0.01
    for level in range(1, 5):
        centers = rng.normal(size=(2**level, dim)) * 8 / 2**level
        vectors += centers[place * 2**level // num_items]
    shuffled = rng.permutation(num_items)
    return vectors[shuffled].astype(np.float32), place[shuffled]


def _node_on(codes, level, n):
    depth = 0
    while first_code(depth + 1, n) <= codes.max():
        depth += 1
    for _ in range(depth - level):
        codes = (codes - 1) // n
    return codes


@pytest.mark.parametrize("threads", [1, 3])
def test_clustering_finds_planted_groups(threads):
    vectors, place = _planted(1 << 8, 16, seed=3)
    codes = cluster_codes(vectors, 2, threads=threads)
    for level in range(1, 5):
        nodes = _node_on(codes, level, 2)
        pairs = set(zip(nodes.tolist(), (place * 2**level // len(place)).tolist(), strict=True))
        assert len(pairs) == 2**level


@pytest.mark.parametrize(("num_items", "n"), [(1, 2), (2, 3), (7, 2), (100, 2), (100, 3), (65, 4)])
def test_clusters_are_balanced(num_items, n):
    vectors = np.random.default_rng(0).normal(size=(num_items, 3)).astype(np.float32)
    codes = cluster_codes(vectors, n)
    # The same codes as any other order of the items, so of the same sizes.
    assert sorted(codes.tolist()) == sorted(leaf_codes(num_items, n).tolist())


def test_clustering_depends_on_seed_and_not_on_threads():
    vectors = np.random.default_rng(0).normal(size=(40_000, 4)).astype(np.float32)
    once = cluster_codes(vectors, 2)
    assert np.array_equal(once, cluster_codes(vectors, 2, threads=4))
    assert not np.array_equal(once, cluster_codes(vectors, 2, seed=1))


def test_clustering_beats_chance():
    """Items that meet low in the tree are nearer to each other than any two."""
    vectors = np.random.default_rng(0).normal(size=(512, 4)).astype(np.float32)
    order = np.argsort(cluster_codes(vectors, 2))
    pairs = np.linalg.norm(vectors[order[::2]] - vectors[order[1::2]], axis=1).mean()
    random = np.linalg.norm(vectors[::2] - vectors[1::2], axis=1).mean()
    assert pairs < 0.45 * random


def test_clustering_of_equal_and_of_wrong_vectors():
    equal = cluster_codes(np.ones((9, 2), np.float32), 2)
    assert len(set(equal.tolist())) == 9
    with pytest.raises(DataError, match=r"item 1 .* not finite"):
        cluster_codes(np.array([[0, 1], [np.nan, 0]], np.float32), 2)


def _items(num_items, seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.arange(100, 100 + num_items))
    some = [None if rng.random() < 0.2 else f"c{rng.integers(3)}" for _ in range(num_items)]
    lists = [[int(v) for v in rng.integers(0, 2, 2)] for _ in range(num_items)]
    price = [None if rng.random() < 0.2 else float(v) for v in rng.random(num_items)]
    return Items(
        pa.array(ids),
        {"cate": pa.array(some), "brand": pa.array(rng.integers(5, 9, num_items)),
         "tags": pa.array(lists)},
        {"price": pa.array(price), "count": pa.array(rng.integers(0, 50, num_items), pa.int32())},
    )  # fmt: skip


@pytest.mark.parametrize(("num_items", "n"), [(1, 2), (5, 2), (30, 3), (33, 2)])
def test_nodes_above_the_items(num_items, n):
    """Ids, levels and attributes of each node against its leaves, one node at a time."""
    items = _items(num_items)
    codes = np.random.default_rng(1).permutation(leaf_codes(num_items, n))
    tree = build_tree(items, codes, n)
    leaves = dict(zip(codes.tolist(), range(num_items), strict=True))
    assert tree.num_leaves == num_items
    assert tree.num_levels == depth_of(num_items, n) + 1
    assert tree.codes.tolist() == sorted(tree.codes.tolist())
    for i, code in enumerate(tree.codes.tolist()):
        below = [row for leaf, row in leaves.items() if _is_above(code, leaf, n)]
        assert below
        node = {k: v[i].as_py() for k, v in {**tree.nodes.attrs, **tree.nodes.raw_attrs}.items()}
        level = next(level for level in range(99) if code < first_code(level + 1, n))
        assert tree.levels()[i] == level
        if code in leaves:
            assert tree.nodes.ids[i].as_py() == items.ids[leaves[code]].as_py()
        else:
            assert tree.nodes.ids[i].as_py() == 100 + num_items - 1 + code + 1
        for name, column in items.attrs.items():
            values = [column[row].as_py() for row in below if column[row].as_py() is not None]
            counts = Counter(map(repr, values))
            best = sorted(v for v in counts if counts[v] == max(counts.values()))
            assert repr(node[name]) == (best[0] if best else "None")
        prices = [v for row in below if (v := items.raw_attrs["price"][row].as_py()) is not None]
        if prices:
            assert node["price"] == pytest.approx(np.mean(prices))
        else:
            assert node["price"] is None
        assert node["count"] == round(np.mean([items.raw_attrs["count"][r].as_py() for r in below]))


def _is_above(node, code, n):
    while code > node:
        code = (code - 1) // n
    return code == node


def test_ids_of_text():
    items = Items(pa.array(["b", "a", "c"]), {}, {})
    tree = build_tree(items, leaf_codes(3, 2), 2)
    assert tree.nodes.ids.to_pylist() == ["nonleaf#0", "nonleaf#1", "nonleaf#2", "c", "a", "b"]


@pytest.mark.parametrize(
    ("ids", "raw", "words"),
    [
        ([], {}, "no item"),
        ([1, None], {}, "1 of 2 items have no id"),
        ([1, 2, 1, 2, 1], {}, "item 1 stands 3 times .* 1 others"),
        ([-1, 2], {}, "item id -1 is negative"),
        ([1, 2**63 - 1], {}, "leaves no ids"),
        ([1, 2], {"price": ["a", "b"]}, "raw attribute 'price' has type string"),
    ],
)
def test_items_that_no_tree_can_be_built_of(ids, raw, words):
    items = Items(pa.array(ids, pa.int64()), {}, {n: pa.array(v) for n, v in raw.items()})
    with pytest.raises(DataError, match=words):
        build_tree(items, leaf_codes(max(len(ids), 1), 2), 2)


GOLDEN_NODES = r"""id:int64	weight:float	feature:string
-1	1.0	-1,-1,x,3
5	1.0	0,5,x,3
6	1.0	1,6,x,3
7	1.0	1,7,y,2
2	1.0	2,2,x,4
1	1.0	2,1,x,2
3	1.0	2,3,y,
4	1.0	2,4,,2
"""
GOLDEN_EDGES = """src_id:int64	dst_id:int64	weight:float
2	6	1.0
1	6	1.0
3	7	1.0
4	7	1.0
"""
GOLDEN_PREDICT_EDGES = """src_id:int64	dst_id:int64	weight:float
-1	5	1.0
5	6	1.0
5	7	1.0
6	2	1.0
6	1	1.0
7	3	1.0
7	4	1.0
"""


def _small_tree():
    items = Items(
        pa.array([1, 2, 3, 4]),
        {"cate": pa.array(["x", "x", "y", None])},
        {"count": pa.array([2, 4, None, 2])},
    )
    return build_tree(items, np.array([4, 3, 5, 6]), 2)


def test_files_of_a_small_tree(tmp_path):
    tree = _small_tree()
    write_tree(tree, str(tmp_path / "t"), item_id_field="item", attr_delimiter=",")
    write_serving_tree(tree, str(tmp_path / "s"))
    assert (tmp_path / "t/node_table.txt").read_text() == GOLDEN_NODES
    assert (tmp_path / "t/edge_table.txt").read_text() == GOLDEN_EDGES
    assert (tmp_path / "t/predict_edge_table.txt").read_text() == GOLDEN_PREDICT_EDGES
    features = pq.read_table(tmp_path / "t/node_feature/part-0.parquet").to_pydict()
    assert features == {
        "item": [5, 6, 7, 2, 1, 3, 4],
        "cate": ["x", "x", "y", "x", "x", "y", None],
        "count": [3, 3, 2, 4, 2, None, 2],
    }
    lines = (tmp_path / "s/serving_tree").read_text().splitlines()
    assert lines == ["3 2", "0 5", "1 6", "2 7", "3 2", "4 1", "5 3", "6 4"]
    assert not list(tmp_path.rglob("*.partial"))


def test_edges_lead_to_every_ancestor_but_the_root(tmp_path):
    tree = build_tree(_items(33), leaf_codes(33, 2), 2)
    write_tree(tree, str(tmp_path), item_id_field="item", attr_delimiter="\x02")
    rows = list(csv.reader((tmp_path / "edge_table.txt").open(), delimiter="\t"))[1:]
    code_of = dict(zip(tree.nodes.ids.to_pylist(), tree.codes.tolist(), strict=True))
    found = [(code_of[int(leaf)], code_of[int(node)]) for leaf, node, _ in rows]
    expected = {
        (leaf, node)
        for leaf in tree.codes.tolist()[-33:]
        for node in tree.codes.tolist()
        if node not in (0, leaf) and _is_above(node, leaf, 2)
    }
    assert len(found) == len(expected) == 33 * (tree.num_levels - 2)
    assert set(found) == expected
    # Several values of an attribute are joined by \x1d.
    node = (tmp_path / "node_table.txt").read_text().split("\n")[2].split("\t")[2].split("\x02")
    assert len(node) == 7
    assert len(node[4].split("\x1d")) == 2


@pytest.mark.parametrize(
    ("value", "delimiter", "words"),
    [
        ("a,b", ",", "'a,b', which contains the attr_delimiter"),
        ("a\tb", ",", "contains a tab"),
        ("a\nb", ",", "contains a line end"),
    ],
)
def test_values_that_do_not_fit_into_the_table(tmp_path, value, delimiter, words):
    items = Items(pa.array([1, 2]), {"name": pa.array([value, value])}, {})
    tree = build_tree(items, leaf_codes(2, 2), 2)
    with pytest.raises(DataError, match=words):
        write_tree(tree, str(tmp_path), item_id_field="item", attr_delimiter=delimiter)
    assert not list(tmp_path.iterdir())
    for wrong in ("", "\t"):
        with pytest.raises(ConfigError, match="cannot stand between"):
            write_tree(tree, str(tmp_path), item_id_field="item", attr_delimiter=wrong)
