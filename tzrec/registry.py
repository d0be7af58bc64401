"""Names → classes, importing a class's module only when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Generic, TypeVar

from tzrec.errors import ConfigError, MissingDependencyError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """Classes by name. Known names map to modules and are imported on first use.

    Args:
        name: what the classes are ("model"), for messages.
        modules: class name → module that defines it.

    Example::

        MODELS = Registry("model", {"DeepFM": "tzrec.models.deepfm"})
        MODELS.get("DeepFM")  # imports tzrec.models.deepfm
    """

    def __init__(self, name: str, modules: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._modules = dict(modules or {})
        self._classes: dict[str, type[T]] = {}

    def names(self) -> list[str]:
        """Returns all names, those not imported yet included."""
        return sorted({*self._modules, *self._classes})

    def __contains__(self, name: str) -> bool:
        return name in self._modules or name in self._classes

    def register(self, cls: type[T]) -> type[T]:
        """Adds ``cls`` under its own name; usable as a decorator.

        Raises:
            ConfigError: another class has the name.
        """
        known = self._classes.get(cls.__name__)
        if known is not None and _identity(known) != _identity(cls):
            raise ConfigError(
                f"two classes want to be the {self.name} {cls.__name__!r}: "
                f"{'.'.join(_identity(known))} and {'.'.join(_identity(cls))}",
                hint="rename one of them",
            )
        self._classes[cls.__name__] = cls
        return cls

    def get(self, name: str) -> type[T]:
        """Returns the class of that name.

        Raises:
            ConfigError: no class has the name.
        """
        if name not in self._classes and name in self._modules:
            module = importlib.import_module(self._modules[name])
            if name not in self._classes and hasattr(module, name):
                self.register(getattr(module, name))
        if name not in self._classes:
            raise ConfigError(
                f"unknown {self.name} {name!r}{did_you_mean(name, self.names())}",
                hint=f"known: {', '.join(self.names())}",
            )
        return self._classes[name]


def _identity(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def load_by_path(path: str) -> type:
    """Imports a class by its dotted path, ``shop.models.TwoHead``.

    Raises:
        ConfigError: the path is no class path, or its module has no such class.
        MissingDependencyError: the module cannot be found.
    """
    module_name, _, class_name = path.rpartition(".")
    if not module_name or not all(part.isidentifier() for part in path.split(".")):
        raise ConfigError(
            f"{path!r} is not a class path", hint='write it as "package.module.Class"'
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise MissingDependencyError(
                f"cannot import {module_name!r} for the class {path!r}: no module {error.name!r}",
                hint="run from the folder that holds it, or put that folder on PYTHONPATH",
            ) from error
        raise
    cls = getattr(module, class_name, None)
    if not isinstance(cls, type):
        classes = [name for name, value in vars(module).items() if isinstance(value, type)]
        raise ConfigError(
            f"module {module_name!r} has no class {class_name!r}{did_you_mean(class_name, classes)}"
        )
    return cls
