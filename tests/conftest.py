"""A small click log with a planted signal, and a config that trains on it."""

import logging
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click_log import click_table

pytest_plugins = ["conftest_kafka", "conftest_s3"]

CONFIG = """
train_input_path: "{root}/train.parquet"
eval_input_path: "{root}/eval.parquet"
model_dir: "{root}/run"
train_config {{
  sparse_optimizer {{
    {sparse} {{ lr: 0.1 }}
    constant_learning_rate {{}}
  }}
  dense_optimizer {{
    adam_optimizer {{ lr: 0.02 }}
    exponential_decay_learning_rate {{ decay_size: 5 decay_factor: 0.9 }}
  }}
  num_epochs: 2
  save_checkpoints_steps: 5
  log_step_count_steps: 4
  use_tensorboard: false
}}
data_config {{
  batch_size: 64
  dataset_type: ParquetDataset
  label_fields: "clk"
  num_workers: 0
  shuffle: {shuffle}
  shuffle_buffer_size: 4
}}
feature_configs {{
  id_feature {{
    feature_name: "user_id"
    expression: "user:user_id"
    embedding_dim: 8
    num_buckets: 40
  }}
}}
feature_configs {{
  id_feature {{
    feature_name: "item_id"
    expression: "item:item_id"
    embedding_dim: 8
    num_buckets: 30
    embedding_name: "item"
  }}
}}
feature_configs {{
  id_feature {{
    feature_name: "tags"
    expression: "item:tags"
    embedding_dim: 8
    num_buckets: 5
    pooling: "mean"
  }}
}}
feature_configs {{
  raw_feature {{
    feature_name: "price"
    expression: "item:price"
  }}
}}
feature_configs {{
  sequence_feature {{
    sequence_name: "click"
    sequence_length: 6
    sequence_delim: ";"
    features {{
      id_feature {{
        feature_name: "item_id"
        expression: "item:item_id"
        embedding_dim: 8
        num_buckets: 30
        embedding_name: "item"
      }}
    }}
    features {{ raw_feature {{ feature_name: "price" expression: "item:price" }} }}
  }}
}}
model_config {{
  feature_groups {{
    group_name: "deep"
    feature_names: ["user_id", "item_id", "tags", "price"]
    group_type: DEEP
  }}
  feature_groups {{
    group_name: "seq"
    feature_names: ["item_id", "price", "click__item_id", "click__price"]
    group_type: SEQUENCE
  }}
  multi_tower_din {{
    towers {{ input: "deep" mlp {{ hidden_units: [16, 8] dropout_ratio: 0.1 }} }}
    din_towers {{ input: "seq" attn_mlp {{ hidden_units: [8] }} }}
    final {{ hidden_units: 8 }}
  }}
  losses {{ binary_cross_entropy {{}} }}
  metrics {{ auc {{}} }}
  train_metrics {{ auc {{}} decay_step: 3 }}
}}
"""


def write_click_files(
    root: Path, sparse: str, *, shuffle: bool = True, num_rows: int = 1000
) -> Path:
    """Writes a config and its data into a directory; returns the config's path."""
    pq.write_table(click_table(num_rows, 1), root / "train.parquet", row_group_size=300)
    pq.write_table(click_table(500, 2), root / "eval.parquet")
    path = root / "click.config"
    path.write_text(CONFIG.format(root=root, sparse=sparse, shuffle=str(shuffle).lower()))
    return path


@pytest.fixture(scope="session")
def click_files():
    """`write_click_files`, for fixtures with a directory of their own."""
    return write_click_files


@pytest.fixture
def click_config(tmp_path: Path):
    """Returns ``make(sparse=…, shuffle=…) -> config path``; data lies beside it."""

    def make(
        sparse: str = "adagrad_optimizer", *, shuffle: bool = True, num_rows: int = 1000
    ) -> Path:
        return write_click_files(tmp_path, sparse, shuffle=shuffle, num_rows=num_rows)

    return make


@pytest.fixture(autouse=True)
def restore_logging():
    """Commands set up logging for their process; a test leaves it as it was."""
    logger = logging.getLogger("tzrec")
    state = logger.level, logger.propagate, list(logger.handlers)
    yield
    logger.setLevel(state[0])
    logger.propagate = state[1]
    logger.handlers[:] = state[2]
