"""A small two-tower job: rows in which users take items of their own taste."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tzrec.cli import main

NUM_USERS, NUM_ITEMS, NUM_TASTES = 60, 40, 4

FEATURES = """
feature_configs { id_feature { feature_name: "user_id" expression: "user:user_id"
    num_buckets: 60 embedding_dim: 8 } }
feature_configs { id_feature { feature_name: "likes" expression: "user:likes"
    num_buckets: 41 embedding_dim: 8 pooling: "mean" } }
feature_configs { raw_feature { feature_name: "age" expression: "user:age" } }
feature_configs { id_feature { feature_name: "item_id" expression: "item:item_id"
    num_buckets: 41 embedding_dim: 8 embedding_name: "item" } }
feature_configs { raw_feature { feature_name: "price" expression: "item:price" } }
"""

DSSM = """
feature_groups { group_name: "user" feature_names: ["user_id", "likes", "age"] group_type: DEEP }
feature_groups { group_name: "item" feature_names: ["item_id", "price"] group_type: DEEP }
dssm {
  user_tower { input: "user" mlp { hidden_units: [16] dropout_ratio: [0.1] } }
  item_tower { input: "item" mlp { hidden_units: [16] dropout_ratio: [0.1] } }
  output_dim: 8 similarity: %(similarity)s temperature: 0.1 in_batch_negative: %(in_batch)s
}
losses { softmax_cross_entropy {} }
metrics { recall_at_k { top_k: 5 } }
"""

SAMPLER = """negative_sampler { input_path: "%s" num_sample: 16
    attr_fields: ["item_id", "price"] item_id_field: "item_id" }"""


def run(*words: object) -> int:
    """Runs a command and returns its exit code."""
    return main([str(word) for word in words])


def taste_of(items: np.ndarray) -> np.ndarray:
    return items % NUM_TASTES


def price_of(items: np.ndarray) -> np.ndarray:
    return ((items * 7) % 11 / 11).astype(np.float32)


def make_rows(num_rows: int, *, seed: int = 0) -> pa.Table:
    """A log: each row is an item that its user has taken."""
    rng = np.random.default_rng(seed)
    users = rng.integers(0, NUM_USERS, num_rows)
    per_taste = NUM_ITEMS // NUM_TASTES

    def own(size: int) -> np.ndarray:
        return rng.integers(0, per_taste, size) * NUM_TASTES + users % NUM_TASTES

    items = own(num_rows)
    likes = np.stack([own(num_rows) for _ in range(3)], axis=1)
    cells = ["\x03".join(map(str, row[: n % 4])) for n, row in enumerate(likes)]
    return pa.table(
        {
            "user_id": users,
            "likes": pa.array(cells, pa.string()),
            "age": (users % 7).astype(np.float32),
            "item_id": items,
            "price": price_of(items),
            "clk": np.ones(num_rows, np.int64),
        }
    )


def make_items() -> pa.Table:
    items = np.arange(NUM_ITEMS)
    return pa.table({"item_id": items, "price": price_of(items), "name": [f"i{i}" for i in items]})


def write_job(
    root: Path, *, similarity: str = "COSINE", with_sampler: bool = False, more: str = ""
) -> Path:
    """Writes data and config; returns the path of the config."""
    pq.write_table(make_rows(2000), root / "train.parquet")
    pq.write_table(make_rows(300, seed=1), root / "test.parquet")
    pq.write_table(make_items(), root / "items.parquet")
    sampler = ""
    if with_sampler:
        lines = [f"{i}\t1.0\t{i}:{p}" for i, p in enumerate(price_of(np.arange(NUM_ITEMS)))]
        (root / "items.txt").write_text(
            "id:int64\tweight:float\tattrs:string\n" + "\n".join(lines) + "\n"
        )
        sampler = SAMPLER % (root / "items.txt")
    in_batch = "false" if with_sampler else "true"
    (root / "job.config").write_text(
        f"""
train_input_path: "{root / "train.parquet"}"
eval_input_path: ""
model_dir: "{root / "run"}"
train_config {{ num_epochs: 8
    sparse_optimizer {{ adagrad_optimizer {{ lr: 0.1 }} constant_learning_rate {{}} }}
    dense_optimizer {{ adam_optimizer {{ lr: 0.01 }} constant_learning_rate {{}} }} }}
data_config {{ dataset_type: ParquetDataset batch_size: 64 label_fields: "clk"
    fg_mode: FG_NONE num_workers: 1 {sampler} }}
{FEATURES}
model_config {{ {DSSM % {"similarity": similarity, "in_batch": in_batch}} }}
{more}
"""
    )
    return root / "job.config"
