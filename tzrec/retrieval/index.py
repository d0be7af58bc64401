"""The index: item vectors that are searched, and a directory that holds them.

::

    index.json       type, metric, sizes, parameters, measured recall, checksum of each file
    ids.parquet      column ``id``: row i is the id of position i
    vectors.npy      type flat: the vectors, (N, D) float32
    faiss_index      types ivf and hnsw: the binary file of FAISS
    user/            in a retriever: the exported user tower
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tzrec.errors import ConfigError, DataError, ServingError
from tzrec.retrieval import faiss_index, merge
from tzrec.retrieval.exact import Found, Vectors, as_interests, check_finite, exact_top_k
from tzrec.retrieval.ids import ItemIds, plain_ids
from tzrec.retrieval.index_files import (
    FAISS_FILE,
    IDS,
    INDEX_JSON,
    VECTORS,
    local_path,
    refuse_existing,
    verified_info,
    write_info,
)
from tzrec.retrieval.index_info import AUTO, FLAT, IVF, IndexInfo, IndexOptions
from tzrec.retrieval.row_lists import RowLists

logger = logging.getLogger("tzrec")

# Below, an exact search of one query takes a few milliseconds.
_EXACT_UP_TO = 200_000
_RECALL_AT, _RECALL_QUERIES = 100, 256


class Index:
    """Item vectors to search; threads may share one. Made by `build_index` or `load`.

    Attributes:
        info: what it is.
        ids: ids by position.
    """

    def __init__(self, info: IndexInfo, ids: ItemIds, searched: Any) -> None:
        self.info = info
        self.ids = ids
        self._searched = searched

    def __len__(self) -> int:
        return self.info.num_items

    @functools.cached_property
    def vectors(self) -> Vectors:
        """The item vectors (N, D)."""
        if self.info.type == FLAT:
            return np.asarray(self._searched)
        return faiss_index.stored_vectors(self._searched, self.info.type)

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        exclude: RowLists | None = None,
        is_exact: bool = False,
    ) -> Found:
        """Returns the best k items of each query, best first.

        Args:
            queries: (B, D), or (B, I, D): an item's score is the best over the I interests.
                Vectors of zeros find nothing.
            k: how many.
            exclude: positions that a query must not find.
            is_exact: compare with every item, whatever the type.

        Raises:
            DataError: the queries have another shape than (B, D) and (B, I, D).
            ConfigError: k is not at least 1.
        """
        three = as_interests(queries)
        if three.ndim != 3:
            raise DataError(
                f"queries have the shape {np.shape(queries)}, not (B, D) or (B, I, D)",
                hint="one vector is a batch of one: vector[None]",
            )
        if k < 1:
            raise ConfigError(f"k is {k}, must be at least 1")
        if three.shape[2] != self.info.dim:
            raise DataError(
                f"queries have {three.shape[2]} numbers, items have {self.info.dim}",
                hint="both towers must come from one export",
            )
        if self.info.type == FLAT or is_exact:
            return exact_top_k(three, self.vectors, k, metric=self.info.metric, exclude=exclude)
        return self._approximate(three, k, exclude)

    def _approximate(self, queries: Vectors, k: int, exclude: RowLists | None) -> Found:
        B, interests, D = queries.shape
        longest = int(exclude.lengths.max(initial=0)) if exclude is not None else 0
        flat = queries.reshape(-1, D)
        effort = self.info.parameters["effort"]
        found = faiss_index.search_full(self._searched, self.info.type, flat, k + longest, effort)
        nowhere = ~flat.any(1)
        found.positions[nowhere], found.scores[nowhere] = -1, -np.inf
        if interests > 1:
            found = merge.merge_interests(found, B, k + longest)
        if exclude is None:
            return found
        return merge.keep(found, ~exclude.contains(found.positions) & (found.positions >= 0), k)

    def save(self, directory: str | Path, *, more: Callable[[Path], None] | None = None) -> Path:
        """Writes the index; the directory appears when it is whole.

        Args:
            directory: must not exist.
            more: called with the unfinished directory, to add files.

        Raises:
            ConfigError: the directory exists.
        """
        target = refuse_existing(directory)
        target.parent.mkdir(parents=True, exist_ok=True)
        work = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        shutil.rmtree(work, ignore_errors=True)
        try:
            work.mkdir()
            pq.write_table(pa.table({"id": self.ids.values}), work / IDS)
            if self.info.type == FLAT:
                np.save(work / VECTORS, np.ascontiguousarray(self.vectors, dtype=np.float32))
            else:
                faiss_index.save(self._searched, work / FAISS_FILE)
            if more is not None:
                more(work)
            write_info(work, self.info)
            refuse_existing(target)
            work.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return target

    @classmethod
    def load(cls, directory: str | Path) -> Index:
        """Reads what `save` wrote; flat vectors are mapped, not read.

        Raises:
            ConfigError: the path is not local.
            ServingError: it is no index, an incomplete copy of one, or files of several.
            MissingDependencyError: it needs FAISS, which is not installed.
        """
        path = local_path(directory)
        info = verified_info(path)
        try:
            ids = ItemIds(pq.read_table(path / IDS).column("id"))
        except (pa.ArrowException, OSError, KeyError, DataError) as error:
            raise _unreadable(path / IDS, error) from error
        if len(ids) != info.num_items:
            raise ServingError(f"{path / IDS} has {len(ids)} ids, the index {info.num_items}")
        if info.type != FLAT:
            searched = faiss_index.load(path / FAISS_FILE)
            shape: tuple[int, ...] = (int(searched.ntotal), int(searched.d))
        else:
            try:
                searched = np.load(path / VECTORS, mmap_mode="c")
            except (ValueError, OSError) as error:
                raise _unreadable(path / VECTORS, error) from error
            shape = searched.shape
        if shape != (info.num_items, info.dim):
            raise ServingError(
                f"{path} has vectors of shape {shape}, its {INDEX_JSON} says "
                f"{(info.num_items, info.dim)}"
            )
        return cls(info, ids, searched)


def _unreadable(path: Path, error: Exception) -> ServingError:
    return ServingError(f"{path} cannot be read: {error}", hint="copy the index again")


def build_index(
    ids: pa.Array,
    vectors: Vectors,
    options: IndexOptions | None = None,
    *,
    id_field: str = "",
    weights: str = "",
) -> Index:
    """Builds an index.

    Of rows with the same id the last one counts, with a warning. The effort of an approximate
    search is the smallest power of two that finds ``options.recall`` of the exact best 100 of
    256 items, unless it is given; what it finds is kept in `IndexInfo.recall`.

    Args:
        ids: integers or strings.
        vectors: (N, D).
        options: how.
        id_field: column that the ids came from.
        weights: `fingerprint` of the model that the vectors are of.

    Raises:
        DataError: there is no item, ids and vectors do not fit, or a vector is not finite.
        MissingDependencyError: the type needs FAISS, which is not installed.
    """
    options = options or IndexOptions()
    ids = plain_ids(ids, "item ids")
    if vectors.ndim != 2 or len(vectors) != len(ids):
        raise DataError(f"{len(ids)} item ids, and vectors of shape {vectors.shape}")
    if not len(ids):
        raise DataError("there are no items to build an index of")
    ids, vectors = _last_of_each(ids, np.asarray(vectors, dtype=np.float32))
    check_finite(vectors, "item vectors")
    started = time.monotonic()
    kind = _choose_type(options, len(ids))
    N, D = vectors.shape
    info = IndexInfo(kind, options.metric, N, D, id_field, weights=weights)
    if kind == FLAT:
        return Index(info, ItemIds(ids), vectors)
    searched, parameters, most = _build(vectors, options, kind)
    logger.info("built %s of %d items in %.1f s", kind, len(ids), time.monotonic() - started)
    chosen = options.nprobe if kind == IVF else options.ef_search
    effort, recall = _tune(searched, kind, vectors, options, (chosen, most))
    info = dataclasses.replace(info, parameters=parameters | {"effort": effort}, recall=recall)
    return Index(info, ItemIds(ids), searched)


def _choose_type(options: IndexOptions, num_items: int) -> str:
    if options.type != AUTO:
        return options.type
    if num_items <= _EXACT_UP_TO:
        return FLAT
    if not faiss_index.is_installed():
        logger.warning("FAISS is not installed: the index is flat, searches are exact but slow")
        return FLAT
    return IVF


def _build(vectors: Vectors, options: IndexOptions, kind: str) -> tuple[Any, dict[str, int], int]:
    """Returns the index of FAISS, its parameters, and the largest effort of a search."""
    if kind == IVF:
        nlist = options.nlist or faiss_index.default_lists(len(vectors))
        built = faiss_index.build_ivf(vectors, nlist, options.metric)
        return built, {"nlist": int(built.nlist)}, int(built.nlist)
    built = faiss_index.build_hnsw(vectors, options.hnsw_m, options.ef_construction, options.metric)
    return built, {"m": options.hnsw_m, "ef_construction": options.ef_construction}, 4096


def _tune(
    searched: Any, kind: str, vectors: Vectors, options: IndexOptions, effort: tuple[int, int]
) -> tuple[int, float]:
    """Returns the effort of a search and the recall that it was measured to have."""
    chosen, most = effort
    rng = np.random.default_rng(0)
    size = min(_RECALL_QUERIES, len(vectors))
    queries = vectors[np.sort(rng.choice(len(vectors), size, replace=False))]
    k = min(_RECALL_AT, len(vectors))
    right = RowLists.of(exact_top_k(queries, vectors, k, metric=options.metric).positions)
    total = max(len(right.values), 1)
    spent = chosen or (1 if kind == IVF else 64)
    while True:
        found = faiss_index.search(searched, kind, queries, k, spent)
        recall = float(right.contains(found.positions).sum()) / total
        if chosen or recall >= options.recall or spent >= most:
            break
        spent = min(2 * spent, most)
    if recall < options.recall:
        logger.warning(
            "the %s index finds %.1f %% of the exact best %d, not %.1f %%",
            kind, 100 * recall, k, 100 * options.recall,
        )  # fmt: skip
    return spent, recall


def _last_of_each(ids: pa.Array, vectors: Vectors) -> tuple[pa.Array, Vectors]:
    codes = np.asarray(ids.dictionary_encode().indices)
    distinct = int(codes.max()) + 1
    if distinct == len(ids):
        return ids, vectors
    last = np.empty(distinct, np.int64)
    last[codes] = np.arange(len(ids))
    last.sort()
    logger.warning(
        "%s ids occur more than once, as %s: of each the last row counts, %s rows are left out",
        f"{int((np.bincount(codes) > 1).sum()):,}",
        ids[int((np.bincount(codes)[codes] > 1).argmax())],
        f"{len(ids) - distinct:,}",
    )
    return ids.take(pa.array(last)), vectors[last]
