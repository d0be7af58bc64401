"""Types of a batch and of its parsed columns (import path of the interface)."""

from __future__ import annotations

from tzrec.batch import Batch, RecordBatchTensor
from tzrec.constant import BASE_DATA_GROUP, CROSS_NEG_DATA_GROUP, NEG_DATA_GROUP, Mode
from tzrec.fg.parsed import (
    DenseData,
    Parsed,
    ParsedData,
    SequenceDenseData,
    SequenceSparseData,
    SparseData,
)

__all__ = [
    "BASE_DATA_GROUP",
    "CROSS_NEG_DATA_GROUP",
    "NEG_DATA_GROUP",
    "Batch",
    "DenseData",
    "Mode",
    "Parsed",
    "ParsedData",
    "RecordBatchTensor",
    "SequenceDenseData",
    "SequenceSparseData",
    "SparseData",
]
