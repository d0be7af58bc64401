"""Class registration by metaclass, an import path of the interface (see `tzrec.registry`)."""

from __future__ import annotations

from typing import Any

from tzrec.registry import Registry, load_by_path

__all__ = ["get_register_class_meta", "load_by_path"]


def get_register_class_meta(
    class_map: dict[str, type], registry: Registry[Any] | None = None
) -> type[type]:
    """Returns a metaclass that registers every class made with it.

    Args:
        class_map: filled with class name → class.
        registry: where names are looked up, so that classes not imported yet are found;
            None makes one of its own.

    Returns:
        A metaclass whose classes have ``create_class(name) -> type``.

    Example::

        _MODELS: dict[str, type] = {}

        class BaseModel(metaclass=get_register_class_meta(_MODELS)): ...

        BaseModel.create_class("DeepFM")
    """
    names: Registry[Any] = registry if registry is not None else Registry("class")

    class RegisterMeta(type):
        def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> None:
            super().__init__(name, bases, namespace)
            names.register(cls)
            class_map[name] = cls

        def create_class(cls, name: str) -> type:
            """Returns the registered class of that name.

            Raises:
                ConfigError: no class has the name.
            """
            return names.get(name)

    return RegisterMeta
