"""From ``model_config`` to a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict

from tzrec.config.messages import which_msg
from tzrec.errors import ConfigError, Unsupported, at, did_you_mean
from tzrec.features.feature import BaseFeature
from tzrec.models.model import MODEL_REGISTRY, BaseModel
from tzrec.modules.utils import Kernel
from tzrec.protos.model_pb2 import ModelConfig
from tzrec.registry import load_by_path

_CUSTOM = "CustomModel"


def create_model(
    model_config: ModelConfig,
    features: Sequence[BaseFeature],
    labels: Sequence[str],
    sample_weights: Sequence[str] | None = None,
    sampler_type: str | None = None,
) -> BaseModel:
    """Creates the model that the config selects.

    A ``custom_model`` is imported by its class path. If the class defines a dataclass ``Config``
    it gets one as the keyword argument ``config``, made of ``params``.

    Args:
        model_config: the whole ``model_config`` message.
        features: all features of the config.
        labels: label columns; empty for prediction.
        sample_weights: weight columns.
        sampler_type: name of the sampler's message.

    Raises:
        ConfigError: no model is selected, or it does not fit its groups.
        Unsupported: the model is not built.
    """
    if model_config.WhichOneof("model") is None:
        raise ConfigError("model_config selects no model", hint="write for example deepfm { … }")
    name = which_msg(model_config, "model")
    kwargs: dict[str, Any] = {"sampler_type": sampler_type}
    if name == _CUSTOM:
        cls, more = _custom(model_config.custom_model)
        kwargs |= more
    elif name not in MODEL_REGISTRY:
        raise Unsupported(f"model {name} comes with a later version")
    else:
        cls = MODEL_REGISTRY.get(name)
    with at("model_config"):
        model = cls(model_config, features, labels, sample_weights, **kwargs)
    model.set_kernel(Kernel(model_config.kernel))
    return model


def _custom(message: Any) -> tuple[Any, dict[str, Any]]:
    with at("model_config.custom_model"):
        cls = load_by_path(message.class_path)
        if not issubclass(cls, BaseModel):
            raise ConfigError(
                f"{message.class_path} is no subclass of tzrec.models.model.BaseModel"
            )
        params = MessageToDict(message.params) if message.HasField("params") else {}
        config_class = getattr(cls, "Config", None)
        if config_class is None:
            if params:
                raise ConfigError(
                    f"{message.class_path} has no dataclass Config; it takes no params"
                )
            return cls, {}
        return cls, {"config": _dataclass_of(config_class, params, message.class_path)}


def _dataclass_of(config_class: Any, params: dict[str, Any], class_path: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    for name in params:
        if name not in fields:
            raise ConfigError(
                f"params: {class_path}.Config has no {name!r}{did_you_mean(name, fields)}"
            )
    required = [
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    missing = [name for name in required if name not in params]
    if missing:
        raise ConfigError(f"params: {class_path}.Config needs {', '.join(missing)}")
    # Numbers of a Struct are doubles; whole ones become int where the dataclass says so.
    typed = {
        name: int(value) if fields[name].type in (int, "int") and value == int(value) else value
        for name, value in params.items()
    }
    return config_class(**typed)
