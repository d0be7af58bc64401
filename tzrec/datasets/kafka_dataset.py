"""A topic of Kafka as an input."""

from __future__ import annotations

from typing import Any, ClassVar

from tzrec.datasets.dataset import BaseDataset
from tzrec.datasets.kafka.loader import KafkaLoader
from tzrec.datasets.kafka.reader import KafkaReader
from tzrec.datasets.loader import BatchLoader
from tzrec.datasets.schema import input_fields
from tzrec.protos.data_pb2 import DataConfig

__all__ = ["KafkaDataset", "KafkaReader"]


class KafkaDataset(BaseDataset):
    """A topic as training, evaluation or prediction input."""

    reader_class = KafkaReader
    loader_class: ClassVar[type[BatchLoader]] = KafkaLoader

    @classmethod
    def reader_options(cls, data_config: DataConfig) -> dict[str, Any]:
        """Returns the columns that the config declares."""
        return {"fields": input_fields(data_config)}
