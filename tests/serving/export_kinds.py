"""Small exports that are not trained, one of each kind of model beside the ranking one."""

from __future__ import annotations

from pathlib import Path

import match_jobs
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from serving_jobs import FEATURES, export_model, make_rows

from tzrec.config import prepare
from tzrec.deploy import parts
from tzrec.deploy.export import export_parts
from tzrec.options import from_environment
from tzrec.retrieval import IndexOptions
from tzrec.retrieval.build import index_export
from tzrec.retrieval.tree_build import Items, build_tree
from tzrec.retrieval.tree_codes import leaf_codes
from tzrec.retrieval.tree_files import write_tree
from tzrec.training.build import build_features, build_model

MULTI_TASK = """
model_config {
  feature_groups { group_name: "all" group_type: DEEP feature_names:
    ["user_id", "age", "tags", "taste", "item_id", "brand", "price", "hour", "click__item_id"] }
  mmoe { expert_mlp { hidden_units: [8] } num_expert: 2
    task_towers { tower_name: "click" label_name: "label" mlp { hidden_units: [4] }
        losses { binary_cross_entropy {} } }
    task_towers { tower_name: "pay" label_name: "label" mlp { hidden_units: [4] }
        losses { binary_cross_entropy {} } } }
}
"""

TDM = """
train_input_path: "{root}/train.parquet" eval_input_path: "" model_dir: "{root}/run"
train_config {{ num_epochs: 1
    sparse_optimizer {{ adagrad_optimizer {{ lr: 0.1 }} constant_learning_rate {{}} }}
    dense_optimizer {{ adam_optimizer {{ lr: 0.01 }} constant_learning_rate {{}} }} }}
data_config {{ dataset_type: ParquetDataset batch_size: 32 fg_mode: FG_NORMAL label_fields: "clk"
  input_fields {{ input_name: "item" input_type: INT64 }}
  input_fields {{ input_name: "cate" input_type: STRING }}
  input_fields {{ input_name: "age" input_type: STRING }}
  input_fields {{ input_name: "click__item" input_type: STRING }}
  input_fields {{ input_name: "clk" input_type: INT64 }}
  tdm_sampler {{ item_input_path: "{root}/tree/node_table.txt"
    edge_input_path: "{root}/tree/edge_table.txt"
    predict_edge_input_path: "{root}/tree/predict_edge_table.txt" item_id_field: "item"
    attr_fields: ["item", "cate"] attr_delimiter: "," layer_num_sample: [0, 1, 1, 1, 1, 1, 1] }} }}
feature_configs {{ id_feature {{ feature_name: "item" expression: "item:item" num_buckets: 99
    embedding_dim: 8 embedding_name: "item" }} }}
feature_configs {{ id_feature {{ feature_name: "cate" expression: "item:cate" hash_bucket_size: 9
    embedding_dim: 4 }} }}
feature_configs {{ id_feature {{ feature_name: "age" expression: "user:age" num_buckets: 9
    embedding_dim: 4 }} }}
feature_configs {{ sequence_feature {{ sequence_name: "click" sequence_length: 8 sequence_delim: ";"
    features {{ id_feature {{ feature_name: "item" expression: "item:item" num_buckets: 99
        embedding_dim: 8 embedding_name: "item" }} }} }} }}
model_config {{
  feature_groups {{ group_name: "seq" feature_names: ["item", "click__item"] group_type: SEQUENCE }}
  feature_groups {{ group_name: "rest" feature_names: ["cate", "age"] }}
  tdm {{ multiwindow_din {{ windows_len: [2, 6] attn_mlp {{ hidden_units: 8 }} }}
    final {{ hidden_units: 8 }} }}
  losses {{ binary_cross_entropy {{}} }} }}
"""


def export_multi_task(root: Path) -> Path:
    """Exports two tasks over the columns of `make_rows`."""
    pq.write_table(make_rows(64), root / "train.parquet")
    return export_model(root, FEATURES, MULTI_TASK, "FG_DAG")


def export_in_parts(config_path: Path, root: Path) -> Path:
    """Exports a match model or a TDM into ``root/export``."""
    config = prepare(config_path).config
    features = build_features(config.data_config, config.feature_configs)
    torch.manual_seed(1)
    model = build_model(config, features, with_labels=False).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.set_is_inference(True)
    made = parts.sample_parts(model, config, features, from_environment({}))
    return Path(export_parts(made, root / "export"))


def make_match(root: Path) -> Path:
    """Makes ``export/`` of towers, and ``retriever/`` beside it; returns the latter."""
    export = export_in_parts(match_jobs.write_job(root), root)
    index_export(str(export), str(root / "items.parquet"), str(root / "retriever"), IndexOptions(),
                 id_field="item_id")  # fmt: skip
    return root / "retriever"


def make_tree(root: Path) -> Path:
    """Makes ``export/`` of a TDM, and ``tree/`` beside it; returns the former."""
    items = Items(pa.array(range(40)), {"cate": pa.array([f"c{i % 4}" for i in range(40)])}, {})
    nodes = build_tree(items, leaf_codes(40, 2), 2)
    write_tree(nodes, str(root / "tree"), item_id_field="item", attr_delimiter=",")
    rows = {
        "item": [i % 40 for i in range(64)],
        "cate": [f"c{i % 4}" for i in range(64)],
        "age": [str(i % 9) for i in range(64)],
        "click__item": [f"{i % 40};{i % 7}" for i in range(64)],
        "clk": [i % 2 for i in range(64)],
    }
    pq.write_table(pa.table(rows), root / "train.parquet")
    (root / "job.config").write_text(TDM.format(root=root))
    return export_in_parts(root / "job.config", root)
