"""`Batch`: what one training step reads, and the jagged types it is made of.

This is the one place that imports TorchRec's jagged types for the rest of the package.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import JaggedTensor, KeyedJaggedTensor, KeyedTensor
from torchrec.streamable import Pipelineable

from tzrec.constant import BASE_DATA_GROUP, CROSS_NEG_DATA_GROUP, NEG_DATA_GROUP

__all__ = [
    "BASE_DATA_GROUP",
    "CROSS_NEG_DATA_GROUP",
    "NEG_DATA_GROUP",
    "Batch",
    "JaggedTensor",
    "KeyedJaggedTensor",
    "KeyedTensor",
    "RecordBatchTensor",
    "UserRows",
    "user_rows_of",
]

# Keys of `Batch.additional_infos`.
HARD_NEG_INDICES = "hard_neg_indices"
CAND_POS_LENGTHS = "cand_pos_lengths"
NEG_LOG_Q = "neg_log_q"
POS_LOG_Q = "pos_log_q"
SAMPLER_INFOS = (HARD_NEG_INDICES, CAND_POS_LENGTHS, NEG_LOG_Q, POS_LOG_Q)


class RecordBatchTensor:
    """Carries an Arrow record batch through code that moves tensors (the reserved columns)."""

    def __init__(self, record_batch: pa.RecordBatch | None = None) -> None:
        self._record_batch = record_batch

    def get(self) -> pa.RecordBatch | None:
        """Returns the record batch."""
        return self._record_batch


@dataclasses.dataclass
class UserRows:
    """Whose rows those of a tiled batch are.

    Attributes:
        features: names of the features of the user.
        owners: (B,) number of the user of each row.
        counts: (U,) rows of each user.
    """

    features: frozenset[str]
    owners: Tensor
    counts: Tensor

    def to(self, device: torch.device, non_blocking: bool = False) -> UserRows:
        """Returns it on ``device``."""
        owners = self.owners.to(device=device, non_blocking=non_blocking)
        counts = self.counts.to(device=device, non_blocking=non_blocking)
        return UserRows(self.features, owners, counts)


@dataclasses.dataclass
class Batch(Pipelineable):
    """Rows of one step, grouped by the rows dimension that a feature lives on (data group).

    B is the number of rows of ``__BASE__``. ``__NEG__`` has these, then those that a sampler drew:
    N that all rows share, then H hard ones.

    Attributes:
        dense_features: data group → `KeyedTensor`, each key (B, value_dim).
        sparse_features: data group → `KeyedJaggedTensor` of int64 ids. Multi-value sequences
            are flattened: the length of a row is the sum of its elements' lengths.
        sequence_mulval_lengths: data group → KJT with values = ids per element and
            lengths = elements per row, for sparse sequences whose value_dim is not 1.
        sequence_dense_features: feature → `JaggedTensor` with values (sum of lengths, value_dim).
        labels: label → (B,) tensor.
        jagged_labels: label → JaggedTensor, for list labels.
        reserves: columns kept for the output of a prediction.
        tile_size: rows that a tiled model repeats users' features for, -1 = the model is not tiled.
        user_rows: set where users' features are repeated after the lookup (input tiling, mode 3):
            of their features the first U rows are the users', all others are empty. Dense
            features that are no sequences are repeated already.
        sample_weights: weight column → (B,) tensor.
        additional_infos: what a sampler tells of its rows: ``hard_neg_indices`` (H, 2), row of the
            batch and running number in it; ``cand_pos_lengths`` (B,), candidates of each row;
            ``neg_log_q`` (N,) and ``pos_log_q`` (P,), log of the probability to be drawn.
        dummy: True for a batch that only keeps a rank in step; its result is dropped.
        checkpoint_info: source → row intervals [start, end) that the batch was read from.
        row_origin: where each row was read: source names, number of the source and number in
            it (B,); None = unknown.
        data_timestamp: newest event time in the batch in seconds, -1 = none.
    """

    dense_features: dict[str, KeyedTensor] = dataclasses.field(default_factory=dict)
    sparse_features: dict[str, KeyedJaggedTensor] = dataclasses.field(default_factory=dict)
    sequence_mulval_lengths: dict[str, KeyedJaggedTensor] = dataclasses.field(default_factory=dict)
    sequence_dense_features: dict[str, JaggedTensor] = dataclasses.field(default_factory=dict)
    labels: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    jagged_labels: dict[str, JaggedTensor] = dataclasses.field(default_factory=dict)
    reserves: RecordBatchTensor = dataclasses.field(default_factory=RecordBatchTensor)
    tile_size: int = -1
    sample_weights: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    additional_infos: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    dummy: bool = False
    checkpoint_info: dict[str, list[tuple[int, int]]] | None = None
    row_origin: tuple[Sequence[str], Any, Any] | None = None
    data_timestamp: float = -1.0
    user_rows: UserRows | None = None

    def locate(self, row: int) -> str:
        """Returns ``{source}: row {number} (counted from 0)`` of a row, "" if it is unknown.

        That of a row that a sampler added is.
        """
        if self.row_origin is None or row >= len(self.row_origin[1]):
            return ""
        names, source, number = self.row_origin
        return f"{names[int(source[row])]}: row {int(number[row])} (counted from 0)"

    def _map(self, function: Any) -> dict[str, dict[str, Any]]:
        return {
            field: {key: function(value) for key, value in getattr(self, field).items()}
            for field in _TENSOR_FIELDS
        }

    def to(self, device: torch.device, non_blocking: bool = False) -> Batch:
        """Returns the batch on ``device``; Arrow columns stay where they are."""
        moved: Any = self._map(lambda v: v.to(device=device, non_blocking=non_blocking))
        if self.user_rows is not None:
            moved["user_rows"] = self.user_rows.to(device, non_blocking)
        return dataclasses.replace(self, **moved)

    def pin_memory(self) -> Batch:
        """Returns the batch in page-locked memory."""
        pinned: Any = self._map(_pin)
        return dataclasses.replace(self, **pinned)

    def record_stream(self, stream: torch.Stream) -> None:
        """Tells the allocator that ``stream`` uses the tensors."""
        self._map(lambda value: value.record_stream(stream))

    def to_dict(self, sparse_dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Returns the flat dictionary of parse keys (``{feature}.values`` …), the exported
        model's input.

        Args:
            sparse_dtype: dtype of sparse ids; None keeps it.
        """
        flat: dict[str, Tensor] = {}
        for kt in self.dense_features.values():
            flat |= {f"{key}.values": value for key, value in kt.to_dict().items()}
        for group, kjt in self.sparse_features.items():
            multi = self.sequence_mulval_lengths.get(group)
            flat |= _sparse_to_dict(kjt, multi, sparse_dtype)
        for key, jt in self.sequence_dense_features.items():
            flat |= {f"{key}.values": jt.values(), f"{key}.lengths": jt.lengths()}
        for key, jt in self.jagged_labels.items():
            flat |= {f"{key}.values": jt.values(), f"{key}.lengths": jt.lengths()}
        flat |= self.labels | self.sample_weights | self.additional_infos
        if self.tile_size > 0:
            flat["batch_size"] = torch.tensor(self.tile_size, dtype=torch.int64)
        return flat


