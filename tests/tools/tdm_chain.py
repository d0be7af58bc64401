"""Planted data for trees: users who like one of some groups of items, and a config that learns."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

NUM_ITEMS, NUM_GROUPS, HISTORY = 64, 8, 6
# Items of a group lie far apart in the order of ids: a first tree by id does not know them.
GROUP_OF = np.arange(NUM_ITEMS) % NUM_GROUPS

CONFIG = """
train_input_path: "{root}/train.parquet"
eval_input_path: "{root}/eval.parquet"
model_dir: "{root}/run"
train_config {{
  sparse_optimizer {{ adagrad_optimizer {{ lr: 0.1 }} constant_learning_rate {{}} }}
  dense_optimizer {{ adam_optimizer {{ lr: 0.01 }} constant_learning_rate {{}} }}
  num_epochs: 1
  use_tensorboard: false
}}
data_config {{
  batch_size: 64 dataset_type: ParquetDataset fg_mode: FG_NONE label_fields: "clk" num_workers: 0
  tdm_sampler {{
    item_input_path: "{root}/{tree}/node_table.txt"
    edge_input_path: "{root}/{tree}/edge_table.txt"
    predict_edge_input_path: "{root}/{tree}/predict_edge_table.txt"
    item_id_field: "item_id"
    attr_fields: ["item_id", "price"]
    attr_delimiter: ","
    layer_num_sample: [0, 1, 3, 4, 4, 5, 6]
  }}
}}
feature_configs {{ id_feature {{ feature_name: "user_id" expression: "user:user_id" num_buckets: 100 embedding_dim: 8 }} }}
feature_configs {{ id_feature {{ feature_name: "item_id" expression: "item:item_id" num_buckets: 200 embedding_dim: 8 embedding_name: "item" }} }}
feature_configs {{ raw_feature {{ feature_name: "price" expression: "item:price" }} }}
feature_configs {{
  sequence_feature {{
    sequence_name: "click" sequence_length: 10 sequence_delim: ";"
    features {{ id_feature {{ feature_name: "item_id" expression: "user:item_id" num_buckets: 200 embedding_dim: 8 embedding_name: "item" }} }}
  }}
}}
model_config {{
  feature_groups {{ group_name: "seq" feature_names: ["item_id", "click__item_id"] group_type: SEQUENCE }}
  feature_groups {{ group_name: "user" feature_names: ["user_id"] group_type: DEEP }}
  feature_groups {{ group_name: "node" feature_names: ["price"] group_type: DEEP }}
  tdm {{
    multiwindow_din {{ windows_len: [2, 2, 4] attn_mlp {{ hidden_units: 16 activation: "nn.PReLU" }} }}
    final {{ hidden_units: [32, 16] }}
  }}
  num_class: 2
  losses {{ softmax_cross_entropy {{}} }}
  metrics {{ auc {{}} }}
}}
"""  # noqa: E501


def write_rows(root: Path, num_train: int = 12_800, num_eval: int = 300) -> None:
    """Writes train, eval and items: each row's clicks and item are of one group."""
    rng = np.random.default_rng(0)
    for name, size in (("train", num_train), ("eval", num_eval)):
        group = rng.integers(0, NUM_GROUPS, size)
        members = np.argsort(GROUP_OF, kind="stable").reshape(NUM_GROUPS, -1)
        lengths = rng.integers(2, HISTORY + 1, size)
        clicks = members[group.repeat(lengths), rng.integers(0, members.shape[1], lengths.sum())]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        item = members[group, rng.integers(0, members.shape[1], size)]
        columns = {
            "user_id": pa.array(rng.integers(0, 100, size)),
            "click__item_id": pa.ListArray.from_arrays(pa.array(offsets), pa.array(clicks)),
            "item_id": pa.array(item),
            "price": pa.array(item / 100, pa.float32()),
            "clk": pa.array(np.ones(size, np.int64)),
        }
        pq.write_table(pa.table(columns), root / f"{name}.parquet")
    ids = np.arange(NUM_ITEMS)
    items = {"item_id": ids, "price": pa.array(ids / 100, pa.float32())}
    pq.write_table(pa.table(items), root / "items.parquet")


def write_config(root: Path, tree: str) -> str:
    """Writes a config on the tables of a tree; returns its path."""
    path = root / f"{tree}.config"
    path.write_text(CONFIG.format(root=root, tree=tree).replace("/run", f"/run_{tree}"))
    return str(path)
