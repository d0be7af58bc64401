"""Initialisers of embedding tables from text: ``nn.init.uniform_,a=-0.01,b=0.01``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.config.init_text import EXAMPLE, read_init_fn
from tzrec.errors import ConfigError

InitFn = Callable[[Tensor], Any]


def parse_init_fn(text: str) -> InitFn | None:
    """Returns the initialiser that ``text`` names with its arguments bound; None for ``""``.

    Equal texts give partials that compare equal part by part, so that tables can be found to
    agree.

    Args:
        text: as `tzrec.config.init_text.read_init_fn` reads it.

    Raises:
        ConfigError: as `read_init_fn`, or the function refuses the values of the arguments.
    """
    if not text.strip():
        return None
    name, arguments = read_init_fn(text)
    init_fn = functools.partial(getattr(nn.init, name), **arguments)
    try:
        with torch.random.fork_rng(devices=[]):
            init_fn(torch.zeros(2, 2))
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"init_fn {text!r}: {reason}", hint=EXAMPLE) from error
    return init_fn
