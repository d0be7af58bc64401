"""``tzrec data generate`` for configs of matching: rows, tables and the command fit together."""

import json
import shlex
from pathlib import Path

import pytest

from tzrec.cli import main
from tzrec.cli.data import EXAMPLES

CONFIG = """
train_input_path: "nowhere.parquet"
eval_input_path: "nowhere.parquet"
model_dir: "run"
train_config {{
  sparse_optimizer {{ adagrad_optimizer {{ lr: 0.3 }} constant_learning_rate {{}} }}
  dense_optimizer {{ adam_optimizer {{ lr: 0.01 }} constant_learning_rate {{}} }}
  num_epochs: 3
  use_tensorboard: false
}}
eval_config {{}}
data_config {{
  batch_size: 64 dataset_type: ParquetDataset label_fields: "took" num_workers: 1
  {sampler}
}}
feature_configs {{ id_feature {{
  feature_name: "user" expression: "user:user" embedding_dim: 4 num_buckets: 100 }} }}
feature_configs {{ id_feature {{
  feature_name: "item" expression: "item:item" embedding_dim: 4 num_buckets: 200 }} }}
feature_configs {{ id_feature {{
  feature_name: "tags" expression: "item:tags" embedding_dim: 4 num_buckets: 30
  pooling: "mean" }} }}
feature_configs {{ raw_feature {{ feature_name: "price" expression: "item:price" }} }}
model_config {{
  feature_groups {{ group_name: "user" feature_names: "user" group_type: DEEP }}
  feature_groups {{
    group_name: "item" feature_names: ["item", "tags", "price"] group_type: DEEP
  }}
  dssm {{
    user_tower {{ input: "user" mlp {{ hidden_units: [8] }} }}
    item_tower {{ input: "item" mlp {{ hidden_units: [8] }} }}
    output_dim: 8
    {model}
  }}
  losses {{ softmax_cross_entropy {{}} }}
  metrics {{ recall_at_k {{ top_k: 5 }} }}
}}
"""
SAMPLER = """
  hard_negative_sampler_v2 {{
    user_input_path: "u{suffix}" item_input_path: "i{suffix}"
    pos_edge_input_path: "p{suffix}" hard_neg_edge_input_path: "h{suffix}"
    num_sample: 40 num_hard_sample: 2 attr_fields: ["item", "tags", "price"]
    item_id_field: "item" user_id_field: "user" {more}
  }}
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def generate(*flags, sampler="", model=""):
    Path("match.config").write_text(CONFIG.format(sampler=sampler, model=model))
    return main(["data", "generate", "--for", "match.config", "--rows", "2000", *flags])


def train(out, capsys):
    """Checks and trains by the printed command; returns the recall."""
    words = shlex.split(out.split("next: tzrec ")[1])
    paths = [f"{word[2:].replace('-', '_')}={words[i + 1]}" for i, word in enumerate(words)
             if word.endswith("-input-path")]  # fmt: skip
    sets = [word for path in paths for word in ("--set", path)]
    rest = [word for i, word in enumerate(words[2:], 2) if "--set" in (word, words[i - 1])]
    assert main(["check", "match.config", "--data", *sets, *rest]) == 0
    assert "warning" not in capsys.readouterr().out
    assert main(words) == 0
    assert "nothing to tell apart" not in capsys.readouterr().out
    result = json.loads(Path("run/train_eval_result_v2.txt").read_text().splitlines()[-1])
    return result["recall@5"]


@pytest.mark.parametrize(
    ("suffix", "more"), [("", 'attr_delimiter: "\\x02"'), (".parquet", 'weight_field: "w"')]
)
def test_a_sampler_finds_its_tables(capsys, suffix, more):
    sampler = SAMPLER.format(suffix=suffix, more=more)
    field, ending = "hard_negative_sampler_v2", suffix or ".txt"
    tables = {
        "user_input_path": "users",
        "item_input_path": "items",
        "pos_edge_input_path": "positives",
        "hard_neg_edge_input_path": "unwanted",
    }
    if suffix:
        # The other kind, which knows weights.
        sampler = sampler.replace("_v2", "").replace(f'pos_edge_input_path: "p{suffix}"', "")
        field = "hard_negative_sampler"
        del tables["pos_edge_input_path"]
    assert generate(sampler=sampler) == 0
    out = capsys.readouterr().out
    folder = "experiments/generated/match/tables"
    for path, name in tables.items():
        assert f"--set data_config.{field}.{path}={folder}/{name}{ending}" in out
    assert f"{folder}/items{ending}: 200 rows\n" in out
    assert "recall@5: about 0." in out
    assert "(40 negatives)" in out
    assert train(out, capsys) > 1.5 * 5 / 41


def test_rows_of_a_batch_need_no_tables(capsys):
    assert generate("--users", "50", "--items", "150", model="in_batch_negative: true") == 0
    out = capsys.readouterr().out
    assert "tables" not in out
    assert train(out, capsys) > 1.5 * 5 / 64


def test_tables_are_replaced_on_demand_only(capsys):
    sampler = SAMPLER.format(suffix="", more='attr_delimiter: "\\x02"')
    assert generate("--out", "rows", sampler=sampler) == 0
    for name in ("train", "eval"):
        for file in Path("rows", name).iterdir():
            file.unlink()
    assert generate("--out", "rows", sampler=sampler) == 2
    assert "rows/tables holds 4 file(s) already" in capsys.readouterr().err
    assert generate("--out", "rows", "--overwrite", "--items", "99", sampler=sampler) == 0
    assert Path("rows/tables/items.txt").read_text().count("\n") == 100
    Path("rows/tables/mine.txt").write_text("mine")
    assert generate("--out", "rows", "--overwrite", sampler=sampler) == 2
    assert "holds 'mine.txt', which was not generated" in capsys.readouterr().err


def test_the_command_names_an_example():
    assert "examples/dssm_taobao.config" in EXAMPLES
