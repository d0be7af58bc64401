"""Initialisers of embedding tables from text: ``nn.init.uniform_,a=-0.01,b=0.01``."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.errors import ConfigError, did_you_mean

InitFn = Callable[[Tensor], Any]


def parse_init_fn(text: str) -> InitFn | None:
    """Returns the initialiser that ``text`` names with its arguments bound; None for ``""``.

    Args:
        text: ``nn.init.NAME`` (or ``torch.nn.init.NAME``), then constants as ``key=value`` or by
            position, separated by commas.

    Raises:
        ConfigError: the text names no function of torch.nn.init or an argument is no constant.
    """
    if not text.strip():
        return None
    head, _, tail = text.partition(",")
    name = head.strip()
    for prefix in ("torch.nn.init.", "nn.init."):
        name = name.removeprefix(prefix)
    function = getattr(nn.init, name, None)
    if not callable(function) or not name.endswith("_") or name.startswith("_"):
        known = [n for n in dir(nn.init) if n.endswith("_") and not n.startswith("_")]
        raise ConfigError(
            f"init_fn {text!r}: torch.nn.init has no {name!r}{did_you_mean(name, known)}",
            hint="for example nn.init.uniform_,a=-0.01,b=0.01",
        )
    args, kwargs = _arguments(text, tail)
    bound = functools.partial(function, *args, **kwargs)
    try:
        bound(torch.empty(2, 2))
    except TypeError as error:
        raise ConfigError(f"init_fn {text!r}: {error}") from error
    # Positional constants follow the tensor: init(tensor, a, b).
    return functools.partial(_call, function, args, kwargs) if args else bound


def _call(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensor: Tensor) -> Any:
    return function(tensor, *args, **kwargs)


def _arguments(text: str, tail: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    try:
        call = ast.parse(f"f({tail})", mode="eval").body
        assert isinstance(call, ast.Call)
        args = tuple(ast.literal_eval(arg) for arg in call.args)
        kwargs = {str(kw.arg): ast.literal_eval(kw.value) for kw in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise ConfigError(
            f"init_fn {text!r}: the arguments must be constants like a=-0.01,b=0.01"
        ) from error
    return args, kwargs
