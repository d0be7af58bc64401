"""Narrow embedding tables: rows as FP16, or as 8, 4 or 2 bits with a scale of their own.

Every row is checked against the bound that its own range gives. The export is then compared
with the model on the rounded rows, and the difference to the trained rows is written down.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_configs import PoolingType
from torchrec.modules.embedding_modules import (
    EmbeddingBagCollection,
    EmbeddingCollection,
    get_embedding_names_by_table,
)

from tzrec.deploy.options import ExportOptions
from tzrec.deploy.quantised import QuantisedBags, QuantisedSequences, StoredTable, Use
from tzrec.errors import ExportError

_BITS = {"FP16": 16, "INT8": 8, "INT4": 4, "INT2": 2}
# Scale and smallest value, float16 both, stand before the codes.
_HEADER = {"FP16": 0, "INT8": 4, "INT4": 4, "INT2": 4}
_TABLE_ALIGNMENT = 128  # bytes, a pair of cache lines
_CHUNK = 1 << 16  # rows that are converted at a time

# Of float16: half a unit in the last place, and half of the smallest number.
_HALF_UNIT = 2.0**-11
_HALF_SMALLEST = 2.0**-25


@dataclasses.dataclass(frozen=True)
class _Source:
    """A table that gets narrow, and where it goes."""

    name: str
    weight: nn.Parameter
    stored: StoredTable


@dataclasses.dataclass(frozen=True)
class _Swap:
    parent: nn.Module
    name: str
    wide: nn.Module
    narrow: nn.Module


class QuantisedTables:
    """The narrow tables of a model. Make them with `quantise_tables`.

    Attributes:
        report: what was done to each table, for the manifest.
    """

    def __init__(
        self, store: Tensor, sources: list[_Source], swaps: list[_Swap], report: dict[str, Any]
    ) -> None:
        self.report = report
        self._store = store
        self._sources = sources
        self._swaps = swaps

    @contextlib.contextmanager
    def in_model(self) -> Iterator[None]:
        """Lets the model look up in the narrow tables meanwhile."""
        try:
            for swap in self._swaps:
                setattr(swap.parent, swap.name, swap.narrow)
            yield
        finally:
            for swap in self._swaps:
                setattr(swap.parent, swap.name, swap.wide)

    @contextlib.contextmanager
    def rounded(self) -> Iterator[None]:
        """Gives the model's own tables the values of the narrow ones meanwhile."""
        trained = [source.weight.data for source in self._sources]
        try:
            for source in self._sources:
                chunks = [
                    _widened(_slice(self._store, source.stored, rows), source.stored.kind)
                    for rows in _chunks(source.stored.num_rows)
                ]
                source.weight.data = torch.cat(chunks)
            yield
        finally:
            for source, data in zip(self._sources, trained, strict=True):
                source.weight.data = data


def quantise_tables(model: nn.Module, options: ExportOptions) -> QuantisedTables:
    """Makes the narrow tables that ``options`` asks for; the model is left as it is.

    Args:
        model: holds TorchRec's collections anywhere. Tables that share their weight share their
            rows.
        options: ``quantisation`` is for pooled tables, ``sequence_quantisation`` for others.

    Returns:
        The tables; none where the model has none of a kind.

    Raises:
        ExportError: a dim does not fill whole 16-bit words, or a row does not become what its
            range allows: a value is not finite, or beyond float16.
    """
    found = list(_collections(model, options))
    plan = _Plan()
    uses = [plan.uses(path, child, kind) for path, _, _, child, kind in found]
    store = torch.zeros(plan.num_bytes, dtype=torch.uint8)
    report = {source.name: _fill(store, source) for source in plan.sources}
    swaps = [
        _Swap(parent, name, child, _narrow(store, child, own))
        for (_, parent, name, child, _), own in zip(found, uses, strict=True)
    ]
    return QuantisedTables(store, plan.sources, swaps, report)


def _collections(
    model: nn.Module, options: ExportOptions
) -> Iterator[tuple[str, nn.Module, str, Any, str]]:
    """Yields path, parent, name, collection and the type that its tables get."""
    for prefix, parent in model.named_modules():
        for name, child in parent.named_children():
            kind = ""
            if isinstance(child, EmbeddingBagCollection):
                kind = options.quantisation
            elif isinstance(child, EmbeddingCollection):
                kind = options.sequence_quantisation
            if kind:
                yield f"{prefix}.{name}".lstrip("."), parent, name, child, kind


