"""Small runs with hash tables: a pooled one, and one shared by an item and a history."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rank_runs import torchrun, training
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys

from tzrec.main import train_and_evaluate
from tzrec.training.checkpoint.find import list_checkpoints

ROWS, BATCH = 960, 64
ITEM = "zch { zch_size: 40 eviction_interval: 3 distance_lfu { decay_exponent: 1.5 } }"
USER = "zch { zch_size: 30 eviction_interval: 2 lfu {} }"
DYNAMIC = """dynamicemb { max_capacity: 30 score_strategy: "LFU"
  initializer_args { mode: "normal" std_dev: 0.5 } eval_initializer_args { value: 0.25 }
  frequency_admission_strategy { threshold: 3 counter_capacity: 50 } }"""
CONFIG = """
train_input_path: "%(root)s/train.parquet"
eval_input_path: "%(root)s/eval.parquet"
model_dir: "%(root)s/run"
train_config {
  sparse_optimizer { rowwise_adagrad_optimizer { lr: 0.1 } constant_learning_rate {} }
  dense_optimizer { sgd_optimizer { lr: 0.05 } constant_learning_rate {} }
  num_epochs: 1
  mixed_precision: "FP32"
}
data_config {
  dataset_type: ParquetDataset label_fields: "clk" batch_size: 64 shuffle: false
}
feature_configs { id_feature {
  feature_name: "user" expression: "user:user" embedding_dim: 4 %(user)s } }
feature_configs { id_feature {
  feature_name: "item" expression: "item:item" embedding_dim: 4 embedding_name: "item_emb"
  %(item)s } }
feature_configs { sequence_id_feature {
  feature_name: "hist" expression: "user:hist" embedding_dim: 4 embedding_name: "item_emb"
  sequence_length: 10 value_dim: 1 %(item)s } }
feature_configs { raw_feature { feature_name: "price" expression: "item:price" } }
model_config {
  feature_groups { group_name: "deep" feature_names: ["user", "price"] group_type: DEEP }
  feature_groups { group_name: "seq" feature_names: ["item", "hist"] group_type: SEQUENCE }
  multi_tower_din {
    towers { input: "deep" mlp { hidden_units: [6] } }
    din_towers { input: "seq" attn_mlp { hidden_units: [8] } }
    final { hidden_units: [4] }
  }
  losses { binary_cross_entropy {} }
  metrics { auc {} }
}
"""
MAPS = ("ids", "counts", "last_steps", "steps")
TABLES = ("user_emb", "item_emb")


def columns(num_rows, seed):
    """Ids all over 63 bits, some often, some once."""
    rng = np.random.default_rng(seed)

    def ids(size):
        return rng.zipf(1.5, size) % 200 * 48_271_001_003_579_331 % (2**63 - 1)

    steps = [ids(rng.integers(0, 5)).tolist() for _ in range(num_rows)]
    user, item = ids(num_rows), ids(num_rows)
    return {
        "user": user,
        "item": item,
        "hist": pa.array(steps, pa.list_(pa.int64())),
        "price": rng.normal(size=num_rows).astype(np.float32),
        "clk": (user + item) % 2,
    }


def write(root, *, user=USER, item=ITEM):
    """Writes data and config; returns the config's path."""
    for name, rows, seed in (("train", ROWS, 0), ("eval", 200, 1)):
        pq.write_table(pa.table(columns(rows, seed)), root / f"{name}.parquet")
    path = root / "c.config"
    path.write_text(CONFIG % {"root": root, "user": user, "item": item})
    return str(path)


def stored(run, part="model"):
    """Name → tensor of the last checkpoint."""
    checkpoint = list_checkpoints(run)[-1]
    return _load_state_dict_from_keys(checkpoint_id=str(checkpoint / part))


def maps(state):
    """(table, buffer) → tensor of the maps in a state dict."""
    return {
        tuple(name.split(".")[-2:]): value for name, value in state.items() if ".id_maps." in name
    }


def weight_of(state, table):
    """Returns the weight of a table from a state dict."""
    (name,) = (n for n in state if n.endswith(f".{table}.weight") and not n.startswith("state."))
    return state[name]


def train(config, run, *, steps=0, more=(), **kwargs):
    """Trains in this process."""
    epochs = () if not steps else (f"train_config.num_steps={steps}", "train_config.num_epochs=0")
    train_and_evaluate(config, model_dir=str(run), report=False, edits=[*epochs, *more], **kwargs)


def train_on(ranks, config, run, *flags, **edits):
    """Trains under torchrun."""
    changed = {f"train_config.{name}": value for name, value in edits.items()}
    if "batch_size" in edits:
        changed = {"data_config.batch_size": changed.pop("train_config.batch_size"), **changed}
    torchrun(*training(config, "--model_dir", run, *flags, edits=changed), ranks=ranks)
