"""`Servable`: one loaded version of whatever can be served."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tzrec.datasets.data_parser import DataParser
from tzrec.deploy import artefact
from tzrec.deploy.debug_text import features_text
from tzrec.deploy.golden_rows import load_golden_rows
from tzrec.deploy.parts import EMBEDDING, ITEM, MODEL, USER
from tzrec.deploy.predictor import Predictor
from tzrec.errors import ServingError
from tzrec.retrieval.index_files import INDEX_JSON
from tzrec.retrieval.retriever import Retrieved, Retriever
from tzrec.retrieval.tree_files import NODE_TABLE
from tzrec.retrieval.tree_retriever import TreeRetriever
from tzrec.serving.schema import Output, Signature, signature_of

PREDICT, RETRIEVE, EMBED = "predict", "retrieve", "embed"
ITEM_IDS, SCORES = "item_ids", "scores"
TREE_DIR = "tree"
# Rows of a warm-up; the second run of a size is the compiled one.
_WARM_UP_SIZES = (1, 2, 64)

Columns = Mapping[str, pa.Array]
Outputs = dict[str, np.ndarray]


class Part:
    """An exported model with the golden rows that lie beside it.

    Attributes:
        predictor: the model.
        rows: raw columns that it was checked with at the export; None in an export without.
    """

    def __init__(self, predictor: Predictor, rows: pa.Table | None) -> None:
        self.predictor = predictor
        self.rows = rows
        self._parser = DataParser(predictor.features)

    @classmethod
    def load(cls, directory: Path, predictor: Predictor | None = None) -> Part:
        """Loads a directory; ``predictor`` where that is loaded already."""
        if predictor is None:
            predictor = Predictor.load(directory)
        path = directory / artefact.GOLDEN_ROWS
        return cls(predictor, load_golden_rows(path) if path.is_file() else None)

    @functools.cached_property
    def signature(self) -> Signature:
        """Raw columns in, outputs of the model out."""
        return signature_of(self.predictor, self.rows)

    def features_text(self, columns: Columns) -> pa.Array:
        """Returns what becomes of each row: ``name:v1,v2 | name2:v1``."""
        parsed = self.predictor.parse(columns)
        if parsed is None:
            return pa.array([], pa.string())
        return features_text(self._parser.to_batch(parsed), self.predictor.features)

    def warm_up(self) -> None:
        """Scores golden rows in batches of several sizes."""
        if self.rows is None or not self.rows.num_rows:
            return
        for size in _WARM_UP_SIZES:
            rows = self.rows.take(pa.array(np.arange(size) % self.rows.num_rows))
            for _ in range(2):
                self.predictor.predict(rows)


class Servable:
    """What answers requests; threads may share one. Made by `load_servable`.

    Attributes:
        version: its name.
        kind: ``rank``, ``towers``, ``retriever`` or ``tree``.
        signatures: ``predict``, ``retrieve`` or ``embed/{tower}`` → inputs and outputs.
    """

    def __init__(
        self,
        version: str,
        kind: str,
        *,
        ranker: Part | None = None,
        towers: Mapping[str, Part] | None = None,
        retriever: Retriever | TreeRetriever | None = None,
        users: Part | None = None,
    ) -> None:
        self.version = version
        self.kind = kind
        self._ranker = ranker
        self._towers = dict(towers or {})
        self._retriever = retriever
        self._users = users
        self.signatures = self._make_signatures()

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Which of ``retrieve``, ``predict`` and ``embed`` it can do, the main one first."""
        return tuple(dict.fromkeys(name.partition("/")[0] for name in self.signatures))

    @property
    def towers(self) -> tuple[str, ...]:
        """Names of the towers of `embed`."""
        return tuple(self._towers)

    @property
    def model(self) -> str:
        """Name of the model class."""
        return next(iter(self._parts())).predictor.manifest.model

    def predict(self, columns: Columns) -> Outputs:
        """Scores rows: columns of ``signatures["predict"]`` → output → (B, ...).

        Raises:
            TzrecError: see `Predictor.predict`.
        """
        return self._need(self._ranker, PREDICT).predictor.predict(columns)

    def predict_request(self, context: Columns, items: Columns) -> Outputs:
        """Scores the candidates of one user, see `Predictor.predict_request`."""
        return self._need(self._ranker, PREDICT).predictor.predict_request(context, items)

    @property
    def is_tiled(self) -> bool:
        """Whether the model computes what depends on the user alone once a request."""
        return bool(self._ranker and self._ranker.predictor.manifest.options.get("input_tile"))

    def features_text(self, columns: Columns) -> pa.Array:
        """Returns the generated features of each row as text."""
        return self._need(self._ranker, PREDICT).features_text(columns)

    def retrieve(self, columns: Columns, k: int, exclude: pa.Array | None = None) -> Retrieved:
        """Returns the best k items for users.

        Args:
            columns: of ``signatures["retrieve"]``.
            k: at least 1.
            exclude: item ids that a user must not get, one list a row.

        Raises:
            ServingError: ``exclude`` for a tree, which cannot leave items out.
            TzrecError: see `Retriever.retrieve`.
        """
        retriever = self._need(self._retriever, RETRIEVE)
        k = min(k, self.num_items)
        if isinstance(retriever, TreeRetriever):
            if exclude is not None:
                raise ServingError("a tree cannot leave items out")
            return retriever.retrieve(columns, k)
        return retriever.retrieve(columns, k, exclude=exclude)

    def embed(self, tower: str, columns: Columns) -> Outputs:
        """Returns vectors of users or items: name of the output → (B, D) or (B, I, D).

        Raises:
            TzrecError: see `Predictor.predict`.
        """
        return self._need(self._towers.get(tower), f"{EMBED}/{tower}").predictor.predict(columns)

    @property
    def can_exclude(self) -> bool:
        """Whether `retrieve` takes ``exclude``."""
        return isinstance(self._retriever, Retriever)

    @property
    def item_id_type(self) -> pa.DataType:
        """Type of the ids that `retrieve` gives: ``int64`` or ``string``."""
        retriever = self._need(self._retriever, RETRIEVE)
        ids = retriever.index.ids if isinstance(retriever, Retriever) else retriever.ids
        return ids.type

    @property
    def num_items(self) -> int:
        """How many items `retrieve` chooses from."""
        retriever = self._need(self._retriever, RETRIEVE)
        if isinstance(retriever, Retriever):
            return len(retriever.index)
        nodes = retriever.tree.nodes
        return int(nodes.starts[-1] - nodes.starts[-2])

    def schema(self) -> dict[str, Any]:
        """Returns what ``/v1/schema`` says about the model.

        ``predict``, ``retrieve`` and ``embed`` (by tower) have ``inputs``, ``outputs``,
        ``example`` and ``examples``, see `Signature`.
        """
        found: dict[str, Any] = {
            "version": self.version,
            "model": self.model,
            "kind": self.kind,
            "capabilities": list(self.capabilities),
        }
        for name, signature in self.signatures.items():
            capability, _, tower = name.partition("/")
            if tower:
                found.setdefault(capability, {})[tower] = signature.describe()
            else:
                found[capability] = signature.describe()
        if RETRIEVE in found:
            kind = str(self.item_id_type)
            more = {"num_items": self.num_items, "item_id_type": kind}
            found[RETRIEVE] |= more | {"can_exclude": self.can_exclude}
        return found

    def warm_up(self) -> None:
        """Runs example rows through everything that it can do, so that no client waits for it."""
        for part in self._parts():
            part.warm_up()
        for signature in self.signatures.values():
            signature.cells  # noqa: B018  makes it
        if self._retriever is not None and self._users is not None:
            rows = self._users.rows
            if rows is not None and rows.num_rows:
                self._retriever.retrieve(rows.slice(0, 1), min(10, self.num_items))

    def _parts(self) -> list[Part]:
        parts = [self._users, self._ranker, *self._towers.values()]
        return list({id(part): part for part in parts if part is not None}.values())

    def _make_signatures(self) -> dict[str, Signature]:
        found = {}
        if self._retriever is not None and self._users is not None:
            names = self._retriever.input_columns
            users = self._users.signature
            inputs = tuple(column for column in users.inputs if column.name in names)
            kind = "int64" if pa.types.is_integer(self.item_id_type) else "string"
            outputs = (Output(ITEM_IDS, kind, (-1,)), Output(SCORES, "float32", (-1,)))
            examples = tuple({name: row[name] for name in names} for row in users.examples)
            found[RETRIEVE] = Signature(inputs, outputs, examples, users.columns_of_features)
        if self._ranker is not None:
            found[PREDICT] = self._ranker.signature
        return found | {f"{EMBED}/{name}": part.signature for name, part in self._towers.items()}

    def _need(self, part: Any, what: str) -> Any:
        if part is None:
            raise ServingError(
                f"{self.kind} {self.version} has no {what}",
                hint=f"it has {', '.join(self.signatures)}",
            )
        return part


