"""Small exports of every kind that can be served, and an application over one of them."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from starlette.testclient import TestClient

from tzrec.config import prepare
from tzrec.deploy.commands import golden_rows
from tzrec.deploy.export import export_artefact
from tzrec.deploy.options import ExportOptions
from tzrec.options import from_environment
from tzrec.serving.app import create_app
from tzrec.serving.engine import Engine
from tzrec.serving.options import ServeOptions
from tzrec.serving.servable import load_servable
from tzrec.training.build import build_features, build_model

FEATURES = """
feature_configs { id_feature { feature_name: "user_id" expression: "user:user_id"
    hash_bucket_size: 50 embedding_dim: 4 } }
feature_configs { raw_feature { feature_name: "age" expression: "user:age" } }
feature_configs { id_feature { feature_name: "tags" expression: "user:tags"
    hash_bucket_size: 20 embedding_dim: 4 } }
feature_configs { lookup_feature { feature_name: "taste" map: "user:tastes" key: "item:brand" } }
feature_configs { id_feature { feature_name: "item_id" expression: "item:item_id"
    num_buckets: 40 embedding_dim: 4 embedding_name: "item" } }
feature_configs { id_feature { feature_name: "brand" expression: "item:brand"
    hash_bucket_size: 9 embedding_dim: 4 } }
feature_configs { raw_feature { feature_name: "price" expression: "item:price" } }
feature_configs { id_feature { feature_name: "hour" expression: "context:hour"
    num_buckets: 24 embedding_dim: 4 } }
feature_configs { sequence_feature { sequence_name: "click" sequence_length: 5 sequence_delim: ";"
    features { id_feature { feature_name: "item_id" expression: "item:item_id"
        num_buckets: 40 embedding_dim: 4 embedding_name: "item" } } } }
"""

MODEL = """
model_config {
  feature_groups { group_name: "deep" group_type: DEEP feature_names:
    ["user_id", "age", "tags", "taste", "item_id", "brand", "price", "hour"] }
  feature_groups { group_name: "seq" group_type: SEQUENCE
    feature_names: ["item_id", "click__item_id"] }
  multi_tower_din {
    towers { input: "deep" mlp { hidden_units: [8] } }
    din_towers { input: "seq" attn_mlp { hidden_units: [4] } }
    final { hidden_units: 4 } }
  losses { binary_cross_entropy {} }
}
"""
CONTEXT = ["user_id", "age", "tags", "tastes", "hour", "click__item_id"]


def make_rows(num_rows: int, *, seed: int = 0) -> pa.Table:
    """Raw columns of every type that a client may send."""
    rng = np.random.default_rng(seed)
    brands = [f"b{i}" for i in range(5)]

    def lists(high: int) -> list[list[int]]:
        return [rng.integers(0, high, rng.integers(0, 4)).tolist() for _ in range(num_rows)]

    return pa.table(
        {
            "user_id": [f"u{i}" for i in rng.integers(0, 30, num_rows)],
            "age": rng.normal(30, 9, num_rows),
            "tags": [[f"t{i}" for i in row] for row in lists(9)],
            "tastes": pa.array(
                [[(b, float(v)) for b, v in zip(brands, rng.random(5).round(3), strict=True)]
                 for _ in range(num_rows)],
                pa.map_(pa.string(), pa.float32()),
            ),
            "item_id": rng.integers(0, 40, num_rows),
            "brand": [brands[i] for i in rng.integers(0, 5, num_rows)],
            "price": rng.random(num_rows).astype(np.float32),
            "hour": rng.integers(0, 24, num_rows).astype(np.int32),
            "click__item_id": [";".join(map(str, row)) or None for row in lists(40)],
            "label": rng.integers(0, 2, num_rows),
        }
    )  # fmt: skip


def as_objects(table: pa.Table) -> list[dict]:
    """Rows as JSON has them."""
    names = [name for name in table.schema.names if name != "label"]
    columns = {name: table[name].to_pylist() for name in names}
    columns["tastes"] = [dict(pairs) for pairs in columns["tastes"]]
    return [{name: columns[name][i] for name in names} for i in range(table.num_rows)]


def export_rank(root: Path, **options) -> Path:
    """Exports a model that reads the columns of `make_rows`."""
    pq.write_table(make_rows(64), root / "train.parquet")
    return export_model(root, FEATURES, MODEL, "FG_DAG", **options)


def export_model(root: Path, features: str, model: str, fg_mode: str, **options) -> Path:
    """Exports a model that is not trained; ``train.parquet`` lies in the directory."""
    (root / "job.config").write_text(
        f"""
train_input_path: "{root}/train.parquet" eval_input_path: "" model_dir: "{root}/run"
train_config {{ num_epochs: 1
    sparse_optimizer {{ adagrad_optimizer {{ lr: 0.1 }} constant_learning_rate {{}} }}
    dense_optimizer {{ adam_optimizer {{ lr: 0.01 }} constant_learning_rate {{}} }} }}
data_config {{ dataset_type: ParquetDataset batch_size: 32 label_fields: "label"
    fg_mode: {fg_mode} num_workers: 1 }}
{features}
{model}
"""
    )
    config = prepare(root / "job.config").config
    made = build_features(config.data_config, config.feature_configs)
    torch.manual_seed(3)
    net = build_model(config, made)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    golden, rows = golden_rows(config, made, from_environment({}))
    path = export_artefact(
        config=config,
        model=net,
        features=made,
        golden=golden,
        export_dir=root / "export",
        rows=rows,
        options=ExportOptions(**options),
    )
    return Path(path)


@contextlib.contextmanager
def serving(servable, *, start: bool = True, is_full=lambda: False, **options):
    """Yields a client of the application over a servable that is loaded already.

    Its ``engine`` is the engine; without ``start`` it has not loaded the servable yet.
    """
    settings = ServeOptions(**options)
    engine = Engine(Path(__file__).parent, settings, load=lambda directory, *, version: servable)
    app = create_app(engine, settings, is_full=is_full)
    if start:
        engine.start()
        engine.wait(30)
    try:
        with TestClient(app, raise_server_exceptions=False) as client:
            client.engine = engine
            yield client
    finally:
        engine.close()


__all__ = ["CONTEXT", "as_objects", "export_rank", "load_servable", "make_rows", "serving"]
