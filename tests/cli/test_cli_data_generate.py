"""``tzrec data generate``: files, what it prints, what it refuses."""

import json
import shlex
from pathlib import Path

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from tzrec.cli import main

CONFIG = """
train_input_path: "nowhere.parquet"
eval_input_path: "nowhere.parquet"
model_dir: "run"
train_config {
  sparse_optimizer { adagrad_optimizer { lr: 0.1 } constant_learning_rate {} }
  dense_optimizer { adam_optimizer { lr: 0.01 } constant_learning_rate {} }
  num_epochs: 3
  use_tensorboard: false
}
eval_config {}
data_config { batch_size: 64 dataset_type: ParquetDataset label_fields: "clk" num_workers: 1 }
feature_configs { id_feature {
  feature_name: "user" expression: "user:user" embedding_dim: 4 num_buckets: 20 } }
feature_configs { id_feature {
  feature_name: "tags" expression: "item:tags" embedding_dim: 4 num_buckets: 9 pooling: "mean" } }
feature_configs { raw_feature { feature_name: "price" expression: "item:price" } }
feature_configs { sequence_id_feature {
  feature_name: "recent" expression: "user:recent" embedding_dim: 4 num_buckets: 9
  sequence_length: 5 } }
model_config {
  feature_groups { group_name: "deep" feature_names: ["user", "tags", "price"] group_type: DEEP }
  feature_groups { group_name: "past" feature_names: "recent" group_type: DEEP }
  multi_tower {
    towers { input: "deep" mlp { hidden_units: [8] } }
    towers { input: "past" mlp { hidden_units: [4] } }
    final { hidden_units: [8] }
  }
  losses { binary_cross_entropy {} }
  metrics { auc {} }
}
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("shop.config").write_text(CONFIG)


def generate(*flags):
    return main(["data", "generate", "--for", "shop.config", *flags])


def train_command(out):
    return shlex.split(out.split("next: tzrec ")[1])


def test_trains_on_what_it_wrote(capsys):
    assert generate("--rows", "2000", "--files", "3") == 0
    out = capsys.readouterr().out
    root = Path("experiments/generated/shop")
    files = sorted(path.name for path in (root / "train").iterdir())
    assert files == ["part-0.parquet", "part-1.parquet", "part-2.parquet"]
    train, evaluation = pq.read_table(root / "train"), pq.read_table(root / "eval")
    assert (train.num_rows, evaluation.num_rows) == (2000, 200)
    assert "2,000 rows, 3 files" in out
    assert "200 rows, 1 file," in out
    bound = roc_auc_score(evaluation["clk"], evaluation["probability"])
    assert f"label clk: {np.mean(evaluation['clk']):.1%} ones" in out
    assert f"no model can beat AUC {bound:.4f}" in out
    assert main(train_command(out)) == 0
    result = json.loads(Path("run/train_eval_result_v2.txt").read_text().splitlines()[-1])
    assert 0.6 < result["auc"] < 1


@pytest.mark.parametrize(
    "data",
    [
        "dataset_type: CsvDataset with_header: true",
        'dataset_type: CsvDataset delimiter: ";" '
        'input_fields_str: "clk:INT;extra:FLOAT;user:INT;tags:STRING;price:DOUBLE;recent:STRING"',
    ],
)
def test_csv_as_the_config_reads_it(capsys, data):
    text = CONFIG.replace("dataset_type: ParquetDataset", data)
    Path("shop.config").write_text(text.replace("sequence_length: 5", 'sequence_delim: "|"'))
    assert generate("--rows", "500", "--out", "rows") == 0
    out = capsys.readouterr().out
    first = Path("rows/train/part-0.csv").read_text().splitlines()[0]
    assert first.startswith('"user"') is ("with_header" in data)
    assert "--set" not in out
    assert main(train_command(out)) == 0


def test_csv_for_a_config_of_parquet_files(capsys):
    assert generate("--rows", "500", "--out", "rows", "--format", "csv") == 0
    words = train_command(capsys.readouterr().out)
    assert words[-1] == "data_config.with_header=true"
    assert pa_csv.read_csv("rows/eval/part-0.csv").num_rows == 50
    assert main(words) == 0


def test_the_seed_and_the_files_make_other_rows():
    for seed in ("1", "2"):
        assert generate("--rows", "90", "--out", seed, "--seed", seed, "--files", "2") == 0
    one, other = (pq.read_table(f"{seed}/train/part-0.parquet") for seed in "12")
    assert not one.equals(other)
    assert not one.equals(pq.read_table("1/train/part-1.parquet"))
    assert not one.slice(0, 9).equals(pq.read_table("1/eval"))
    assert generate("--rows", "90", "--out", "again", "--seed", "1", "--files", "2") == 0
    assert one.equals(pq.read_table("again/train/part-0.parquet"))


def test_edits_count_and_are_passed_on(capsys):
    edit = "feature_configs[0].id_feature.num_buckets=3"
    assert generate("--rows", "100", "--eval-rows", "7", "--set", edit) == 0
    assert train_command(capsys.readouterr().out)[-2:] == ["--set", edit]
    assert pq.read_table("experiments/generated/shop/train")["user"].to_numpy().max() == 2
    assert pq.read_table("experiments/generated/shop/eval").num_rows == 7


def test_earlier_rows_are_replaced_on_demand_only(capsys):
    assert generate("--rows", "60", "--out", "rows", "--files", "2") == 0
    assert generate("--rows", "30", "--out", "rows") == 2
    assert "rows/train holds 2 file(s) already" in capsys.readouterr().err
    assert generate("--rows", "30", "--out", "rows", "--overwrite") == 0
    assert pq.read_table("rows/train").num_rows == 30


def test_data_of_others_is_never_touched(capsys):
    Path("mine/train").mkdir(parents=True)
    Path("mine/train/clicks.parquet").write_text("mine")
    assert generate("--rows", "30", "--out", "mine", "--overwrite") == 2
    assert "mine/train holds 'clicks.parquet', which was not generated" in capsys.readouterr().err
    assert Path("mine/train/clicks.parquet").read_text() == "mine"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rows", "0"], "must be at least 1"),
        (["--format", "json"], "invalid choice"),
        (["--for", "none.config"], "none.config"),
        (["--set", "model_config.multi_tower.final.hidden_units=[]"], "hidden_units"),
        (["--seeds", "3"], "did you mean '--seed'?"),
    ],
)
def test_what_is_wrong_is_said(capsys, flags, message):
    assert generate(*flags) == 2
    assert message in capsys.readouterr().err
