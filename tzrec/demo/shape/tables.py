"""The tables that samplers draw from: items, users, who took what and who did not want it."""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from tzrec.config.messages import which_field
from tzrec.demo.shape import trees
from tzrec.demo.shape.roles import sampler_of
from tzrec.demo.shape.shape import Shape
from tzrec.errors import ConfigError
from tzrec.fg.spec import MULTIVAL_SEP
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.storage import open_file

ITEMS, USERS, POSITIVES, UNWANTED = "items", "users", "positives", "unwanted"
# Field of a sampler → the table that it names.
_FIELDS = {
    "input_path": ITEMS,
    "item_input_path": ITEMS,
    "user_input_path": USERS,
    "pos_edge_input_path": POSITIVES,
    "hard_neg_edge_input_path": UNWANTED,
}
_SUFFIXES = (".parquet", ".csv")
_TEXT = ".txt"
_SEEN = 6
_SEED = 20240104
# Name of the weights until they are written.
_WEIGHT = "(weight)"
_WEIGHT_DIGITS = 4


@dataclasses.dataclass(frozen=True)
class Table:
    """A table that was written.

    Attributes:
        field: of the config, that names it.
        path: its file.
        rows: how many it has.
    """

    field: str
    path: str
    rows: int


def table_names(config: EasyRecConfig) -> list[str]:
    """Returns the file names of the tables that a config's sampler needs."""
    if trees.has_tree(config):
        return [*trees.TREE_FILES.values(), trees.NODE_FEATURES]
    return [f"{table}{suffix}" for _, table, suffix in _wanted(config)]


def write_tables(
    config: EasyRecConfig, shape: Shape, folder: str, positives: pa.Table
) -> list[Table]:
    """Writes the tables that a config's sampler needs.

    They are text with a typed header, or Parquet or CSV with named columns where the config's
    own paths end so.

    Args:
        config: a checked config.
        shape: its rows.
        folder: directory that gets the files.
        positives: who took what, (user, item) of rows.

    Raises:
        ConfigError: a value contains the separator of the text table.
        DataError: the same of a tree.
    """
    if trees.has_tree(config):
        found = trees.write_tables(config, shape, folder)
        return [Table(f"data_config.tdm_sampler.{field}", *at) for field, at in found.items()]
    sampler = sampler_of(config)
    here = f"data_config.{which_field(config.data_config, 'sampler')}"
    written = []
    for field, name, suffix in _wanted(config):
        table = _MAKERS[name](sampler, shape, positives)
        path = posixpath.join(folder, f"{name}{suffix}")
        if suffix == _TEXT:
            _write_text(_typed(table, sampler, name), path, sampler.field_delimiter or "\t")
        else:
            _write_named(_named(table, sampler), path, suffix)
        written.append(Table(f"{here}.{field}", path, table.num_rows))
    return written


def _wanted(config: EasyRecConfig) -> Iterator[tuple[str, str, str]]:
    """Yields (field, table, suffix) of what a sampler names."""
    sampler = sampler_of(config)
    for field, name in _FIELDS.items():
        if sampler is None or field not in sampler.DESCRIPTOR.fields_by_name:
            continue
        path = str(getattr(sampler, field))
        yield field, name, next((s for s in _SUFFIXES if path.endswith(s)), _TEXT)


def _items(sampler: Any, shape: Shape, positives: pa.Table) -> pa.Table:
    """Returns ids, weights, attributes."""
    del positives
    assert shape.world is not None
    columns = shape.item_columns()
    weights = shape.world.tastes.weights
    found = {
        sampler.item_id_field: columns[shape.world.roles.item_id],
        _WEIGHT: pa.array(np.round(weights / weights.min(), _WEIGHT_DIGITS)),
    }
    nothing = pa.nulls(len(weights), pa.string())
    for name in sampler.attr_fields:
        found.setdefault(name, columns.get(name, nothing))
    return pa.table(found)


def _users(sampler: Any, shape: Shape, positives: pa.Table) -> pa.Table:
    """Returns ids and equal weights."""
    del positives
    ids = shape.user_ids()
    return pa.table({sampler.user_id_field: ids, _WEIGHT: pa.array(np.ones(len(ids)))})


