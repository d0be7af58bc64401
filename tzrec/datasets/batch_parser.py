"""`BatchParser`: the tensors of a batch, with the rows of its sampler."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from torch import Tensor

from tzrec.datasets.data_parser import DataParser
from tzrec.datasets.sampled import RowJoiner, Stream, without_batch
from tzrec.datasets.samplers.base import SampledRows
from tzrec.features.mask import NEG_SAMPLE_MASK, SAMPLE_MASK


def columns_of(batch: pa.RecordBatch) -> dict[str, Any]:
    """Returns column → array."""
    return dict(zip(batch.schema.names, batch.columns, strict=True))


class BatchParser:
    """Parses batches; with a sampler their columns get its rows first.

    Args:
        parser: of the columns.
        joiner: adds the rows of a sampler; None where there is none.
    """

    def __init__(self, parser: DataParser, joiner: RowJoiner | None = None) -> None:
        self.parser = parser
        self.joiner = joiner

    @property
    def input_columns(self) -> list[str]:
        """Columns of a batch that are read, mask columns among them."""
        ids = self.joiner.id_columns if self.joiner is not None else []
        names = [*self.parser.input_columns, *ids, SAMPLE_MASK, NEG_SAMPLE_MASK]
        return list(dict.fromkeys(names))

    def parse(self, batch: pa.RecordBatch, stream: Stream) -> dict[str, Tensor]:
        """Returns the tensors of a batch.

        Args:
            batch: B rows.
            stream: seeds what is drawn for it.

        Raises:
            TzrecError: as `DataParser.parse` and the sampler's ``get``.
        """
        columns = columns_of(batch)
        if self.joiner is not None:
            drawn = self.joiner.draw(columns, stream)
            columns = self.joiner.join(columns, drawn, stream)
        return self.parser.parse(columns)

    def parse_alone(self, batch: pa.RecordBatch, stream: Stream) -> dict[str, Tensor]:
        """Returns the tensors of rows without those of a sampler, which must be able to draw.

        Arguments and errors are those of `parse`.
        """
        columns = columns_of(batch)
        if self.joiner is not None:
            if batch.num_rows:
                self.joiner.draw(columns, stream)
            if SAMPLE_MASK in columns:
                columns[NEG_SAMPLE_MASK] = columns[SAMPLE_MASK]
        return self.parser.parse(columns)

    def drawn(self, batch: pa.RecordBatch, stream: Stream) -> SampledRows | None:
        """Returns the rows of its own that a sampler draws for a batch, None without such.

        Arguments and errors are those of `parse`.
        """
        if self.joiner is None:
            return None
        found = self.joiner.draw(columns_of(batch), stream)
        return found if isinstance(found, SampledRows) else None

    def drawn_columns(
        self, batch: pa.RecordBatch, drawn: SampledRows, start: int, stop: int
    ) -> dict[str, Any]:
        """Returns the columns of rows ``start`` to ``stop`` (exclusive) of ``drawn`` alone.

        Args:
            batch: has the types of all columns.
            drawn: of `drawn`.
            start: first row.
            stop: row after the last one.
        """
        assert self.joiner is not None
        nobody = columns_of(batch.slice(0, 0))
        columns = self.joiner.join(nobody, without_batch(drawn, start, stop), ())
        columns.pop(NEG_SAMPLE_MASK, None)  # a hidden value would not fail
        return columns

    def name_of(self, drawn: SampledRows, row: int) -> str:
        """Returns words for one of the drawn rows."""
        assert self.joiner is not None
        ids = drawn.columns.get(self.joiner.sampler.item_id_field)
        return f"row {row}" if ids is None else f"item {ids[row].as_py()!r}"
