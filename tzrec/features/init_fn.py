"""Initialisers of embedding tables from text: ``nn.init.uniform_,a=-0.01,b=0.01``."""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.errors import ConfigError, did_you_mean

InitFn = Callable[[Tensor], Any]

_EXAMPLE = "for example nn.init.uniform_,a=-0.01,b=0.01"
_PREFIXES = ("nn.init.", "torch.nn.init.")


def parse_init_fn(text: str) -> InitFn | None:
    """Returns the initialiser that ``text`` names with its arguments bound; None for ``""``.

    The text is parsed, never evaluated. Equal texts give partials that compare equal part by
    part, so that tables can be found to agree.

    Args:
        text: ``nn.init.NAME`` (or ``torch.nn.init.NAME``), then constants as ``key=value`` or by
            position after the tensor, separated by commas.

    Raises:
        ConfigError: the text names no function of torch.nn.init, an argument is no constant, or
            the function does not take the arguments.
    """
    if not text.strip():
        return None
    head, _, tail = text.partition(",")
    function = _function(text, head.strip())
    args, kwargs = _arguments(text, tail)
    try:
        # Arguments by position get their names, as a partial would put them before the tensor.
        bound = inspect.signature(function).bind(None, *args, **kwargs)
        named = dict(list(bound.arguments.items())[1:])
        init_fn = functools.partial(function, **named)
        with torch.random.fork_rng(devices=[]):
            init_fn(torch.zeros(2, 2))
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"init_fn {text!r}: {reason}", hint=_EXAMPLE) from error
    return init_fn


def _function(text: str, path: str) -> Callable[..., Any]:
    known = [name for name in dir(nn.init) if name.endswith("_") and not name.startswith("_")]
    prefix = next((prefix for prefix in _PREFIXES if path.startswith(prefix)), None)
    name = path.removeprefix(prefix) if prefix else path
    if prefix is None or name not in known:
        suggestion = did_you_mean(path, [f"nn.init.{candidate}" for candidate in known])
        raise ConfigError(
            f"init_fn {text!r}: {path!r} is no function of torch.nn.init{suggestion}",
            hint=_EXAMPLE,
        )
    function: Callable[..., Any] = getattr(nn.init, name)
    return function


def _arguments(text: str, tail: str) -> tuple[list[Any], dict[str, Any]]:
    try:
        call = ast.parse(f"f({tail})", mode="eval").body
        if not isinstance(call, ast.Call):
            raise ValueError("not a list of arguments")
        args = [ast.literal_eval(arg) for arg in call.args]
        kwargs = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise ConfigError(
            f"init_fn {text!r}: the arguments {tail.strip()!r} are not constants like "
            "a=-0.01,b=0.01",
            hint=_EXAMPLE,
        ) from error
    return args, kwargs
