"""Tiny runs, and what one sees of them: for tests that a config field changes something."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from tzrec.config import prepare
from tzrec.datasets.data_parser import DataParser
from tzrec.optim.optimizer import build_optimizer
from tzrec.options import Options
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.training import build
from tzrec.training.distributed.wrap import distribute
from tzrec.training.hooks.base import Hook
from tzrec.training.trainer import Trainer

CONFIG = """
train_input_path: "train.parquet"
eval_input_path: "eval.parquet"
model_dir: "run"
train_config {
  sparse_optimizer { sgd_optimizer { lr: 0.1 } constant_learning_rate {} }
  dense_optimizer {
    sgd_optimizer { lr: 0.1 }
    constant_learning_rate {}
    part_optimizers {
      sgd_optimizer { lr: 0.1 }
      constant_learning_rate {}
      regex_pattern: ".*bias"
    }
  }
  num_epochs: 2
}
data_config { dataset_type: ParquetDataset label_fields: "clk" batch_size: 32 }
feature_configs {
  id_feature { feature_name: "user" expression: "user:user" num_buckets: 20 embedding_dim: 4 }
}
feature_configs { raw_feature { feature_name: "price" expression: "item:price" } }
model_config {
  feature_groups { group_name: "deep" feature_names: ["user", "price"] group_type: DEEP }
  multi_tower {
    towers { input: "deep" mlp { hidden_units: [6] } }
    final { hidden_units: [4] }
  }
  losses { binary_cross_entropy {} }
  metrics { auc {} }
}
"""
NUM_BATCHES, BATCH_SIZE = 4, 32


@functools.cache
def _directory() -> tempfile.TemporaryDirectory[str]:
    """Lives as long as this process."""
    return tempfile.TemporaryDirectory(prefix="tzrec-knobs-")


@functools.cache
def config_path() -> Path:
    """A file with `CONFIG`, in a directory of its own."""
    path = Path(_directory().name) / "knobs.config"
    path.write_text(CONFIG)
    return path


def load(edits: tuple[str, ...]) -> EasyRecConfig:
    """The checked config with edits, as a command takes it."""
    return prepare(config_path(), edits=edits, log_warnings=False).config


def rows(seed: int, num_rows: int = BATCH_SIZE) -> dict[str, pa.Array]:
    """Columns of a batch; the gradients of later ones are smaller."""
    rng = np.random.default_rng(seed)
    return {
        "user": pa.array(rng.integers(0, 20, num_rows)),
        "price": pa.array(rng.normal(size=num_rows).astype(np.float32) / (1 + seed)),
        "clk": pa.array(rng.integers(0, 2, num_rows)),
    }


class Batches:
    """A loader of the same few batches in each pass."""

    num_rows = NUM_BATCHES * BATCH_SIZE
    num_batches = NUM_BATCHES

    def __init__(self, features: list[Any]) -> None:
        parser = DataParser(features, labels=["clk"])
        self._batches = [parser.to_batch(parser.parse(rows(i))) for i in range(NUM_BATCHES)]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._batches)

    def set_epoch(self, epoch: int) -> None:
        """One order."""


class Recorder(Hook):
    """Keeps the learning rates of each step; evaluates a metric that gets worse and better."""

    METRICS = (0.50, 0.55, 0.56, 0.54, 0.53, 0.52, 0.51, 0.50)

    def __init__(self) -> None:
        self.rates: list[tuple[float, ...]] = []

    def after_step(self, trainer: Trainer, result: Any) -> None:
        """Records the rates."""
        self.rates.append(tuple(trainer.optimizer.learning_rates()))
        value = self.METRICS[len(self.rates) - 1]
        trainer.after_evaluation({"auc": value, "binary_cross_entropy": len(self.rates)})


@functools.cache
def trained(edits: tuple[str, ...]) -> tuple[Any, Any, Any]:
    """Of a run of 8 steps the weights, the learning rates of each step, and averages and scale."""
    config, device = load(edits), torch.device("cpu")
    build.seed_everything(build.run_seed(config, Options()))
    features = build.build_features(config.data_config, config.feature_configs)
    wrapper = build.build_train_wrapper(config, features, device)
    model = distribute(wrapper, train_config=config.train_config, device=device)
    optimizer, recorder = build_optimizer(model, config.train_config), Recorder()
    Trainer(model, optimizer, loader=Batches(features), hooks=[recorder], num_epochs=2).fit()
    averages = optimizer.ema.state_dict() if optimizer.ema is not None else {}
    scale = optimizer.state_dict().get("grad_scaler", {}).get("scale")
    return _bits(model.state_dict()), tuple(recorder.rates), (_bits(averages), scale)


def _bits(tensors: Any) -> Any:
    return tuple((name, value.numpy().tobytes()) for name, value in sorted(tensors.items()))


def scalar_fields(descriptor: Any, prefix: str) -> Iterator[str]:
    """Paths of all fields below a message that are no messages themselves."""
    for field in descriptor.fields:
        path = f"{prefix}.{field.name}"
        if field.message_type is not None:
            yield from scalar_fields(field.message_type, path)
        else:
            yield path
