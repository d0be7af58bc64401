"""`IndexOptions` and `IndexInfo`: how an index is built, and what it says about itself."""

from __future__ import annotations

import dataclasses

from tzrec.errors import ConfigError, did_you_mean
from tzrec.retrieval import exact, faiss_index

AUTO, FLAT, IVF, HNSW = "auto", "flat", faiss_index.IVF, faiss_index.HNSW
TYPES = (AUTO, FLAT, IVF, HNSW)


@dataclasses.dataclass(frozen=True)
class IndexOptions:
    """How an index is built.

    Attributes:
        type: ``flat`` is exact; ``ivf`` (inverted file) and ``hnsw`` (graph) are approximate
            and faster; ``auto`` is flat up to 200,000 items or without FAISS, else ivf.
        metric: ``ip`` (inner product, cosine for normalised vectors) or ``l2``.
        nlist: lists of an ivf, 0 = 4·√N.
        nprobe: lists that a search looks into, 0 = as many as reach ``recall``.
        hnsw_m: links of an item in the graph.
        ef_construction: candidates while the graph is built.
        ef_search: candidates of a search, 0 = as many as reach ``recall``.
        recall: share of the exact best 100 that a search shall find, measured on items.
    """

    type: str = AUTO
    metric: str = exact.INNER_PRODUCT
    nlist: int = 0
    nprobe: int = 0
    hnsw_m: int = 32
    ef_construction: int = 200
    ef_search: int = 0
    recall: float = 0.99

    def __post_init__(self) -> None:
        for what, value, known in (
            ("index type", self.type, TYPES),
            ("metric", self.metric, exact.METRICS),
        ):
            if value not in known:
                raise ConfigError(
                    f"{what} {value!r} is not one of {', '.join(known)}{did_you_mean(value, known)}"
                )
        for name, least in (("nlist", 0), ("nprobe", 0), ("hnsw_m", 2), ("ef_construction", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} {getattr(self, name)}: must be at least {least}")
        if not 0 < self.recall <= 1:
            raise ConfigError(f"recall {self.recall}: must be above 0 and at most 1")


@dataclasses.dataclass(frozen=True)
class IndexInfo:
    """What an index says about itself.

    Attributes:
        type: ``flat``, ``ivf`` or ``hnsw``.
        metric: ``ip`` or ``l2``.
        num_items: N.
        dim: D.
        id_field: column that the ids came from.
        parameters: those of the type; ``effort`` is what a search spends.
        recall: measured share of the exact best 100 that a search finds; 1 if it is exact.
        weights: `fingerprint` of the model that the vectors are of, empty where not known.
    """

    type: str
    metric: str
    num_items: int
    dim: int
    id_field: str = ""
    parameters: dict[str, int] = dataclasses.field(default_factory=dict)
    recall: float = 1.0
    weights: str = ""

    def __str__(self) -> str:
        told = "".join(f", {name} {value}" for name, value in self.parameters.items())
        found = "exact" if self.type == FLAT else f"finds {self.recall:.1%} of the exact best"
        return f"{self.type}: {self.num_items:,} items × {self.dim}, {self.metric}{told}; {found}"
