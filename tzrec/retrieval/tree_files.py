r"""The files of an item tree, in the form that ``tdm_sampler`` and servers read.

::

    node_table.txt              id:int64  weight:float  feature:string, the first one being the
                                level; a node -1 of level -1 above the root comes first
    edge_table.txt              leaf → each ancestor but the root
    predict_edge_table.txt      -1 → root, then parent → child
    node_feature/part-0.parquet id and attributes of all nodes, as columns
    serving_tree                "{levels} {children}", then "code id" of each node
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from tzrec.errors import ConfigError, DataError
from tzrec.retrieval.tree_build import VIRTUAL_NODE, Tree
from tzrec.retrieval.tree_codes import Ints
from tzrec.storage import file_system

NODE_TABLE = "node_table.txt"
EDGE_TABLE = "edge_table.txt"
PREDICT_EDGE_TABLE = "predict_edge_table.txt"
NODE_FEATURES = "node_feature/part-0.parquet"
SERVING_TREE = "serving_tree"

_VALUES = "\x1d"
_ROWS_AT_ONCE = 1 << 20


def write_tree(tree: Tree, directory: str, *, item_id_field: str, attr_delimiter: str) -> None:
    """Writes the tables of a tree; each file appears whole.

    Args:
        tree: the tree.
        directory: is made.
        item_id_field: name of the id column in ``node_feature``.
        attr_delimiter: between the attributes of a node.

    Raises:
        ConfigError: the delimiter is a tab, a line end or empty.
        DataError: a value contains the delimiter.
    """
    if not attr_delimiter or set(attr_delimiter) & set("\t\n\r"):
        raise ConfigError(f"--attr_delimiter {attr_delimiter!r} cannot stand between attributes")
    names = [f"{name}:{kind}" for name, kind in (("id", _id_type(tree)), ("weight", "float"))]
    header = [*names, "feature:string"]
    _write(posixpath.join(directory, NODE_TABLE), header, _node_rows(tree, attr_delimiter))
    kind = _id_type(tree)
    header = [f"src_id:{kind}", f"dst_id:{kind}", "weight:float"]
    _write(posixpath.join(directory, EDGE_TABLE), header, _edges_up(tree))
    _write(posixpath.join(directory, PREDICT_EDGE_TABLE), header, _edges_down(tree))
    columns = {item_id_field: tree.nodes.ids, **tree.nodes.attrs, **tree.nodes.raw_attrs}
    with _output(posixpath.join(directory, NODE_FEATURES)) as stream:
        pq.write_table(pa.table(columns), stream)


def write_serving_tree(tree: Tree, directory: str) -> None:
    """Writes ``serving_tree``, which servers walk."""
    rows = pa.record_batch([pa.array(tree.codes), tree.nodes.ids], ["code", "id"])
    with _output(posixpath.join(directory, SERVING_TREE)) as stream:
        stream.write(f"{tree.num_levels} {tree.branching}\n".encode())
        _write_rows(stream, rows, " ")


def _id_type(tree: Tree) -> str:
    return "int64" if pa.types.is_integer(tree.nodes.ids.type) else "string"


def _node_rows(tree: Tree, delimiter: str) -> Iterator[pa.RecordBatch]:
    # The node above the root has the root's attributes.
    with_virtual = np.concatenate([[0], np.arange(len(tree.codes))])
    nodes = tree.nodes.take(with_virtual)
    virtual = pa.array([str(VIRTUAL_NODE)])
    levels = pa.array(np.concatenate([[-1], tree.levels()])).cast(pa.string())
    ids = pa.concat_arrays([virtual, tree.nodes.ids.cast(pa.string())])
    texts = [levels, ids]
    for name, column in {**nodes.attrs, **nodes.raw_attrs}.items():
        texts.append(_text(name, column, delimiter))
    feature = pc.binary_join_element_wise(*texts, delimiter)
    weight = pa.array(np.full(len(ids), "1.0"))
    yield pa.record_batch([ids, weight, feature], ["id", "weight", "feature"])


def _text(name: str, column: pa.Array, delimiter: str) -> pa.Array:
    r"""Returns values as text: null is empty, several values are joined by ``\x1d``."""
    if pa.types.is_map(column.type):
        texts = pc.binary_join_element_wise(
            column.keys.cast(pa.string()), column.items.cast(pa.string()), ":"
        )
        column = pa.ListArray.from_arrays(column.offsets, texts)
    if pa.types.is_list(column.type):
        column = pc.binary_join(column.cast(pa.list_(pa.string())), _VALUES)
    column = column.cast(pa.string()).fill_null("")
    for sign, what in ((delimiter, "the attr_delimiter"), ("\t", "a tab"), ("\n", "a line end")):
        found = pc.match_substring(column, sign)
        if pc.any(found).as_py():
            value = column.filter(found)[0].as_py()
            raise DataError(
                f"attribute {name!r} has the value {value!r}, which contains {what}",
                hint="choose another --attr_delimiter, and set it in tdm_sampler too"
                if sign == delimiter
                else "",
            )
    return column


def _edges_up(tree: Tree) -> Iterator[pa.RecordBatch]:
    """Yields leaf → ancestors, leaf by leaf, from the lowest level with several nodes down."""
    parents = tree.parents()
    first, last = int(tree.level_starts[-2]), len(tree.codes)
    height = tree.num_levels - 2
    step = max(_ROWS_AT_ONCE // max(height, 1), 1)
    for start in range(first, last, step) if height > 0 else ():
        leaves = np.arange(start, min(start + step, last))
        above = np.empty((len(leaves), height), np.int64)
        nodes = leaves
        for level in reversed(range(height)):
            nodes = parents[nodes]
            above[:, level] = nodes
        yield _edge_rows(tree, leaves.repeat(height), above.ravel())


def _edges_down(tree: Tree) -> Iterator[pa.RecordBatch]:
    root = _edge_rows(tree, np.zeros(1, np.int64), np.zeros(1, np.int64))
    virtual = pa.array([VIRTUAL_NODE]).cast(root.column(0).type)
    yield root.set_column(0, "src", virtual)
    yield _edge_rows(tree, tree.parents()[1:], np.arange(1, len(tree.codes)))


def _edge_rows(tree: Tree, sources: Ints, targets: Ints) -> pa.RecordBatch:
    ids = tree.nodes.ids
    columns = [ids.take(pa.array(sources)), ids.take(pa.array(targets))]
    weight = pa.array(np.full(len(sources), "1.0"))
    return pa.record_batch([*columns, weight], ["src", "dst", "weight"])


def _write(path: str, header: list[str], batches: Iterator[pa.RecordBatch]) -> None:
    with _output(path) as stream:
        stream.write(("\t".join(header) + "\n").encode())
        for batch in batches:
            _write_rows(stream, batch, "\t")


def _write_rows(stream: Any, rows: pa.RecordBatch, delimiter: str) -> None:
    if not rows.num_rows:
        return
    options = pa_csv.WriteOptions(
        include_header=False, delimiter=delimiter, quoting_style="none", batch_size=1 << 16
    )
    pa_csv.write_csv(rows, stream, options)


class _output:  # noqa: N801
    """A file that appears under its name when it is complete."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._system, self._inner = file_system(path)
        head, _, tail = self._inner.rpartition("/")
        self._partial = f"{head}/.{tail}.partial" if head else f".{tail}.partial"

    def __enter__(self) -> IO[Any]:
        folder = posixpath.dirname(self._inner)
        if folder:
            self._system.makedirs(folder, exist_ok=True)
        self._stream = self._system.open(self._partial, "wb")
        return self._stream

    def __exit__(self, kind: object, *_: object) -> None:
        self._stream.close()
        if kind is None:
            self._system.mv(self._partial, self._inner)
        else:
            self._system.rm(self._partial)
