"""Parameters of a model outside this package: a dataclass, filled and checked by the config."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from tzrec.config.messages import config_to_kwargs
from tzrec.errors import ConfigError, at, did_you_mean
from tzrec.protos.model_pb2 import CustomModel


def custom_params(cls: type, config: CustomModel) -> Any:
    """Returns ``cls.Config`` made of the config's ``params``; None if the class has no ``Config``.

    Args:
        cls: the model class; its ``Config``, if there is one, is a dataclass.
        config: class path and parameters.

    Raises:
        ConfigError: a parameter is unknown, missing or of the wrong type.
    """
    params = config_to_kwargs(config.params)
    wanted = getattr(cls, "Config", None)
    with at("model_config.custom_model.params"):
        if wanted is None:
            if params:
                raise ConfigError(
                    f"{config.class_path} takes no parameters, got {', '.join(params)}",
                    hint="define a dataclass named Config inside the class",
                )
            return None
        if not dataclasses.is_dataclass(wanted) or not isinstance(wanted, type):
            raise ConfigError(f"{config.class_path}.Config must be a dataclass")
        return dataclass_of(wanted, params)


def dataclass_of(cls: type, values: Mapping[str, Any]) -> Any:
    """Makes a dataclass of plain values; nested dataclasses take nested mappings.

    Raises:
        ConfigError: a value is unknown, missing or of the wrong type.
    """
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    kinds = typing.get_type_hints(cls)
    for name in values:
        if name not in fields:
            raise ConfigError(
                f"there is no parameter {name!r}{did_you_mean(name, fields)}",
                hint=f"known: {', '.join(fields) or 'none'}",
            )
    arguments = {}
    for name, field in fields.items():
        if name in values:
            with at(name):
                arguments[name] = _value(kinds[name], values[name])
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"parameter {name!r} is missing and has no default")
    return cls(**arguments)


def _value(kind: Any, value: Any) -> Any:
    """Returns ``value`` as ``kind``; a type that is none of the common ones takes anything."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        others = [arg for arg in args if arg is not type(None)]
        return _value(others[0], value) if len(others) == 1 else value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return dataclass_of(kind, _expect(dict, value, "parameters in { }"))
    if origin in (list, tuple) or kind in (list, tuple):
        items = _expect(list, value, "a list")
        items = [_value(args[0], item) for item in items] if args else items
        return tuple(items) if (origin or kind) is tuple else items
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    names = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}
    return _expect(kind, value, names[kind]) if kind in names else value


def _expect(kind: type, value: Any, what: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"is {value!r}, must be {what}")
    return value
