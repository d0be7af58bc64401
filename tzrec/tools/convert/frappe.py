"""Frappe (app usage in context), split and numbered as BARS' Frappe_x1."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa

from tzrec.errors import DataError
from tzrec.tools.convert.columns import Converted, Id, read_columns, wide_and_deep_groups

FILES = ("train.parquet", "valid.parquet", "test.parquet")

_SIDES = {
    "user": "user",
    "item": "item",
    "daytime": "context",
    "weekday": "context",
    "isweekend": "context",
    "homework": "context",
    "cost": "item",
    "weather": "context",
    "country": "context",
    "city": "context",
}
# Published protocol (BARS, Frappe_x1): embedding 10, MLP 400 x 3 with batch norm and dropout .2,
# L2 of .05 on embeddings, Adam 1e-3, batch 4096, learning rate x .1 on a plateau of the valid
# AUC, and an early stop.
MODEL = """
train_config {
  sparse_optimizer {
    adam_optimizer { lr: 0.001 }
    reduce_on_plateau_learning_rate { metric: "auc" factor: 0.1 patience: 1 min_delta: 1e-6 }
  }
  dense_optimizer {
    adam_optimizer { lr: 0.001 }
    reduce_on_plateau_learning_rate { metric: "auc" factor: 0.1 patience: 1 min_delta: 1e-6 }
  }
  # L2 on the embedding rows of each batch.
  embedding_l2: 0.05
  num_epochs: 100
  save_checkpoints_epochs: 1
  keep_checkpoint_max: 2
  early_stop { metric: "auc" patience: 2 min_delta: 1e-6 }
  seed: 2024
}
export_config {
  exporter_type: "best"
  best_exporter_metric: "auc"
}
data_config {
  batch_size: 4096
  dataset_type: ParquetDataset
  fg_mode: FG_NONE
  label_fields: "label"
  num_workers: 1
  shuffle: true
  # In batches: all of them, so every pass has a fresh order.
  shuffle_buffer_size: 64
}
model_config {
  FEATURE_GROUPS
  deepfm {
    deep { hidden_units: [400, 400, 400] dropout_ratio: 0.3 use_bn: true }
    wide_init_fn: "nn.init.normal_,std=1e-2"
  }
  losses { binary_cross_entropy {} }
  # Predictions crowd near 0 and 1 here, so the bins of the AUC must be fine.
  metrics { auc { thresholds: 10000 } }
}
"""


def convert(source: Path) -> Converted:
    """Converts the three Parquet files with global ids to ids that start at 0 in each field.

    Args:
        source: directory with `FILES`.

    Raises:
        DataError: a file or column is missing, or two fields share ids.
    """
    names = ["label", *_SIDES]
    tables = {path.split(".")[0]: read_columns(source / path, names) for path in FILES}
    whole = pa.concat_tables(tables.values())
    ids = {name: whole[name].to_numpy() for name in _SIDES}
    blocks = {name: (int(values.min()), int(values.max())) for name, values in ids.items()}
    _check_disjoint(blocks)
    parts = {
        part: pa.table(
            {"label": table["label"].to_numpy().astype(np.float32)}
            | {name: table[name].to_numpy() - blocks[name][0] for name in _SIDES}
        )
        for part, table in tables.items()
    }
    features = tuple(
        Id(name, side, high - low + 1, dim=10, init_fn="nn.init.normal_,std=1e-2")
        for (name, side), (low, high) in zip(_SIDES.items(), blocks.values(), strict=True)
    )
    groups = wide_and_deep_groups(tuple(_SIDES), tuple(_SIDES))
    return Converted(
        parts, features, ("label",), MODEL.replace("FEATURE_GROUPS", groups.replace("\n", "\n  "))
    )


def _check_disjoint(blocks: dict[str, tuple[int, int]]) -> None:
    ordered = sorted(blocks.items(), key=lambda item: item[1])
    for (name, (_, high)), (other, (low, _)) in itertools.pairwise(ordered):
        if low <= high:
            raise DataError(
                f"fields {name!r} and {other!r} share the ids {low} to {high}",
                hint="frappe is expected with global ids, a block of its own for each field",
            )
