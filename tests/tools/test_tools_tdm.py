"""``python -m tzrec.tools.tdm.*``: their flags, and the whole way of a tree."""

import logging
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tdm_chain import GROUP_OF, NUM_ITEMS, write_config, write_rows

from tzrec.config import prepare
from tzrec.constant import Mode
from tzrec.deploy.predictor import Predictor
from tzrec.errors import DataError
from tzrec.main import export, predict, train_and_evaluate
from tzrec.options import from_environment
from tzrec.retrieval.tree_retriever import TreeRetriever
from tzrec.tools.tdm import cluster_tree, init_tree, retrieval
from tzrec.training.build import build_features, build_loader


def flags(root, source, tree, *more):
    words = {
        "item_input_path": root / source,
        "item_id_field": "item_id",
        "raw_attr_fields": "price",
        "node_edge_output_file": root / tree,
        "tree_output_dir": root / tree,
    }
    return [*(f"--{name}={value}" for name, value in words.items()), *more]


@pytest.fixture
def recalls():
    """Recalls that are logged."""
    found = []

    class Handler(logging.Handler):
        def emit(self, record):
            found.extend(float(x) for x in re.findall(r"Recall: (\S+)", record.getMessage()))

    logger, handler = logging.getLogger("tzrec"), Handler()
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


def learn(root, tree):
    """Trains on a tree and exports; returns the directory of the export."""
    train_and_evaluate(write_config(root, tree), report=False)
    export(str(root / f"run_{tree}/pipeline.config"), str(root / f"export_{tree}"))
    return root / f"export_{tree}"


def retrieve(root, model, tree, *more):
    words = {
        "scripted_model_path": model / "model",
        "predict_input_path": root / "eval.parquet",
        "predict_output_path": root / f"recall_{tree}",
        "reserved_columns": "user_id,item_id",
        "recall_num": 8,
    }
    assert retrieval.main([*(f"--{n}={v}" for n, v in words.items()), *more]) == 0
    return pq.read_table(root / f"recall_{tree}/part-0.parquet")


def test_from_a_first_tree_to_one_that_finds_the_items(tmp_path, recalls):
    """Build, train, embed, cluster, train again, search: the second tree knows the groups."""
    write_rows(tmp_path)
    assert init_tree.main(flags(tmp_path, "items.parquet", "first")) == 0
    model = learn(tmp_path, "first")
    retrieve(tmp_path, model, "first")
    predict(
        str(tmp_path / "items.parquet"), str(tmp_path / "vectors"), str(model / "embedding"),
        reserved_columns="item_id,price", output_columns="item_emb",
    )  # fmt: skip
    assert Predictor.load(model / "embedding").input_columns == ["item_id"]
    assert cluster_tree.main(flags(tmp_path, "vectors", "second", "--reader_type=ParquetReader",
                                   "--parallel=2")) == 0  # fmt: skip
    model = learn(tmp_path, "second")
    table = retrieve(tmp_path, model, "second", "--num_worker_per_level=2", "--batch_size=64")
    first, second = recalls
    assert second > 0.95 > first

    # The recall that was told is that of the rows that were written.
    rows = pq.read_table(tmp_path / "eval.parquet")
    assert table.column_names == ["recall_ids", "user_id", "item_id"]
    assert table["user_id"].equals(rows["user_id"])
    found = np.array(table["recall_ids"].to_pylist())
    assert (found == np.array(table["item_id"])[:, None]).any(1).mean() == pytest.approx(second)
    assert (GROUP_OF[found] == GROUP_OF[np.array(table["item_id"])][:, None]).mean() > 0.9
    assert_python_gives_the_same(tmp_path, model, rows, found)
    assert_directories_give_the_same(tmp_path, model, rows, found)


