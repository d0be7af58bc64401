"""From vectors of users and items to the items for a user: search, service, evaluation.

Importing this package loads no torch; a name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tzrec.retrieval.evaluation import evaluate_candidates, evaluate_ranking
    from tzrec.retrieval.exact import exact_top_k
    from tzrec.retrieval.index import Index, build_index
    from tzrec.retrieval.index_info import IndexOptions
    from tzrec.retrieval.retriever import Retrieved, Retriever
    from tzrec.retrieval.row_lists import RowLists
    from tzrec.retrieval.tree_retriever import TreeRetriever

_HOMES = {
    "Index": "tzrec.retrieval.index",
    "IndexOptions": "tzrec.retrieval.index_info",
    "Retrieved": "tzrec.retrieval.retriever",
    "Retriever": "tzrec.retrieval.retriever",
    "RowLists": "tzrec.retrieval.row_lists",
    "TreeRetriever": "tzrec.retrieval.tree_retriever",
    "build_index": "tzrec.retrieval.index",
    "evaluate_candidates": "tzrec.retrieval.evaluation",
    "evaluate_ranking": "tzrec.retrieval.evaluation",
    "exact_top_k": "tzrec.retrieval.exact",
}

__all__ = [
    "Index",
    "IndexOptions",
    "Retrieved",
    "Retriever",
    "RowLists",
    "TreeRetriever",
    "build_index",
    "evaluate_candidates",
    "evaluate_ranking",
    "exact_top_k",
]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
