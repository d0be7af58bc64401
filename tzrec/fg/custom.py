"""Operators of users for ``custom_feature``.

::

    # shop/operators.py
    from tzrec.fg.custom import fg_operator

    @fg_operator("Ratio")
    def ratio(columns, params):
        clicks, views = columns
        return pc.divide(pc.cast(clicks, pa.float64()), pc.cast(views, pa.float64()))

A config names it with ``operator_name: "Ratio"`` and
``operator_lib_file: "shop.operators"`` (a module, or the path of a ``.py`` file).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from tzrec.errors import ConfigError, did_you_mean

BUNDLED = ("EditDistance", "RegexReplace", "SeqExpr")

Function = Callable[[Sequence[pa.Array], Mapping[str, Any]], pa.Array]

_FUNCTIONS: dict[str, Function] = {}


def fg_operator(name: str) -> Callable[[Function], Function]:
    """Registers an operator of ``custom_feature``; use it as a decorator.

    The function gets the columns of a batch, one Arrow array of equally many rows per input
    (steps, in a sequence; text, or what the column holds), and the ``operator_params``. It
    returns as many rows: numbers, text, or lists of these; null is missing.

    Args:
        name: ``operator_name``.

    Raises:
        ConfigError: another function has the name.
    """

    def register(function: Function) -> Function:
        known = _FUNCTIONS.get(name)
        if known is not None and _identity(known) != _identity(function):
            raise ConfigError(f"two functions want to be the operator {name!r}")
        _FUNCTIONS[name] = function
        return function

    return register


def find_operator(name: str, library: str) -> Function:
    """Returns a registered operator; its library is imported first.

    Raises:
        ConfigError: there is none of that name, or the library cannot be imported.
    """
    if name not in _FUNCTIONS:
        _import(name, library)
    if name not in _FUNCTIONS:
        raise ConfigError(
            f"{library} has no operator {name!r}{did_you_mean(name, _FUNCTIONS)}",
            hint=f'decorate a function of it with @fg_operator("{name}")',
        )
    return _FUNCTIONS[name]


def _import(name: str, library: str) -> None:
    if library.endswith(".so"):
        raise ConfigError(
            f"operator {name!r}: {library} is a shared object of another feature generator",
            hint="write it as a Python function with @fg_operator (tzrec.fg.custom), and name its "
            "module as operator_lib_file",
        )
    try:
        if library.endswith(".py"):
            _import_file(Path(library))
        else:
            importlib.import_module(library)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"operator {name!r}: cannot import {library}: {error}{did_you_mean(name, BUNDLED)}",
            hint=f"bundled operators are {', '.join(BUNDLED)}",
        ) from error


def _import_file(path: Path) -> None:
    module_name = f"_tzrec_operators_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)


def _identity(function: Function) -> tuple[str, str]:
    return function.__module__, function.__qualname__