class _Plan:
    """Gives every table its place in the store."""

    def __init__(self) -> None:
        self.sources: list[_Source] = []
        self.num_bytes = 0
        self._known: dict[tuple[int, str], StoredTable] = {}

    def uses(self, path: str, collection: Any, kind: str) -> list[Use]:
        """Returns the uses of a collection's tables in the order of its keys."""
        is_bag = isinstance(collection, EmbeddingBagCollection)
        configs = collection.embedding_bag_configs() if is_bag else collection.embedding_configs()
        modules = collection.embedding_bags if is_bag else collection.embeddings
        uses = []
        for config, keys in zip(configs, get_embedding_names_by_table(configs), strict=True):
            stored = self._stored(f"{path}.{config.name}", modules[config.name].weight, kind)
            pooling = config.pooling if is_bag else PoolingType.NONE
            uses += [
                Use(feature, key, stored, pooling)
                for feature, key in zip(config.feature_names, keys, strict=True)
            ]
        return uses

    def _stored(self, name: str, weight: nn.Parameter, kind: str) -> StoredTable:
        known = self._known.get((id(weight), kind))
        if known is not None:
            return known
        num_rows, dim = weight.shape
        if dim * _BITS[kind] % 16:
            raise ExportError(
                f"table {name} has rows of {dim} values, which {kind} cannot pack: "
                f"embedding_dim must be a multiple of {16 // _BITS[kind]}",
                hint="quantise to a wider type (FP16 takes any), or not at all (FP32)",
            )
        stored = StoredTable(kind, num_rows, dim, self.num_bytes)
        size = num_rows * _row_bytes(stored)
        self.num_bytes += -(-size // _TABLE_ALIGNMENT) * _TABLE_ALIGNMENT
        self.sources.append(_Source(name, weight, stored))
        self._known[id(weight), kind] = stored
        return stored


def _narrow(store: Tensor, collection: Any, uses: list[Use]) -> nn.Module:
    if isinstance(collection, EmbeddingBagCollection):
        return QuantisedBags(store, uses, is_weighted=collection.is_weighted())
    return QuantisedSequences(store, uses)


def _row_bytes(table: StoredTable) -> int:
    return _HEADER[table.kind] + table.dim * _BITS[table.kind] // 8


def _slice(store: Tensor, table: StoredTable, rows: range) -> Tensor:
    """Returns the bytes (rows, bytes of a row) of some rows; a view."""
    width = _row_bytes(table)
    first = table.offset + rows.start * width
    return store[first : first + len(rows) * width].view(len(rows), width)


def _chunks(num_rows: int) -> Iterator[range]:
    starts = range(0, num_rows, _CHUNK) if num_rows else (0,)
    return (range(start, min(start + _CHUNK, num_rows)) for start in starts)


@torch.no_grad()
def _fill(store: Tensor, source: _Source) -> dict[str, Any]:
    """Writes the rows of a table and returns its line of the report."""
    table = source.stored
    largest = 0.0
    for rows in _chunks(table.num_rows):
        values = source.weight.detach()[rows.start : rows.stop].cpu()
        place = _slice(store, table, rows)
        place.copy_(_packed(values, table.kind))
        error = (_widened(place, table.kind) - values.float()).abs()
        # NaN compares as false, so it is found too.
        if not bool((error <= _bound(values.float(), table.kind)).all()):
            raise ExportError(
                f"table {source.name} cannot be held as {table.kind}: a row loses more than its "
                f"range explains (largest value {float(values.abs().max()):g})",
                hint="are the weights finite and below 65504? else export without quantisation",
            )
        largest = max(largest, float(error.max()) if error.numel() else 0.0)
    return {
        "type": table.kind,
        "rows": table.num_rows,
        "dim": table.dim,
        "bytes": table.num_rows * _row_bytes(table),
        "trained_bytes": source.weight.numel() * source.weight.element_size(),
        "largest_error": largest,
    }


def _packed(values: Tensor, kind: str) -> Tensor:
    """Returns rows (N, dim) as bytes, header first."""
    if kind == "FP16":
        return values.half().contiguous().view(torch.uint8)
    rows = torch.ops.fbgemm.FloatOrHalfToFusedNBitRowwiseQuantizedSBHalf(
        values.contiguous(), _BITS[kind]
    )
    header = _HEADER[kind]
    return torch.cat([rows[:, -header:], rows[:, :-header]], dim=1)


def _widened(rows: Tensor, kind: str) -> Tensor:
    """Returns the values of packed rows as float32 (N, dim)."""
    if kind == "FP16":
        return rows.contiguous().view(torch.float16).float()
    header = _HEADER[kind]
    swapped = torch.cat([rows[:, header:], rows[:, :header]], dim=1)
    values: Tensor = torch.ops.fbgemm.FusedNBitRowwiseQuantizedSBHalfToFloat(swapped, _BITS[kind])
    return values


def _bound(values: Tensor, kind: str) -> Tensor:
    """Returns how far values (N, dim) may be off: half a step, and float16 of the header.

    A row's smallest value and its scale are rounded to float16; the scale's error counts as
    often as there are steps. A little is added for the float32 arithmetic.
    """
    if kind == "FP16":
        return values.abs() * _HALF_UNIT + _HALF_SMALLEST
    least, most = values.aminmax(dim=1, keepdim=True)
    steps = 2 ** _BITS[kind] - 1
    header = (least.abs() + (most - least)) * _HALF_UNIT + _HALF_SMALLEST * (1 + steps)
    return ((most - least) / steps / 2 + header) * (1 + 2.0**-8) + 2.0**-30


def summary(report: dict[str, Any]) -> str:
    """Returns a line about the tables of a report."""
    if not report:
        return "the model has no tables of the kind that is to be quantised"
    kinds = sorted({table["type"] for table in report.values()})
    after, before = (sum(t[key] for t in report.values()) for key in ("bytes", "trained_bytes"))
    tables = "1 table" if len(report) == 1 else f"{len(report)} tables"
    return (
        f"{tables} as {', '.join(kinds)}: {_size(after)} instead of {_size(before)} "
        f"({before / max(after, 1):.1f} x smaller)"
    )


def _size(num_bytes: int) -> str:
    mib = num_bytes / 2**20
    return f"{mib:,.1f} MiB" if mib >= 1 else f"{num_bytes / 2**10:,.1f} KiB"
