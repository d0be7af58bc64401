"""`TreeRetriever`: from the columns of a user to the ids of items, by a tree and its model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from tzrec.datasets import tiling
from tzrec.datasets.data_parser import DataParser
from tzrec.datasets.samplers.tdm_predict import TDMPredictSampler
from tzrec.deploy.predictor import Predictor
from tzrec.errors import ConfigError, DataError, ServingError
from tzrec.features.feature import BaseFeature
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.retrieval.exact import Found
from tzrec.retrieval.ids import ItemIds
from tzrec.retrieval.retriever import Retrieved
from tzrec.retrieval.tree_codes import Ints
from tzrec.retrieval.tree_files import NODE_TABLE, PREDICT_EDGE_TABLE
from tzrec.retrieval.tree_rows import append_rows, pick_rows
from tzrec.retrieval.tree_search import beam_search

# Pairs of user and node that the model scores at a time: bounds memory.
_PAIRS_AT_ONCE = 1 << 13
_NODES_AT_ONCE = 1 << 16


class TreeRetriever:
    """An exported `TDM` with its tree; threads may share one.

    ::

        retriever = TreeRetriever.load("export/model")
        retriever.retrieve({"user_id": [7], "clicks": ["3;5"]}, k=100).ids[0]

    Features of the user and of the nodes are made once each and combined as numbers; only
    features that read columns of both are made for each pair.

    Args:
        predictor: the exported model.
        tree: its nodes, built.
        threads: that score at once.

    Attributes:
        predictor: the exported model.
        tree: its nodes.
        user_features: those of user and context columns.
        mixed_columns: columns beside those of the nodes that features of both read.
    """

    def __init__(self, predictor: Predictor, tree: TDMPredictSampler, *, threads: int = 1) -> None:
        self.predictor = predictor
        self.tree = tree
        self._threads = threads
        sampled = {tree.item_id_field, *tree.attr_fields}
        node, mixed = [], []
        self.user_features: list[BaseFeature] = []
        self.mixed_columns: list[str] = []
        by_name = {feature.name: feature for feature in predictor.features}
        for feature in predictor.features:
            columns = _columns(feature, by_name)
            if not columns & sampled:
                self.user_features.append(feature)
            elif columns <= sampled:
                node.append(feature)
            else:
                mixed.append(feature)
                self.mixed_columns += sorted(columns - sampled)
        self._once = self._features_once()
        self._user_parser = _Subset(self.user_features, by_name, predictor.config)
        self._node_parser = _Subset(node, by_name, predictor.config)
        self._mixed_parser = _Subset(mixed, by_name, predictor.config)
        self._node_of_place = torch.full((len(tree.nodes.levels),), -1)
        self._node_of_place[torch.from_numpy(tree.nodes.order.astype(np.int64))] = torch.arange(
            len(tree.nodes.order)
        )
        self._nodes = self._parse_nodes()
        self._ids = ItemIds(_node_ids(tree))

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        tree_dir: str | None = None,
        threads: int = 1,
        self_check: bool = True,
    ) -> TreeRetriever:
        """Loads the ``model/`` directory of an exported TDM and the tree that it was trained on.

        Args:
            path: the directory.
            tree_dir: directory with ``node_table.txt`` and ``predict_edge_table.txt``; default are
                the paths in ``tdm_sampler`` of the export's config.
            threads: that score at once.
            self_check: see `Predictor.load`.

        Raises:
            ServingError: the directory is no whole export, or not of such a model.
            DataError: the tables are missing, or no tree.
        """
        predictor = Predictor.load(path, self_check=self_check)
        data_config = predictor.config.data_config
        if not data_config.HasField("tdm_sampler"):
            raise ServingError(
                f"{path} has no tdm_sampler in its config: no tree belongs to it",
                hint="give the model/ directory of an exported TDM",
            )
        message = type(data_config.tdm_sampler)()
        message.CopyFrom(data_config.tdm_sampler)
        if tree_dir is not None:
            root = tree_dir.rstrip("/")
            message.item_input_path = f"{root}/{NODE_TABLE}"
            message.predict_edge_input_path = f"{root}/{PREDICT_EDGE_TABLE}"
        tree = TDMPredictSampler(message, predictor.column_types)
        tree.build()
        return cls(predictor, tree, threads=threads)

    @property
    def input_columns(self) -> list[str]:
        """Raw columns that `retrieve` reads."""
        return list(dict.fromkeys([*self._user_parser.columns, *self.mixed_columns]))

    @property
    def ids(self) -> ItemIds:
        """Ids of all nodes by place."""
        return self._ids

    def retrieve(self, rows: Any, k: int = 100) -> Retrieved:
        """Returns the items whose path through the tree fits best.

        Args:
            rows: columns of the users, as `Predictor.predict` takes them.
            k: how many items a user.

        Raises:
            DataError: a column is missing or wrong.
            FeatureError: a value cannot become its feature.
            ConfigError: k is not at least 1.
        """
        columns = self.predictor.columns(rows, self.input_columns)
        parsed = self._user_parser.parse(columns)
        num_rows = len(next(iter(columns.values())))
        return Retrieved(self.search(parsed, num_rows, k, columns=columns), self._ids)

    def search(
        self,
        parsed: Mapping[str, Tensor],
        num_rows: int,
        k: int,
        *,
        columns: Mapping[str, pa.Array] | None = None,
    ) -> Found:
        """Returns the best leaves for parsed users: places in the node table.

        Args:
            parsed: parse keys of `user_features`.
            num_rows: B.
            k: how many.
            columns: `mixed_columns`, where there are any.
        """
        if not num_rows:
            return Found(np.empty((0, k), np.int64), np.empty((0, k), np.float32))
        users = {key: value for key, value in parsed.items() if "." in key}

        def score(rows: Ints, nodes: NDArray[np.int32]) -> NDArray[np.float32]:
            cuts = range(0, len(rows), _PAIRS_AT_ONCE)
            pieces = [(rows[i : i + _PAIRS_AT_ONCE], nodes[i : i + _PAIRS_AT_ONCE]) for i in cuts]

            def piece(pair: tuple[Ints, NDArray[np.int32]]) -> NDArray[np.float32]:
                return self._score(users, columns or {}, *pair)

            if self._threads == 1 or len(pieces) == 1:
                return np.concatenate([piece(pair) for pair in pieces])
            with ThreadPoolExecutor(self._threads) as pool:
                return np.concatenate(list(pool.map(piece, pieces)))

        return beam_search(self.tree, score, num_rows, k)

    def _score(
        self,
        users: Mapping[str, Tensor],
        columns: Mapping[str, pa.Array],
        rows: Ints,
        nodes: NDArray[np.int32],
    ) -> NDArray[np.float32]:
        data = self._of_pairs(users, torch.from_numpy(rows))
        places = self._node_of_place[torch.from_numpy(nodes.astype(np.int64))]
        data |= pick_rows(self._nodes, places)
        if self._mixed_parser.features:
            index = pa.array(rows)
            both = {name: column.take(index) for name, column in columns.items()}
            data |= self._mixed_parser.parse(both | self.tree.nodes.items.take(nodes))
        return probabilities(self.predictor.forward(data))

    def _features_once(self) -> frozenset[str]:
        """Returns the features that a tiled model takes once a user; none of another model."""
        if not self.predictor.input_tile:
            return frozenset()
        theirs = tiling.user_features(self.predictor.features)
        made_once = {feature.name for feature in self.user_features}
        # One that also reads columns of nodes differs from pair to pair.
        return theirs if theirs <= made_once else frozenset()

    def _of_pairs(self, users: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
        """Returns what the model reads of users for pairs, whose users are numbered ``rows``."""
        if not self.predictor.input_tile:
            return pick_rows(users, rows)
        if not self._once:
            return tiling.own_users(pick_rows(users, rows))
        once = {k: v for k, v in users.items() if k.rpartition(".")[0] in self._once}
        others = {k: v for k, v in users.items() if k not in once}
        numbers, counts = torch.unique_consecutive(rows, return_counts=True)
        return pick_rows(once, numbers) | pick_rows(others, rows) | {tiling.BATCH_SIZE: counts}

    def _parse_nodes(self) -> dict[str, Tensor]:
        order = self.tree.nodes.order
        if not self._node_parser.features:
            raise ConfigError("no feature of the model reads a column of the tree's nodes")
        pieces = []
        for start in range(0, len(order), _NODES_AT_ONCE):
            columns = self.tree.nodes.items.take(order[start : start + _NODES_AT_ONCE])
            pieces.append(self._node_parser.parse(columns))
        return append_rows(pieces)


class _Subset:
    """The parser of some features, and of those that they are made of."""

    def __init__(
        self,
        features: Sequence[BaseFeature],
        by_name: Mapping[str, BaseFeature],
        config: EasyRecConfig,
    ) -> None:
        self.features = list(features)
        made_of: dict[str, BaseFeature] = {}
        for feature in features:
            _collect(feature, by_name, made_of)
        self._parser = DataParser(
            [feature for name, feature in by_name.items() if name in made_of],
            fg_threads=config.data_config.fg_threads,
        )
        self._names = {feature.name for feature in features}

    @property
    def columns(self) -> list[str]:
        return self._parser.input_columns

    def parse(self, columns: Mapping[str, pa.Array]) -> dict[str, Tensor]:
        parsed = self._parser.parse(dict(columns))
        return {key: v for key, v in parsed.items() if key.rpartition(".")[0] in self._names}


def probabilities(outputs: Mapping[str, Tensor]) -> NDArray[np.float32]:
    """Returns how likely the positive class is (B,), of a model's outputs.

    Raises:
        ServingError: there is no ``probs1``, and no ``probs`` of one number a row.
    """
    found = outputs.get("probs1", outputs.get("probs"))
    if found is None or found.dim() != 1:
        raise ServingError(
            f"the model gives {', '.join(sorted(outputs))}, no probability to walk a tree by",
            hint="train it with binary_cross_entropy, or with num_class: 2 and "
            "softmax_cross_entropy",
        )
    scores: NDArray[np.float32] = found.detach().cpu().float().numpy()
    return scores


def _columns(feature: BaseFeature, known: Mapping[str, BaseFeature]) -> set[str]:
    """Returns the columns that a feature depends on, also through other features."""
    made_of: dict[str, BaseFeature] = {}
    _collect(feature, known, made_of)
    return {column for one in made_of.values() for column in one.inputs}


def _collect(
    feature: BaseFeature, known: Mapping[str, BaseFeature], found: dict[str, BaseFeature]
) -> None:
    if feature.name not in found:
        found[feature.name] = feature
        for name in feature.feature_inputs:
            if name in known:
                _collect(known[name], known, found)


def _node_ids(tree: TDMPredictSampler) -> pa.Array:
    name = tree.item_id_field
    if name not in tree.nodes.items.types:
        raise DataError(f"no feature reads {name!r}, the id of the nodes")
    return tree.nodes.items.column(name)


def hits(found: Found, ids: ItemIds, wanted: pa.Array) -> NDArray[np.bool_]:
    """Returns which rows (B,) found the item that is asked for."""
    places = ids.positions(wanted)
    return np.asarray((found.positions == places[:, None]).any(axis=1) & (places >= 0))


def reserved_of(names: Collection[str], more: Collection[str]) -> list[str]:
    """Returns columns to read beside those of the features, each once."""
    return list(dict.fromkeys([*names, *more]))
