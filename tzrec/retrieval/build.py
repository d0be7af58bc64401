"""Makes index directories: ``tzrec index``."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa

from tzrec.deploy.artefact import found_parts, read_manifest, verify_artefact
from tzrec.deploy.parts import ITEM, USER
from tzrec.errors import ConfigError, DataError
from tzrec.retrieval.index import Index, build_index, refuse_existing
from tzrec.retrieval.index_info import IndexOptions
from tzrec.retrieval.origin import refuse_other_model
from tzrec.retrieval.towers import (
    chosen_id_field,
    exported_tower,
    metric_of,
    part_directory,
    weights_of_export,
)
from tzrec.retrieval.vectors import USER_VECTORS, VectorTable, check_column, read_vectors

logger = logging.getLogger("tzrec")


def index_export(
    export_dir: str,
    items_path: str,
    output: str,
    options: IndexOptions,
    *,
    metric: str | None = None,
    id_field: str | None = None,
    batch_size: int | None = None,
) -> Index:
    """Makes a retriever: vectors of a table of items, their index, and the user tower beside it.

    Args:
        export_dir: an exported match model.
        items_path: table with the columns that the item tower reads, and the ids.
        output: directory, must not exist.
        options: of the index.
        metric: overrides the similarity of the model.
        id_field: column of ids; default that of the config's sampler.
        batch_size: rows of a batch.

    Raises:
        TzrecError: export, items or an argument are wrong; nothing is written then.
    """
    refuse_existing(output)
    path = Path(export_dir)
    missing = [part for part in (USER, ITEM) if part not in found_parts(path)]
    if not path.exists():
        raise ConfigError(f"{export_dir} does not exist", hint="`tzrec export` makes an export")
    if missing:
        raise ConfigError(
            f"{export_dir} has no {' and no '.join(missing)} tower",
            hint="export a match model, or give a table of vectors instead",
        )
    tower = exported_tower(part_directory(path, ITEM))
    column = chosen_id_field(tower.config, ITEM, id_field)
    ids, parts = [], []
    for vectors, rows in tower.vectors(items_path, [column], batch_size=batch_size):
        check_column(column, rows.schema.names, items_path)
        ids.append(rows.column(column))
        parts.append(vectors)
    if not ids:
        raise DataError(f"{items_path} has no rows")
    logger.info("embedded %s items", f"{sum(map(len, parts)):,}")
    options = dataclasses.replace(options, metric=metric or metric_of(tower.config))
    table = VectorTable(pa.concat_arrays(ids), np.concatenate(parts), column, tower.weights)
    return _save(table, output, options, path / USER)


def index_vectors(
    vectors_path: str,
    output: str,
    options: IndexOptions,
    *,
    metric: str | None = None,
    id_field: str | None = None,
    vector_field: str | None = None,
    user_tower: str | None = None,
) -> Index:
    """Makes an index of a table of vectors.

    Args:
        vectors_path: output of ``tzrec embed --tower item``, or any such table.
        output: directory, must not exist.
        options: of the index.
        metric: default ``ip``, with a user tower that of its model.
        id_field: column of ids, where the table does not tell.
        vector_field: column of vectors, where the table does not tell.
        user_tower: exported user tower (or the export that it is in) to put beside the index.

    Raises:
        TzrecError: the table or an argument is wrong; nothing is written then.
    """
    refuse_existing(output)
    tower = part_directory(Path(user_tower), USER) if user_tower else None
    if metric is None and tower is not None:
        metric = metric_of(exported_tower(tower).config)
    table = read_vectors(vectors_path, id_field=id_field, vector_field=vector_field)
    if table.vectors.ndim != 2:
        raise DataError(f"{vectors_path}: an item has several vectors; an index takes one each")
    options = dataclasses.replace(options, metric=metric or options.metric)
    return _save(table, output, options, tower)


def _save(table: VectorTable, output: str, options: IndexOptions, tower: Path | None) -> Index:
    if tower is not None:
        _check_tower(table, tower)
    index = build_index(
        table.ids, table.vectors, options, id_field=table.id_field, weights=table.weights
    )

    def add_tower(work: Path) -> None:
        if tower is not None:
            verify_artefact(tower)
            shutil.copytree(tower, work / USER)

    path = index.save(output, more=add_tower)
    logger.info("%s", index.info)
    beside = " with the user tower" if tower is not None else ""
    logger.info("wrote the index%s to %s", beside, path)
    return index


def _check_tower(table: VectorTable, tower: Path) -> None:
    """Refuses a user tower whose vectors cannot be compared with those of the items."""
    manifest = read_manifest(tower)
    dim, own = manifest.outputs[USER_VECTORS].shape[-1], table.vectors.shape[1]
    if dim != own:
        raise ConfigError(
            f"the user tower gives vectors of {dim} numbers, items have {own}",
            hint="both towers must come from one export",
        )
    weights = weights_of_export(manifest)
    refuse_other_model(table.weights, weights, what=f"the user tower {tower}")
    if not table.weights or not weights:
        logger.warning(
            "nothing tells whether %s and the item vectors are of one model: Parquet files of "
            "`tzrec embed` and exports of this version would",
            tower,
        )
