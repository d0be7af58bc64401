"""The golden rows: raw columns of the golden batch, kept beside the export.

They tell the types that columns had in training, so that a service that sends other ones (a
double for a float) is understood in the same way, and show on loading whether rows still become
what they were: another hash, tokenizer or version would score other ids without complaint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from tzrec.deploy.verify import take_rows
from tzrec.errors import ServingError

_MOST = 64


def save_golden_rows(path: Path, rows: pa.RecordBatch) -> None:
    """Writes the first rows of the golden batch."""
    pq.write_table(pa.Table.from_batches([rows.slice(0, _MOST)]), path)


def load_golden_rows(path: Path) -> pa.Table:
    """Reads what `save_golden_rows` wrote.

    Raises:
        ServingError: the file cannot be read.
    """
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise ServingError(f"{path} cannot be read: {error}") from error


def check_golden_rows(
    rows: pa.Table,
    golden: dict[str, Tensor],
    parse: Callable[[pa.Table], Mapping[str, Tensor] | None],
) -> None:
    """Parses the golden rows and compares them, bit by bit, with the golden batch.

    Args:
        rows: raw columns.
        golden: the parse keys that they became when the model was exported.
        parse: raw columns → parse keys.

    Raises:
        ServingError: a feature becomes something else here.
    """
    found = parse(rows) or {}
    wanted = take_rows(golden, rows.num_rows)
    for key, value in wanted.items():
        if key not in found:
            raise ServingError(f"the golden rows become no {key}: the artefact is incomplete")
        if not _same(found[key].to(value.dtype), value):
            raise ServingError(
                f"feature {key.rpartition('.')[0]!r} of the golden rows becomes something else "
                f"here than where the model was exported ({key})",
                hint="are the packages the same (tokenizers, sentencepiece, own operators)?",
            )


def _same(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors hold the same; NaN, which no model may read, is the same as NaN."""
    return left.shape == right.shape and bool(
        ((left == right) | ((left != left) & (right != right))).all()
    )
