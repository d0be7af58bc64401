"""CSV files as an input."""

from __future__ import annotations

from typing import Any

from tzrec.datasets.csv_files import CsvFormat, CsvReader, CsvWriter
from tzrec.datasets.dataset import BaseDataset
from tzrec.protos.data_pb2 import DataConfig

__all__ = ["CsvDataset", "CsvFormat", "CsvReader", "CsvWriter"]


class CsvDataset(BaseDataset):
    """CSV files as training, evaluation or prediction input."""

    reader_class = CsvReader

    @classmethod
    def reader_options(cls, data_config: DataConfig) -> dict[str, Any]:
        """Returns the CSV format of the config."""
        return {"csv_format": CsvFormat.of(data_config)}
