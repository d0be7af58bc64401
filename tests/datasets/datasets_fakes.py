"""Features that do just enough to test what is around them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from tzrec.batch import BASE_DATA_GROUP
from tzrec.errors import FeatureError
from tzrec.features.base import FgMode
from tzrec.features.mask import hide_masked_rows


@dataclass
class FakeParsed:
    name: str
    values: np.ndarray
    lengths: np.ndarray | None = None
    key_lengths: np.ndarray | None = None
    weights: np.ndarray | None = None
    counts: None = None


@dataclass
class IdFake:
    """int column → one id a row, null → none; list column → several."""

    name: str
    num_embeddings: int = 1 << 40
    is_weighted: bool = False
    use_mask: bool = False
    data_group: str = BASE_DATA_GROUP
    is_stub: bool = False
    fg_mode: FgMode = FgMode.FG_NONE
    value_dim: int = 0
    is_sparse: bool = True
    is_sequence: bool = False
    has_embedding: bool = True
    inputs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inputs = self.inputs or [self.name]

    @property
    def id_limit(self) -> int:
        return self.num_embeddings

    def parse(self, input_data: dict[str, Any], is_training: bool = False) -> FakeParsed:
        if is_training and self.use_mask:
            input_data = hide_masked_rows(self.inputs, False, input_data)
        column = input_data[self.inputs[0]]
        rows = column.to_pylist()
        lists = [r if isinstance(r, list) else [] if r is None else [r] for r in rows]
        values = np.array([v for row in lists for v in row], dtype=np.int64)
        weights = None
        if self.is_weighted:
            weights = np.full(len(values), 2.0, dtype=np.float32)
        lengths = np.array([len(row) for row in lists], dtype=np.int32)
        return FakeParsed(self.name, values, lengths, weights=weights)


@dataclass
class DenseFake:
    """float column → (B, 1); a null is an error."""

    name: str
    use_mask: bool = False
    data_group: str = BASE_DATA_GROUP
    is_stub: bool = False
    fg_mode: FgMode = FgMode.FG_NONE
    value_dim: int = 1
    is_sparse: bool = False
    is_sequence: bool = False
    is_weighted: bool = False
    inputs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inputs = self.inputs or [self.name]

    @property
    def id_limit(self) -> int:
        return self.num_embeddings

    def parse(self, input_data: dict[str, Any], is_training: bool = False) -> FakeParsed:
        column = input_data[self.name]
        if not pa.types.is_floating(column.type):
            raise FeatureError(f"feature {self.name!r} cannot read {column.type}")
        if column.null_count:
            raise FeatureError(f"feature {self.name!r} has no default for a null", hint="set one")
        values = column.to_numpy(zero_copy_only=False).astype(np.float32)
        return FakeParsed(self.name, values.reshape(-1, self.value_dim))


@dataclass
class FixedFake:
    """Gives the same parsed data whatever the input."""

    name: str
    parsed: FakeParsed
    is_sparse: bool
    is_sequence: bool
    is_stub: bool = False
    fg_mode: FgMode = FgMode.FG_NONE
    value_dim: int = 1
    is_weighted: bool = False
    use_mask: bool = False
    data_group: str = BASE_DATA_GROUP
    num_embeddings: int = 1000
    has_embedding: bool = True
    inputs: list[str] = field(default_factory=list)

    @property
    def id_limit(self) -> int:
        return self.num_embeddings

    def parse(self, input_data: dict[str, Any], is_training: bool = False) -> FakeParsed:
        return self.parsed
