"""``tzrec.tools.tdm.retrieval`` in two processes."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rank_runs import torchrun
from tdm_chain import write_config, write_rows

from tzrec.main import export, train_and_evaluate
from tzrec.tools.tdm import init_tree, retrieval


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A tree, a model that has learnt a little, and 150 rows to search for."""
    root = tmp_path_factory.mktemp("tdm")
    write_rows(root, 640, 150)
    words = ["--item_input_path", root / "items.parquet", "--item_id_field", "item_id",
             "--raw_attr_fields", "price", "--node_edge_output_file", root / "tree",
             "--tree_output_dir", root / "tree"]  # fmt: skip
    assert init_tree.main([str(word) for word in words]) == 0
    train_and_evaluate(write_config(root, "tree"), report=False)
    export(str(root / "run_tree/pipeline.config"), str(root / "export"))
    return root


def words_of(root, rows, out):
    words = {
        "scripted_model_path": root / "export/model",
        "predict_input_path": rows,
        "predict_output_path": out,
        "reserved_columns": "row,item_id",
        "recall_num": 8,
        "batch_size": 16,
    }
    return [f"--{name}={value}" for name, value in words.items()]


@pytest.mark.slow
def test_two_processes_find_what_one_finds(chain, tmp_path):
    num_rows = 149
    rows = pq.read_table(chain / "eval.parquet").slice(0, num_rows)
    rows = rows.append_column("row", pa.array(np.arange(num_rows)))
    pq.write_table(rows, tmp_path / "rows.parquet")
    assert retrieval.main(words_of(chain, tmp_path / "rows.parquet", tmp_path / "one")) == 0
    one = pq.read_table(tmp_path / "one" / "part-0.parquet")
    assert one.num_rows == num_rows

    log = torchrun("-m", "tzrec.tools.tdm.retrieval",
                   *words_of(chain, tmp_path / "rows.parquet", tmp_path / "two"))  # fmt: skip
    parts = [pq.read_table(path) for path in sorted((tmp_path / "two").iterdir())]
    assert len(parts) == 2
    assert sum(part.num_rows for part in parts) == num_rows
    both = pa.concat_tables(parts).sort_by("row")
    assert both["row"].equals(one["row"])
    assert both["item_id"].equals(one["item_id"])
    # Batches are of other rows: the last digits of a score, and so the order, may differ.
    found, right = both["recall_ids"].to_pylist(), one["recall_ids"].to_pylist()
    assert np.mean([sorted(a) == sorted(b) for a, b in zip(found, right, strict=True)]) > 0.98
    own = both["item_id"].to_pylist()
    hits = np.mean([item in ids for item, ids in zip(own, found, strict=True)])
    told = re.findall(r"Recall: (\S+) \((\d+) rows\)", log)
    assert told == [(f"{hits:.6f}", str(num_rows))]