_TENSOR_FIELDS = (
    "dense_features",
    "sparse_features",
    "sequence_mulval_lengths",
    "sequence_dense_features",
    "labels",
    "jagged_labels",
    "sample_weights",
    "additional_infos",
)


def _pin(value: Any) -> Any:
    if not isinstance(value, KeyedTensor):
        return value.pin_memory()
    return KeyedTensor(value.keys(), value.length_per_key(), value.values().pin_memory())


def _sparse_to_dict(
    kjt: KeyedJaggedTensor, multi: KeyedJaggedTensor | None, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    flat: dict[str, Tensor] = {}
    multi_value = multi.to_dict() if multi is not None else {}
    for key, jt in kjt.to_dict().items():
        values = jt.values()
        flat[f"{key}.values"] = values.to(dtype) if dtype is not None else values
        flat[f"{key}.lengths"] = jt.lengths()
        if key in multi_value:
            flat[f"{key}.key_lengths"] = multi_value[key].values()
            flat[f"{key}.lengths"] = multi_value[key].lengths()
        weights = jt.weights_or_none()
        if weights is not None:
            flat[f"{key}.weights"] = weights
    return flat


def user_rows_of(batch: Any) -> UserRows | None:
    """Returns whose rows a batch has, if the features of users are to be repeated.

    Args:
        batch: a `Batch`; or what stands for one while a training pipeline traces, never tiled.
    """
    return batch.user_rows if isinstance(batch, Batch) else None
