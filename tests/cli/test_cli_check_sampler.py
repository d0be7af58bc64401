"""``tzrec check --data`` looks at the tables of samplers."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tzrec.cli import main

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "config"))
from config_samples import write
from test_config_samplers import DSSM, ID

ITEMS = "id:int64\tweight:float\tattrs:string\n1\t1.0\t1:2:0.5\n"
NODES = "id:int64\tweight:float\n1\t1.0\n"
EDGES = "userid:int64\titemid:int64\tweight:float\n1\t1\t1.0\n"
HARD = [
    ("negative_sampler {", "hard_negative_sampler {"),
    ("input_path: \"items.txt\"", 'item_input_path: "items.txt" user_input_path: "users.txt"'),
    (ID, f'{ID} hard_neg_edge_input_path: "hard.txt" user_id_field: "user_id" num_hard_sample: 2'),
]  # fmt: skip


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    columns = ["user_id", "age", "item_id", "brand", "clk"]
    table = {name: [1, 2] for name in columns} | {"price": [0.1, 0.2], "cand__video": ["1", "2|3"]}
    pq.write_table(pa.table(table), "train.parquet")
    for name, text in (("items", ITEMS), ("users", NODES), ("hard", EDGES)):
        (tmp_path / f"{name}.txt").write_text(text)

    def check(*changes):
        write(tmp_path / "c.config", DSSM, *changes)
        code = main(["check", "c.config", "--data"])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return check


def test_good_tables(check):
    assert check()[0] == check(*HARD)[0] == 0


def test_missing_tables_are_told_together(check):
    for name in ("items", "users"):
        Path(f"{name}.txt").unlink()
    code, text = check(*HARD)
    assert code == 3
    field = "data_config.hard_negative_sampler"
    assert f"c.config:13: {field}.item_input_path: no files exist in 'items.txt'" in text
    assert f"c.config:13: {field}.user_input_path: no files exist in 'users.txt'" in text


def test_headers(check):
    Path("items.txt").write_text("id:int64\tweight:text\n1\t1\n")
    Path("hard.txt").write_text("userid:int64\n1\n")
    code, text = check(*HARD)
    assert code == 3
    assert "item_input_path: items.txt: 'weight:text' in the header" in text
    assert "hard_neg_edge_input_path: hard.txt has no column for item" in text


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_named_columns(check, kind):
    Path("items.txt").unlink()
    table = pa.table({"item_id": [1], "brand": [2]})
    if kind == "csv":
        Path("items.csv").write_text("item_id,brand\n1,2\n")
    else:
        pq.write_table(table, "items.parquet")
    code, text = check(("items.txt", f"items.{kind}"))
    assert code == 3
    assert f"negative_sampler.input_path: column 'price' is not in items.{kind}" in text


def test_the_ids_are_columns_of_the_data(check):
    """Whether a feature reads them or not."""
    code, text = check((ID, 'item_id_field: "number"'))
    assert code == 3
    assert (
        "c.config:16: data_config.negative_sampler.item_id_field: id column 'number' is not" in text
    )
