"""One tower of a match model, exported or of a checkpoint, over tables of rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from tzrec import storage
from tzrec.batch import Batch
from tzrec.config import prepare
from tzrec.config.messages import which_field
from tzrec.constant import PIPELINE_CONFIG, Mode
from tzrec.deploy import golden
from tzrec.deploy.artefact import MANIFEST, Manifest, found_parts, read_manifest
from tzrec.deploy.commands import prediction_config, restored_model
from tzrec.deploy.fingerprint import fingerprint
from tzrec.deploy.parts import EMBEDDING, ITEM, USER, part_config
from tzrec.deploy.predictor import Predictor
from tzrec.errors import ConfigError
from tzrec.models.wrappers import PredictWrapper
from tzrec.options import from_environment
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.protos.simi_pb2 import EUCLID
from tzrec.retrieval.exact import INNER_PRODUCT, L2, Vectors, check_finite
from tzrec.retrieval.vectors import ITEM_VECTORS, USER_VECTORS
from tzrec.training import build
from tzrec.training.checkpoint.find import resolve
from tzrec.training.job import closing

TOWERS = (USER, ITEM)
_OUTPUTS = {USER: USER_VECTORS, ITEM: ITEM_VECTORS, EMBEDDING: "item_emb"}
# The part that gives the vectors of a tower: TDM has one for its items.
_PARTS = {USER: (USER,), ITEM: (ITEM, EMBEDDING)}


@dataclasses.dataclass(frozen=True)
class Tower:
    """What makes vectors of rows.

    Attributes:
        config: says how rows are read; has the features of the tower.
        features: those features.
        output: name of the vectors among the predictions.
        forward: batch → predictions.
        weights: `fingerprint` of the model, empty where an export does not tell it.
    """

    config: EasyRecConfig
    features: list[Any]
    output: str
    forward: Callable[[Batch], Mapping[str, Tensor]]
    weights: str = ""

    def vectors(
        self,
        input_path: str,
        columns: Sequence[str] = (),
        *,
        batch_size: int | None = None,
        dataset_type: str | None = None,
    ) -> Iterator[tuple[Vectors, pa.RecordBatch]]:
        """Yields vectors (B, D) or (B, I, D) of the rows of a table, and columns of the rows.

        The rows are those of this rank.

        Raises:
            DataError: the rows cannot be read, or a vector is not finite.
        """
        config = prediction_config(self.config, batch_size, dataset_type, None)
        loader = build.build_loader(
            config,
            self.features,
            input_path,
            mode=Mode.PREDICT,
            options=from_environment(),
            reserved_columns=list(columns),
        )
        with closing(loader):
            for batch in loader:
                if not batch.dummy:
                    vectors = golden.to_numpy(self.forward(batch)[self.output])
                    check_finite(vectors, f"{self.output} of a batch of {input_path}")
                    yield vectors.astype(np.float32, copy=False), batch.reserves.get()


def load_tower(
    model: str,
    tower: str,
    *,
    checkpoint_path: str | None = None,
    edits: Sequence[str] = (),
) -> Tower:
    """Loads a tower.

    Args:
        model: an exported directory or one of its parts; or the config or the directory of a
            run, whose checkpoint is taken.
        tower: ``user`` or ``item``.
        checkpoint_path: of a run: ``latest`` (the default), ``best``, or a directory.
        edits: of a run: config edits as ``a.b.c=v``.

    Raises:
        ConfigError: the model has no such tower, or an argument does not fit.
        TzrecError: export or checkpoint cannot be read.
    """
    if tower not in TOWERS:
        raise ConfigError(f"tower {tower!r} is not one of {', '.join(TOWERS)}")
    path = Path(model)
    if not storage.exists(model):
        raise ConfigError(
            f"{model} does not exist", hint="give an exported directory, a config, or a model_dir"
        )
    if found_parts(path) or (path / MANIFEST).is_file():
        if checkpoint_path or edits:
            raise ConfigError(
                f"{model} is an export: checkpoints and edits are for the config of a run"
            )
        return exported_tower(part_directory(path, tower))
    if path.is_dir():
        path = path / PIPELINE_CONFIG
        if not path.is_file():
            raise ConfigError(
                f"{model} is neither an export nor the directory of a run",
                hint="give an exported directory, a config, or a model_dir",
            )
    config = prepare(str(path), edits=edits).config
    return trained_tower(config, tower, checkpoint_path)


def part_directory(path: Path, tower: str) -> Path:
    """Returns where the tower of an export lies.

    Raises:
        ConfigError: the export has no such tower.
    """
    parts = found_parts(path)
    if not parts:
        outputs = read_manifest(path).outputs
        if any(_OUTPUTS[part] in outputs for part in _PARTS[tower]):
            return path
        raise ConfigError(f"{path} gives {', '.join(sorted(outputs))}: it is no {tower} tower")
    for part in _PARTS[tower]:
        if part in parts:
            return path / part
    raise ConfigError(f"{path} has no {tower} tower, its parts are {', '.join(parts)}")


def exported_tower(path: Path) -> Tower:
    """Loads an exported part."""
    predictor = Predictor.load(path)
    return tower_of(predictor)


def tower_of(predictor: Predictor) -> Tower:
    """Returns the tower that a loaded part is."""
    output = next(name for name in _OUTPUTS.values() if name in predictor.manifest.outputs)
    return Tower(
        predictor.config,
        predictor.features,
        output,
        predictor.forward_batch,
        weights_of_export(predictor.manifest),
    )


def weights_of_export(manifest: Manifest) -> str:
    """Returns the `fingerprint` of an export, empty where it does not tell."""
    return str(manifest.options.get("weights", ""))


def trained_tower(config: EasyRecConfig, tower: str, checkpoint_path: str | None) -> Tower:
    """Takes a tower from a checkpoint.

    Raises:
        ConfigError: the model has no such tower.
        CheckpointError: there is no such checkpoint.
    """
    checkpoint, _ = resolve(config.model_dir, checkpoint_path or "latest", config.export_config)
    features = build.build_features(config.data_config, config.feature_configs)
    whole = restored_model(config, features, checkpoint)
    parts = whole.model.export_parts()
    name = next((part for part in _PARTS[tower] if part in parts), None)
    if name is None:
        raise ConfigError(
            f"{type(whole.model).__name__} has no {tower} tower",
            hint="tzrec predict gives the scores of a model that ranks",
        )
    module: Any = parts[name]
    module.set_is_inference(True)
    own = part_config(config, module)
    precision = config.train_config.mixed_precision or None
    wrapper = PredictWrapper(module, device=torch.device("cpu"), mixed_precision=precision).eval()
    made_of = build.build_features(own.data_config, own.feature_configs)
    weights = fingerprint(parts)
    return Tower(own, made_of, _OUTPUTS[name], lambda batch: wrapper(batch)[0], weights)


def metric_of(config: EasyRecConfig) -> str:
    """Returns how vectors of the model of a config are compared: ``l2`` for EUCLID, else ``ip``."""
    kind = which_field(config.model_config, "model")
    model: Any = getattr(config.model_config, kind) if kind else None
    return L2 if getattr(model, "similarity", None) == EUCLID else INNER_PRODUCT


def id_field_of(config: EasyRecConfig, tower: str) -> str | None:
    """Returns the column of user or item ids that the config tells, None if it does not.

    That of its sampler, or for items the column of ``negatives.item_id_feature``.
    """
    sampler = which_field(config.data_config, "sampler")
    if sampler:
        found = getattr(getattr(config.data_config, sampler), f"{tower}_id_field", "")
        if found:
            return str(found)
    kind = which_field(config.model_config, "model")
    negatives = getattr(getattr(config.model_config, kind or "", None), "negatives", None)
    name = getattr(negatives, "item_id_feature", "")
    if tower != ITEM or not name:
        return None
    for feature in build.build_features(config.data_config, config.feature_configs):
        if feature.name == name and len(feature.inputs) == 1:
            return str(feature.inputs[0])
    return None


def chosen_id_field(config: EasyRecConfig, tower: str, given: str | None) -> str:
    """Returns the column of ids: the given one, else that of the config.

    Raises:
        ConfigError: neither tells.
    """
    name = given or id_field_of(config, tower)
    if not name:
        raise ConfigError(
            f"which column holds the {tower} ids? the config does not tell",
            hint=f"name it with --id-field, for example --id-field {tower}_id",
        )
    return name