def load_servable(directory: str | Path, version: str = "") -> Servable:
    """Loads what a directory holds, and checks that it scores as where it was made.

    =================  ==========================  =====================================
    made by            holds                       can do
    =================  ==========================  =====================================
    ``tzrec export``   a model                     predict; embed where it is a tower
    ``tzrec export``   ``user/``, ``item/``        embed
    ``tzrec export``   ``model/``, ``embedding/``  retrieve (tree), predict, embed
    ``tzrec index``    an index and ``user/``      retrieve, embed
    =================  ==========================  =====================================

    The tree of a TDM is looked for in ``tree/`` beside its ``model/``, else where the config of
    the export says that it was in training.

    Args:
        directory: local path.
        version: name of this version; default the name of the directory.

    Raises:
        ServingError: it holds none of these, or what it holds is damaged or does not score here
            as where it was made.
    """
    path = Path(directory).expanduser().absolute()
    name = version or path.name
    if (path / INDEX_JSON).is_file():
        return _load_retriever(path, name)
    parts = artefact.found_parts(path)
    if MODEL in parts:
        return _load_tree(path, name, parts)
    if parts:
        towers = {part: Part.load(path / part) for part in (USER, ITEM) if part in parts}
        return Servable(name, "towers", towers=towers)
    model = Part.load(path)
    towers = {tower: model for tower in (USER, ITEM) if _is_tower(model, tower)}
    return Servable(name, "towers" if towers else "rank", ranker=model, towers=towers)


def _is_tower(part: Part, tower: str) -> bool:
    return part.predictor.output_names == [f"{tower}_tower_emb"]


def _load_retriever(path: Path, version: str) -> Servable:
    retriever = Retriever.load(path)
    if retriever.user_tower is None:
        raise ServingError(
            f"{path} is an index without a user tower: raw columns find nothing in it",
            hint="tzrec index EXPORT --items ITEMS --out DIR makes one that has",
        )
    users = Part.load(path / USER, retriever.user_tower)
    return Servable(version, "retriever", retriever=retriever, towers={USER: users}, users=users)


def _load_tree(path: Path, version: str, parts: list[str]) -> Servable:
    tree = path / TREE_DIR
    tree_dir = str(tree) if (tree / NODE_TABLE).is_file() else None
    retriever = TreeRetriever.load(path / MODEL, tree_dir=tree_dir)
    ranker = Part.load(path / MODEL, retriever.predictor)
    towers = {ITEM: Part.load(path / EMBEDDING)} if EMBEDDING in parts else {}
    return Servable(
        version, "tree", ranker=ranker, towers=towers, retriever=retriever, users=ranker
    )