def _positives(sampler: Any, shape: Shape, positives: pa.Table) -> pa.Table:
    """Returns users, items and how often they took them."""
    del shape
    names = [sampler.user_id_field, sampler.item_id_field]
    pairs = positives.rename_columns(names).append_column("one", pa.array(_ones(positives)))
    found = pairs.group_by(names, use_threads=False).aggregate([("one", "sum")])
    return found.rename_columns([*names, _WEIGHT])


def _unwanted(sampler: Any, shape: Shape, positives: pa.Table) -> pa.Table:
    """Returns users and popular items of kinds that do not interest them."""
    del positives
    assert shape.world is not None
    rng = np.random.default_rng(_SEED)
    users, items = shape.world.tastes.unwanted(_SEEN, rng)
    ids = shape.item_columns()[shape.world.roles.item_id]
    found = pa.table(
        {
            sampler.user_id_field: shape.user_ids().take(pa.array(users)),
            sampler.item_id_field: ids.take(pa.array(items)),
        }
    )
    return found.append_column(_WEIGHT, pa.array(_ones(found)))


_MAKERS = {ITEMS: _items, USERS: _users, POSITIVES: _positives, UNWANTED: _unwanted}


def _ones(table: pa.Table) -> np.ndarray:
    return np.ones(table.num_rows)


def _named(table: pa.Table, sampler: Any) -> pa.Table:
    """Returns a table of named columns, with weights where the config reads them."""
    if not sampler.weight_field:
        return table.drop_columns([_WEIGHT])
    names = [sampler.weight_field if n == _WEIGHT else n for n in table.column_names]
    return table.rename_columns(names)


def _typed(table: pa.Table, sampler: Any, name: str) -> pa.Table:
    """Returns a table whose header tells types, attributes joined to one column."""
    ids = ["id"] if name in (ITEMS, USERS) else ["userid", "itemid"]
    found = {
        f"{header}:{'int64' if pa.types.is_integer(column.type) else 'string'}": column
        for header, column in zip(ids, table.columns[: len(ids)], strict=True)
    }
    found["weight:float"] = table[_WEIGHT]
    if name == ITEMS:
        found["attrs:string"] = _joined(table, sampler)
    return pa.table(found)


def _joined(table: pa.Table, sampler: Any) -> pa.Array:
    """Returns the attributes of each row as one text."""
    texts = []
    for name in sampler.attr_fields:
        text = as_text(table[name].combine_chunks())
        if pc.any(pc.match_substring(text, sampler.attr_delimiter)).as_py():
            raise ConfigError(
                f"attr_delimiter is {sampler.attr_delimiter!r}, which values of {name!r} contain",
                hint=r'set attr_delimiter: "\x02"',
            )
        texts.append(text)
    return pc.binary_join_element_wise(*texts, sampler.attr_delimiter) if texts else pa.nulls(0)


def as_text(column: pa.Array) -> pa.Array:
    r"""Returns a column as attributes are written: several values with ``\x1d`` between."""
    if pa.types.is_map(column.type):
        pairs = pc.binary_join_element_wise(
            column.keys.cast(pa.string()), column.items.cast(pa.string()), ":"
        )
        column = pa.ListArray.from_arrays(column.offsets, pairs)
    if pa.types.is_list(column.type):
        words = pa.ListArray.from_arrays(column.offsets, column.values.cast(pa.string()))
        column = pc.binary_join(words, MULTIVAL_SEP)
    return pc.fill_null(column.cast(pa.string()), "")


def _write_text(table: pa.Table, path: str, delimiter: str) -> None:
    options = pa_csv.WriteOptions(include_header=False, delimiter=delimiter, quoting_style="none")
    with open_file(path, "wb") as sink:
        sink.write((delimiter.join(table.column_names) + "\n").encode())
        try:
            pa_csv.write_csv(table, sink, options)
        except pa.ArrowInvalid as error:
            raise ConfigError(
                f"field_delimiter is {delimiter!r}: {error}",
                hint="take another one, or name a table that ends in .parquet",
            ) from error


def _write_named(table: pa.Table, path: str, suffix: str) -> None:
    with open_file(path, "wb") as sink:
        if suffix == ".parquet":
            pq.write_table(table, sink)
            return
        nested = {n: table[n] for n in table.column_names if pa.types.is_nested(table[n].type)}
        for name, column in nested.items():
            index = table.column_names.index(name)
            table = table.set_column(index, name, as_text(column.combine_chunks()))
        pa_csv.write_csv(table, sink)