def assert_directories_give_the_same(root, model, rows, found):
    """A directory's name does not tell the format: the config does, or --dataset_type."""
    (root / "parquet_rows").mkdir()
    pq.write_table(rows.slice(0, 20), root / "parquet_rows/part-0.parquet")
    (root / "csv_rows").mkdir()
    lines = [
        f"{row['user_id']},{';'.join(map(str, row['click__item_id']))},{row['item_id']}"
        for row in rows.slice(0, 20).to_pylist()
    ]
    text = "\n".join(["user_id,click__item_id,item_id", *lines])
    csv = ["--dataset_type=CsvDataset", '--edit_config_json={"data_config.with_header": true}']
    (root / "csv_rows/part-0.csv").write_text(f"{text}\n")
    for name, more in (("parquet_rows", []), ("csv_rows", csv)):
        path = f"--predict_input_path={root / name}"
        table = retrieve(root, model, "second", "--batch_size=64", path, *more)
        assert table["recall_ids"].to_pylist() == found[:20].tolist()


def assert_python_gives_the_same(root, model, rows, found):
    retriever = TreeRetriever.load(model / "model", tree_dir=str(root / "second"))
    assert sorted(retriever.input_columns) == ["click__item_id", "user_id"]
    some = retriever.retrieve(rows.slice(5, 3).to_pydict(), k=8)
    assert some.ids == found[5:8].tolist()
    # The scores are those of the model for the pairs.
    pairs = rows.take(pa.array(np.repeat([5, 6, 7], 8))).to_pydict()
    pairs |= {"item_id": found[5:8].ravel(), "price": found[5:8].ravel().astype(np.float32) / 100}
    scores = retriever.predictor.predict(pairs)["probs1"]
    np.testing.assert_allclose(np.array(some.scores).ravel(), scores, rtol=1e-5)
    # All leaves are compared where that many are asked for.
    everything = retriever.retrieve(rows.slice(0, 1).to_pydict(), k=NUM_ITEMS)
    assert sorted(everything.ids[0]) == list(range(NUM_ITEMS))
    assert everything.scores[0] == sorted(everything.scores[0], reverse=True)
    assert retriever.retrieve(rows.slice(0, 0).to_pydict(), k=3).ids == []


def batches(root, **edits):
    """The training batches of a config on the first tree, as tensors."""
    flat = [f"{name.replace('__', '.')}={value}" for name, value in edits.items()]
    config = prepare(write_config(root, "first"), edits=flat).config
    features = build_features(config.data_config, config.feature_configs)
    with build_loader(
        config, features, config.train_input_path, mode=Mode.TRAIN, options=from_environment()
    ) as loader:
        return [batch.to_dict() for batch in loader]


@pytest.fixture
def first(tmp_path):
    """A directory with 200 rows and a first tree."""
    write_rows(tmp_path, 200, 10)
    assert init_tree.main(flags(tmp_path, "items.parquet", "first")) == 0
    return tmp_path


