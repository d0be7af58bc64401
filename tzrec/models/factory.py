"""From the config's choice of a model to the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tzrec.config.messages import which_msg
from tzrec.errors import ConfigError, Unsupported, at
from tzrec.models.model import BaseModel
from tzrec.models.registry import MODELS
from tzrec.modules.utils import Kernel
from tzrec.protos.model_pb2 import ModelConfig
from tzrec.registry import load_by_path

if TYPE_CHECKING:
    from tzrec.features.feature import BaseFeature


def create_model(
    model_config: ModelConfig,
    features: Sequence[BaseFeature],
    labels: Sequence[str],
    sample_weights: Sequence[str] | None = None,
    sampler_type: str | None = None,
) -> BaseModel:
    """Creates the model that ``model_config`` chooses.

    Args:
        model_config: names the model and holds its fields.
        features: all features of the config.
        labels: label columns; empty for a model that only predicts.
        sample_weights: weight columns.
        sampler_type: name of the negative sampler, if there is one.

    Raises:
        ConfigError: no model is chosen, or it does not fit its groups, losses or parameters.
        Unsupported: the model comes with a later version.
    """
    cls: Any = model_class(model_config)
    model: BaseModel = cls(
        model_config, features, labels, sample_weights=sample_weights, sampler_type=sampler_type
    )
    model.set_kernel(Kernel(model_config.kernel))
    return model


def model_class(model_config: ModelConfig) -> type[BaseModel]:
    """Returns the class of the chosen model, importing its module.

    Raises:
        ConfigError: no model is chosen, or a custom class is no `BaseModel`.
        Unsupported: the model comes with a later version.
    """
    name = which_msg(model_config, "model")
    if not name:
        raise ConfigError("model_config has no model", hint="for example deepfm { ... }")
    if name == "CustomModel":
        path = model_config.custom_model.class_path
        with at("model_config.custom_model.class_path"):
            cls = load_by_path(path)
            if not issubclass(cls, BaseModel):
                raise ConfigError(f"{path} must be a subclass of BaseModel or RankModel")
            return cls
    if name not in MODELS:
        raise Unsupported(f"model {name} comes with a later version")
    found: type[BaseModel] = BaseModel.create_class(name)
    return found
