"""Approximate search by FAISS; the one file that imports it."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np

from tzrec.errors import MissingDependencyError, ServingError
from tzrec.retrieval.exact import L2, Found, Vectors

logger = logging.getLogger("tzrec")

IVF, HNSW = "ivf", "hnsw"
# FAISS wants so many vectors a list to find its centre; more than the latter change little.
_VECTORS_PER_LIST, _MOST_PER_LIST = 39, 64


def faiss_module() -> Any:
    """Returns FAISS.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise MissingDependencyError(
            f"approximate search needs FAISS: {error}",
            hint="pip install faiss-cpu, or use the index type flat, which is exact",
        ) from error
    return faiss


def is_installed() -> bool:
    """Returns whether FAISS can be used."""
    try:
        faiss_module()
    except MissingDependencyError:
        return False
    return True


def default_lists(num_items: int) -> int:
    """Returns a number of lists that fits: 4·√N, as many as can be trained."""
    most = max(num_items // _VECTORS_PER_LIST, 1)
    return min(max(int(4 * math.sqrt(num_items)), 1), most)


def build_ivf(vectors: Vectors, num_lists: int, metric: str) -> Any:
    """Returns an inverted file of the vectors, which are stored as they are.

    More lists than vectors become as many as there are, with a warning.
    """
    faiss = faiss_module()
    if num_lists > len(vectors):
        logger.warning("%d lists for %d vectors: taking as many", num_lists, len(vectors))
        num_lists = len(vectors)
    dim = int(vectors.shape[1])
    quantizer = faiss.IndexFlatL2(dim) if metric == L2 else faiss.IndexFlatIP(dim)
    index = faiss.IndexIVFFlat(quantizer, dim, num_lists, _metric(faiss, metric))
    # Fewer than it would like is no reason for a line on stderr.
    index.cp.min_points_per_centroid = 1
    index.cp.max_points_per_centroid = _MOST_PER_LIST
    data = np.ascontiguousarray(vectors, dtype=np.float32)
    index.train(data)
    index.add(data)
    return index


def build_hnsw(vectors: Vectors, num_links: int, ef_construction: int, metric: str) -> Any:
    """Returns a graph of near neighbours of the vectors (Malkov and Yashunin, 2016)."""
    faiss = faiss_module()
    index = faiss.IndexHNSWFlat(int(vectors.shape[1]), num_links, _metric(faiss, metric))
    index.hnsw.efConstruction = ef_construction
    index.add(np.ascontiguousarray(vectors, dtype=np.float32))
    return index


def search(index: Any, kind: str, queries: Vectors, k: int, effort: int) -> Found:
    """Searches without changing the index, so that threads may share it.

    Args:
        index: of `build_ivf` or `build_hnsw`.
        kind: ``ivf`` or ``hnsw``.
        queries: (B, D).
        k: how many.
        effort: lists to look into, or candidates to keep.
    """
    faiss = faiss_module()
    k = min(k, int(index.ntotal))
    if kind == IVF:
        parameters = faiss.SearchParametersIVF(nprobe=min(effort, int(index.nlist)))
    else:
        parameters = faiss.SearchParametersHNSW(efSearch=max(effort, k))
    data = np.ascontiguousarray(queries, dtype=np.float32)
    scores, positions = index.search(data, k, params=parameters)
    if index.metric_type == faiss.METRIC_L2:
        scores = -scores
    there = positions >= 0
    return Found(
        np.where(there, positions, -1).astype(np.int64),
        np.where(there, scores, -np.inf).astype(np.float32),
    )


def search_full(index: Any, kind: str, queries: Vectors, k: int, effort: int) -> Found:
    """Searches as `search` does, with more effort for queries that find less than k."""
    found = search(index, kind, queries, k, effort)
    lists = int(index.nlist) if kind == IVF else 0
    while effort < lists:
        short = np.flatnonzero((found.positions < 0).any(1) & np.isfinite(queries).all(1))
        if not len(short):
            break
        effort = min(2 * effort, lists)
        more = search(index, kind, queries[short], k, effort)
        found.positions[short], found.scores[short] = more.positions, more.scores
    return found


def stored_vectors(index: Any, kind: str) -> Vectors:
    """Returns the vectors (N, D) that an index was built of."""
    if kind == IVF:
        index.make_direct_map()
    return np.asarray(index.reconstruct_n(0, int(index.ntotal)), dtype=np.float32)


def save(index: Any, path: Path) -> None:
    """Writes the binary file of FAISS."""
    faiss_module().write_index(index, str(path))


def load(path: Path) -> Any:
    """Reads the binary file of FAISS.

    Raises:
        ServingError: it cannot be read.
    """
    faiss = faiss_module()
    try:
        return faiss.read_index(str(path))
    except RuntimeError as error:
        raise ServingError(f"{path} cannot be read: {error}") from error


def _metric(faiss: Any, metric: str) -> Any:
    return faiss.METRIC_L2 if metric == L2 else faiss.METRIC_INNER_PRODUCT