@pytest.mark.slow
def test_batches_are_the_same_by_worker_processes(first):
    here = batches(first)
    there = batches(first, data_config__loader="PROCESS", data_config__num_workers=2)
    for one, other in zip(here, there, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_rows_with_their_nodes_and_without_those_that_have_no_leaf(first):
    # 64 rows, each with 5 nodes above its item and 23 others.
    whole = batches(first)
    assert [len(batch["clk"]) for batch in whole] == [64 * 29] * 3 + [8 * 29]
    assert whole[0]["clk"].tolist() == [1] * (64 * 6) + [0] * (64 * 23)
    rows = pq.read_table(first / "train.parquet")
    ids = np.array(rows["item_id"]).copy()
    ids[[7, 70]] = 150, 999
    place = rows.column_names.index("item_id")
    pq.write_table(rows.set_column(place, "item_id", pa.array(ids)), first / "train.parquet")
    with pytest.raises(DataError, match=r"row 7 \(counted from 0\): item 150 is no leaf"):
        batches(first)
    kept = batches(first, data_config__max_bad_rows=2)
    assert sum(len(batch["clk"]) for batch in kept) == 198 * 29


@pytest.fixture
def items(tmp_path):
    table = {
        "item_id": [3, 1, 2, 7],
        "cate": ["b", "a", "b", "a"],
        "price": [1, 2, 3, 4],
        "item_emb": [[0.0, 1.0], [5.0, 5.0], [0.1, 1.1], [5.1, 5.0]],
        "text_emb": ["[0, 1]", "[5, 5]", "[0.1, 1.1]", "[5.1, 5]"],
    }
    pq.write_table(pa.table(table), tmp_path / "items.parquet")
    return tmp_path


def leaves(root):
    lines = (root / "t/serving_tree").read_text().splitlines()[1:]
    return [int(item) for code, item in map(str.split, lines) if int(code) >= 3]


def test_first_tree_is_in_the_order_of_category_and_id(items):
    assert init_tree.main(flags(items, "items.parquet", "t", "--cate_id_field=cate")) == 0
    # The first part of a node is its last child.
    assert leaves(items) == [3, 2, 7, 1]
    assert init_tree.main(flags(items, "items.parquet", "t")) == 0
    assert leaves(items) == [7, 3, 2, 1]


@pytest.mark.parametrize("field", ["item_emb", "text_emb"])
def test_clustered_tree_is_by_vectors(items, field):
    more = [f"--embedding_field={field}", "--attr_fields=cate"]
    assert cluster_tree.main(flags(items, "items.parquet", "t", *more)) == 0
    found = leaves(items)
    assert {frozenset(found[:2]), frozenset(found[2:])} == {frozenset([3, 2]), frozenset([1, 7])}
    nodes = (items / "t/node_table.txt").read_text()
    assert set(re.findall(r"\t1,\d+,(.*)", nodes)) == {"a,3", "b,2"}


def test_ids_as_text(items):
    assert init_tree.main(flags(items, "items.parquet", "t", "--string_ids")) == 0
    assert (items / "t/node_table.txt").read_text().startswith("id:string\t")


@pytest.mark.parametrize(
    ("tool", "more", "code", "words"),
    [
        (init_tree, ["--n_cluster=1"], 2, "a node has at least 2 children"),
        (init_tree, ["--attr_fields=cate,item_id"], 2, "'item_id' is no attribute"),
        (init_tree, ["--attr_fields=price"], 2, "attribute 'price' is named twice"),
        (init_tree, ["--node_edge_output_file=odps://p/t"], 2, "tables of MaxCompute"),
        (init_tree, ["--cate_id_field=cat"], 3, "'cat' is not in"),
        (init_tree, ["--cate_id_field=item_emb"], 3, "not one value an item"),
        (init_tree, ["--item_id_field=price2"], 3, "'price2' is not in"),
        (init_tree, ["--raw_attr_fields=cate"], 3, "raw attribute 'cate' has type string"),
        (init_tree, ["--item_id_field=item_emb"], 3, "has type list"),
        (cluster_tree, ["--embedding_field=price"], 3, "'price' has type int64, not a list"),
        (cluster_tree, ["--embedding_field=cate"], 3, "holds what is no number"),
        (cluster_tree, ["--parallel=0"], 2, "--parallel 0 is not at least 1"),
    ],
)
def test_flags_that_are_wrong(items, capsys, tool, more, code, words):
    assert tool.main(flags(items, "items.parquet", "t", *more)) == code
    assert words in capsys.readouterr().err
    assert not (items / "t").exists()


def test_nothing_to_write_and_uneven_vectors(items, capsys):
    given = flags(items, "items.parquet", "t")[:3]
    assert init_tree.main(given) == 2
    assert "nothing would be written" in capsys.readouterr().err
    pq.write_table(pa.table({"item_id": [1, 2], "item_emb": [[1.0], [1.0, 2.0]]}),
                   items / "uneven.parquet")  # fmt: skip
    assert cluster_tree.main(flags(items, "uneven.parquet", "t", "--raw_attr_fields=")) == 3
    assert "row 1 (counted from 0) of column 'item_emb' has 2" in capsys.readouterr().err


def test_search_with_a_model_that_has_no_tree(tmp_path, capsys):
    given = ["--scripted_model_path", str(tmp_path), "--predict_input_path=x",
             "--predict_output_path=y"]  # fmt: skip
    assert retrieval.main([*given, "--recall_num=0"]) == 2
    assert "--recall_num 0 is not at least 1" in capsys.readouterr().err
    assert retrieval.main(given) == 1
    assert "manifest.json" in capsys.readouterr().err
