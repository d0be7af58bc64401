"""Parquet files as an input."""

from __future__ import annotations

from tzrec.datasets.dataset import BaseDataset
from tzrec.datasets.parquet_files import ParquetReader, ParquetWriter

__all__ = ["ParquetDataset", "ParquetReader", "ParquetWriter"]


class ParquetDataset(BaseDataset):
    """Parquet files as training, evaluation or prediction input."""

    reader_class = ParquetReader
