"""Vectors of a whole table: ``tzrec embed``."""

from __future__ import annotations

from collections.abc import Sequence

from tzrec.deploy.commands import PredictRequest, predict_input, prediction_config, split_names
from tzrec.options import from_environment
from tzrec.retrieval.origin import WEIGHTS
from tzrec.retrieval.outputs import OutputFiles
from tzrec.retrieval.ranks import together
from tzrec.retrieval.towers import chosen_id_field, load_tower


def embed(
    model: str,
    tower: str,
    input_path: str,
    output_path: str,
    *,
    id_field: str | None = None,
    reserved_columns: str | None = None,
    batch_size: int | None = None,
    dataset_type: str | None = None,
    writer_type: str | None = None,
    checkpoint_path: str | None = None,
    edits: Sequence[str] = (),
    overwrite: bool = False,
) -> None:
    """Writes the vectors of users or items, with their ids.

    Parquet files also tell which model the vectors are of, see `tzrec.retrieval.origin`.

    Args:
        model: exported directory, or the config or directory of a run.
        tower: ``user`` or ``item``.
        input_path: table with the columns that the tower reads, and the ids.
        output_path: directory for ``part-{rank}``.
        id_field: column of ids; default that of the config's sampler.
        reserved_columns: comma list of further columns to keep.
        batch_size: rows of a batch.
        dataset_type: overrides the config's reader.
        writer_type: ``CsvWriter`` or ``ParquetWriter`` (the default).
        checkpoint_path: of a run: ``latest``, ``best`` or a directory.
        edits: of a run: config edits as ``a.b.c=v``.
        overwrite: replace ``part-*`` files that are there.

    Raises:
        TzrecError: model, input or an argument are wrong; nothing is written then.
    """
    options = from_environment()
    files = OutputFiles(output_path, input_path, options=options, overwrite=overwrite)
    loaded = load_tower(model, tower, checkpoint_path=checkpoint_path, edits=edits)
    ids = chosen_id_field(loaded.config, tower, id_field)
    config = prediction_config(loaded.config, batch_size, dataset_type, None)
    kept = list(dict.fromkeys([ids, *split_names(reserved_columns)]))
    request = PredictRequest(
        input_path,
        output_path,
        reserved_columns=",".join(kept),
        output_columns=loaded.output,
        writer_type=writer_type or "ParquetWriter",
        metadata={WEIGHTS: loaded.weights} if loaded.weights else {},
    )
    with together(options):
        written = predict_input(
            config, loaded.features, lambda batch: dict(loaded.forward(batch)), request
        )
    files.remove_left(written)
