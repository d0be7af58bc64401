"""Models that are exported in parts: the two towers of a match model, TDM and its vectors.

``export_dir/user/`` and ``export_dir/item/``, or ``export_dir/model/`` and
``export_dir/embedding/``: each is an artefact of its own, with its features only.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pyarrow as pa
from torch import Tensor, nn

from tzrec.config.prune import keep_features
from tzrec.deploy.commands import golden_rows
from tzrec.errors import ConfigError
from tzrec.options import Options
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.training.build import build_features

USER, ITEM, MODEL, EMBEDDING = "user", "item", "model", "embedding"
# Parts that are asked about items alone; samples of them may be another table.
_OF_ITEMS = (ITEM, EMBEDDING)


@dataclasses.dataclass(frozen=True)
class Part:
    """What is exported into one directory.

    Attributes:
        model: has ``features`` and ``predict``.
        config: the config with the features of this part.
        features: those features, and others that they are made of.
        golden: one predict-mode batch in parse keys.
        rows: raw columns of the golden batch.
        with_assets: gets the files of ``--asset_files``.
    """

    model: nn.Module
    config: EasyRecConfig
    features: list[Any]
    golden: dict[str, Tensor]
    rows: pa.RecordBatch | None
    with_assets: bool = True


def part_config(config: EasyRecConfig, module: Any) -> EasyRecConfig:
    """Returns the config with the features that a part reads."""
    return keep_features(config, [feature.name for feature in module.features])


def sample_parts(
    model: Any,
    config: EasyRecConfig,
    features: list[Any],
    options: Options,
    *,
    item_input_path: str | None = None,
) -> dict[str, Part]:
    """Returns what is exported of a model, by directory; a model in one piece has ``""``.

    Args:
        model: with restored weights.
        config: what it was built of.
        features: its features.
        options: of the process.
        item_input_path: table with rows of items; default the training data.

    Raises:
        ConfigError: there is an ``item_input_path``, but no part that is about items.
        DataError: the rows lack a column that a part reads.
    """
    modules = model.export_parts()
    if item_input_path is not None and not set(_OF_ITEMS) & set(modules):
        raise ConfigError(
            "--item_input_path is for models with an item tower",
            hint=f"{type(model).__name__} has none",
        )
    if not modules:
        return {"": Part(model, config, features, *golden_rows(config, features, options))}
    parts = {}
    for name, module in modules.items():
        own = part_config(config, module)
        made_of = build_features(own.data_config, own.feature_configs)
        path = item_input_path if name in _OF_ITEMS else None
        golden, rows = golden_rows(own, made_of, options, input_path=path)
        with_assets = name != EMBEDDING
        parts[name] = Part(module, own, made_of, golden, rows, with_assets=with_assets)
    return parts


def refuse_towers(model: Any) -> None:
    """Refuses to predict rows with a model whose predictions are pairs of rows.

    Raises:
        ConfigError: the model has towers.
    """
    towers = [name for name in model.export_parts() if name in (USER, ITEM)]
    if towers:
        raise ConfigError(
            f"{type(model).__name__} gives vectors of users and of items, not one score a row",
            hint="tzrec embed CONFIG --tower user (or item) --input TABLE --out DIR writes them",
        )
