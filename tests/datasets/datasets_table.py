"""A small table in several files, and loaders of it."""

from __future__ import annotations

from datasets_fakes import DenseFake, IdFake
from google.protobuf import text_format

from tzrec.datasets.dataset import create_dataloader
from tzrec.protos.data_pb2 import DataConfig

ROWS = [23, 0, 17, 9]
TOTAL = sum(ROWS)


def config_of(text: str = "", batch_size: int = 5) -> DataConfig:
    base = f'dataset_type: ParquetDataset batch_size: {batch_size} label_fields: "label" '
    return text_format.Parse(base + text, DataConfig())


def loader_of(folder, text: str = "", *, batch_size: int = 5, features=None, **kwargs):
    features = features or [IdFake("id"), DenseFake("price")]
    return create_dataloader(config_of(text, batch_size), features, f"{folder}/*.parquet", **kwargs)


def ids_of(batch) -> list[int]:
    return batch.sparse_features["__BASE__"].values().tolist()


def all_ids(loader) -> list[list[int]]:
    return [ids_of(batch) for batch in loader]
