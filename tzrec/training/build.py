"""From a config to the objects of a run."""

from __future__ import annotations

import random
from typing import Any

import torch

from tzrec.config.messages import which_field, which_msg
from tzrec.constant import Mode
from tzrec.datasets.dataset import create_dataloader
from tzrec.datasets.sampler_input import SamplerInput
from tzrec.features.feature import BaseFeature, FgMode, create_features
from tzrec.features.placement import place
from tzrec.models.factory import create_model
from tzrec.models.model import BaseModel, TrainWrapper
from tzrec.options import Options
from tzrec.protos.data_pb2 import DataConfig
from tzrec.protos.data_pb2 import FgMode as FgModeProto
from tzrec.protos.export_pb2 import ExportConfig
from tzrec.protos.model_pb2 import ModelConfig
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.protos.train_pb2 import TrainConfig
from tzrec.training.sampler_tables import SamplerTables


def build_features(
    data_config: DataConfig, feature_configs: Any, *, farm_hash: bool | None = None
) -> list[BaseFeature]:
    """Creates the features of a config, grouped sequences flattened, in config order.

    Args:
        data_config: says where features are generated.
        feature_configs: the config's.
        farm_hash: hash with FarmHash Fingerprint64; None takes the environment's choice.
    """
    features = create_features(
        list(feature_configs),
        fg_mode=FgMode[FgModeProto.Name(data_config.fg_mode)],
        fg_encoded_multival_sep=data_config.fg_encoded_multival_sep,
        farm_hash=farm_hash,
    )
    sampler = SamplerInput.of(data_config, features)
    if sampler is not None:
        force_base = data_config.force_base_data_group
        place(features, sampler.sampled_columns, force_base=force_base)
    return features


def build_model(
    config: EasyRecConfig, features: list[BaseFeature], *, with_labels: bool = True
) -> BaseModel:
    """Creates the model; without labels it can only predict."""
    data_config = config.data_config
    return create_model(
        config.model_config,
        features,
        list(data_config.label_fields) if with_labels else [],
        sample_weights=list(data_config.sample_weight_fields) if with_labels else [],
        sampler_type=which_msg(data_config, "sampler") or None,
    )


def build_train_wrapper(
    config: EasyRecConfig,
    features: list[BaseFeature],
    device: torch.device,
    *,
    step_precision: str | None = None,
) -> TrainWrapper:
    """Creates the model with its losses and metrics, for training and evaluation.

    Args:
        config: the config.
        features: of the config.
        device: where it computes.
        step_precision: of training steps, where it is not that of the config.
    """
    return TrainWrapper(
        build_model(config, features),
        device=device,
        mixed_precision=config.train_config.mixed_precision or None,
        step_precision=step_precision,
    )


def build_loader(
    config: EasyRecConfig,
    features: list[BaseFeature],
    input_path: str,
    *,
    mode: Mode,
    options: Options,
    reserved_columns: list[str] | None = None,
    tables: SamplerTables | None = None,
) -> Any:
    """Creates the loader of this rank; with a sampler all ranks must.

    Args:
        config: the config.
        features: of the config.
        input_path: what to read.
        mode: what for.
        options: rank, seed.
        reserved_columns: columns for the output of a prediction.
        tables: those of samplers that the run has read already.
    """
    tables = tables or SamplerTables(options)
    return create_dataloader(
        config.data_config,
        features,
        input_path,
        reserved_columns=reserved_columns,
        mode=mode,
        rank=options.rank,
        world_size=options.world_size,
        seed=run_seed(config, options),
        with_log_q=needs_log_q(config.model_config),
        build_sampler=tables.prepare,
    )


def needs_log_q(model_config: ModelConfig) -> bool:
    """Returns whether the model corrects its scores by the probabilities of the draws."""
    kind = which_field(model_config, "model")
    model: Any = getattr(model_config, kind) if kind else None
    negatives = getattr(model, "negatives", None)
    return bool(negatives is not None and negatives.logq_correction)


def run_seed(config: EasyRecConfig, options: Options) -> int:
    """Returns the seed of a run: the config's when written, else the environment's, else 42."""
    if config.train_config.HasField("seed") or options.seed is None:
        return config.train_config.seed
    return options.seed


def seed_everything(seed: int, *, deterministic: bool = False) -> None:
    """Seeds initialisation and dropout; called by commands, never at import."""
    random.seed(seed)
    torch.manual_seed(seed)
    if deterministic:
        torch.use_deterministic_algorithms(True)


def set_tf32(section: TrainConfig | ExportConfig) -> None:
    """Sets the TF32 switches that a section writes; others keep torch's default.

    Training and evaluation follow ``train_config``, export and prediction ``export_config``.
    """
    if section.HasField("cudnn_allow_tf32"):
        torch.backends.cudnn.allow_tf32 = section.cudnn_allow_tf32
    if section.HasField("cuda_matmul_allow_tf32"):
        torch.backends.cuda.matmul.allow_tf32 = section.cuda_matmul_allow_tf32
