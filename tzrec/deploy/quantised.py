"""Lookups in narrow tables, by the kernels that FBGEMM has for inference on the CPU.

`QuantisedBags` and `QuantisedSequences` stand where TorchRec's collections stood: same keys in the
same order, float32 rows out. All tables of a model lie in one tensor of bytes; a row is its
scale and its smallest value as float16 (not for FP16 tables), then its codes.
No ``from __future__ import annotations`` here: TorchScript reads the annotations.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Dict, List, Optional  # noqa: UP035 (TorchScript)

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_configs import PoolingType

from tzrec.batch import JaggedTensor, KeyedJaggedTensor, KeyedTensor

# Numbers of FBGEMM.
_TYPES = {"FP16": 1, "INT8": 2, "INT4": 3, "INT2": 4}
_ON_HOST = 3
_POOLINGS = {PoolingType.SUM: 0, PoolingType.MEAN: 1}
_NO_POOLING = 2


@dataclasses.dataclass(frozen=True)
class StoredTable:
    """Where the rows of a table lie.

    Attributes:
        kind: ``FP16``, ``INT8``, ``INT4`` or ``INT2``.
        num_rows: rows.
        dim: columns.
        offset: first byte in the store.
    """

    kind: str
    num_rows: int
    dim: int
    offset: int


@dataclasses.dataclass(frozen=True)
class Use:
    """A feature that looks rows up.

    Attributes:
        feature: key in the input.
        key: key in the output.
        table: where its rows are.
        pooling: how the rows of its ids become one.
    """

    feature: str
    key: str
    table: StoredTable
    pooling: PoolingType = PoolingType.SUM


@torch.fx.wrap
def look_up(
    ids: Tensor,
    lengths: Tensor,
    weights: Optional[Tensor],  # noqa: UP045
    store: Tensor,
    tables: List[Tensor],  # noqa: UP006
    sizes: List[int],  # noqa: UP006
    pooling: int,
) -> Tensor:
    """Returns rows of narrow tables as float32.

    Args:
        ids: of all uses, one use after another.
        lengths: ids per row (uses * B,).
        weights: of the ids, None = all 1.
        store: bytes of all tables.
        tables: per use: placement, offset, type, rows; then where its columns start; a counter.
        sizes: columns in total, then the widest table of INT2, INT4, INT8, FP16.
        pooling: number of FBGEMM.

    Returns:
        (B, columns of all uses) when pooled, else (ids, columns of a table).
    """
    # Ids below 0 become large ones, as the check lets -1 pass.
    ids = torch.bitwise_and(ids.to(torch.int64), 9223372036854775807)
    offsets = torch.ops.fbgemm.asynchronous_complete_cumsum(lengths).to(torch.int64)
    # Mode 0 raises; the lookup itself would read the rows of the table that follows.
    torch.ops.fbgemm.bounds_check_indices(tables[3], ids, offsets, 0, tables[5])
    return torch.ops.fbgemm.int_nbit_split_embedding_codegen_lookup_function(
        store,
        store[:0],
        tables[0],
        tables[1],
        tables[2],
        tables[4],
        sizes[0],
        sizes[1],
        sizes[2],
        sizes[3],
        sizes[4],
        0,
        ids,
        offsets,
        pooling,
        weights,
        0,
        None,
        None,
        1,
    )


class _Lookup(nn.Module):
    """One call of the kernel.

    Args:
        store: bytes of all tables.
        uses: features, in the order of the result.
        pooling: number of FBGEMM.
    """

    store: Tensor
    placements: Tensor
    offsets: Tensor
    types: Tensor
    num_rows: Tensor
    starts: Tensor
    wrong_ids: Tensor

    def __init__(self, store: Tensor, uses: Sequence[Use], *, pooling: int) -> None:
        super().__init__()
        tables = [use.table for use in uses]
        dims = [table.dim for table in tables]
        widest = [
            max([t.dim for t in tables if t.kind == kind], default=0)
            for kind in ("INT2", "INT4", "INT8", "FP16")
        ]
        self._sizes = [sum(dims), *widest]
        self._pooling = pooling

        def buffer(name: str, values: list[int], dtype: torch.dtype) -> None:
            self.register_buffer(name, torch.tensor(values, dtype=dtype))

        self.register_buffer("store", store)
        buffer("placements", [_ON_HOST] * len(tables), torch.int32)
        buffer("offsets", [table.offset for table in tables], torch.int64)
        buffer("types", [_TYPES[table.kind] for table in tables], torch.uint8)
        buffer("num_rows", [table.num_rows for table in tables], torch.int64)
        buffer("starts", [0, *itertools.accumulate(dims)], torch.int32)
        buffer("wrong_ids", [0], torch.int64)

    def forward(
        self,
        ids: Sequence[Tensor],
        lengths: Sequence[Tensor],
        weights: Optional[Sequence[Tensor]] = None,  # noqa: UP045
    ) -> Tensor:
        """Returns the rows of the ids of each use; see `look_up`."""
        tables = [
            self.placements,
            self.offsets,
            self.types,
            self.num_rows,
            self.starts,
            self.wrong_ids,
        ]
        found: Tensor = look_up(
            torch.cat(list(ids)),
            torch.cat(list(lengths)),
            torch.cat(list(weights)) if weights is not None else None,
            self.store,
            tables,
            self._sizes,
            self._pooling,
        )
        return found


class QuantisedBags(nn.Module):
    """Pooled lookups in narrow tables; stands for an `EmbeddingBagCollection`.

    Args:
        store: bytes of all tables.
        uses: features in the order of the collection's keys.
        is_weighted: rows are multiplied by weights.
    """

    def __init__(self, store: Tensor, uses: Sequence[Use], *, is_weighted: bool) -> None:
        super().__init__()
        self._is_weighted = is_weighted
        self._keys = [use.key for use in uses]
        self._dims = [use.table.dim for use in uses]
        poolings = list(dict.fromkeys(use.pooling for use in uses))
        groups = [[i for i, use in enumerate(uses) if use.pooling == p] for p in poolings]
        self.lookups = nn.ModuleList(
            _Lookup(store, [uses[i] for i in group], pooling=_POOLINGS[p])
            for p, group in zip(poolings, groups, strict=True)
        )
        self._names = [[uses[i].feature for i in group] for group in groups]
        # A kernel pools in one way: results of several are put back into order, run by run.
        runs = list(_runs(groups))
        self._widths = [[sum(self._dims[i] for i in run) for run in of_one] for of_one in runs]
        places = sorted((run[0], g, r) for g, of_one in enumerate(runs) for r, run in
                        enumerate(of_one))  # fmt: skip
        self._places = [(g, r) for _, g, r in places]

    def forward(self, features: KeyedJaggedTensor) -> KeyedTensor:
        """Returns the rows (B, columns of all keys)."""
        by_name = features.to_dict()
        found = []
        for lookup, names in zip(self.lookups, self._names, strict=True):
            used = [by_name[name] for name in names]
            weights = [ids.weights() for ids in used] if self._is_weighted else None
            found.append(lookup([i.values() for i in used], [i.lengths() for i in used], weights))
        values = found[0]
        if len(found) > 1:
            parts = [f.split(widths, dim=1) for f, widths in zip(found, self._widths, strict=True)]
            values = torch.cat([parts[g][r] for g, r in self._places], dim=1)
        return KeyedTensor(keys=self._keys, length_per_key=self._dims, values=values)


class QuantisedSequences(nn.Module):
    """Lookups in narrow tables of one dim, not pooled; stands for an `EmbeddingCollection`.

    Args:
        store: bytes of all tables.
        uses: features in the order of the tables.
    """

    def __init__(self, store: Tensor, uses: Sequence[Use]) -> None:
        super().__init__()
        self._keys = [use.key for use in uses]
        self._names = [use.feature for use in uses]
        self.lookup = _Lookup(store, uses, pooling=_NO_POOLING)

    def forward(self, features: KeyedJaggedTensor) -> Dict[str, JaggedTensor]:  # noqa: UP006
        """Returns key → rows (ids, dim) and ids per row."""
        by_name = features.to_dict()
        used = [by_name[name] for name in self._names]
        ids, lengths = [i.values() for i in used], [i.lengths() for i in used]
        rows = self.lookup(ids, lengths).split([values.size(0) for values in ids])
        return {
            key: JaggedTensor(values=rows[i], lengths=lengths[i])
            for i, key in enumerate(self._keys)
        }


def _runs(groups: Sequence[Sequence[int]]) -> Sequence[list[list[int]]]:
    """Cuts every group of positions into runs of neighbours."""
    cut = []
    for group in groups:
        runs: list[list[int]] = []
        for i in group:
            if runs and runs[-1][-1] == i - 1:
                runs[-1].append(i)
            else:
                runs.append([i])
        cut.append(runs)
    return cut
