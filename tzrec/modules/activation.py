"""Activations by name: ``"nn.ReLU"``, ``"nn.LeakyReLU(negative_slope=0.1)"``, ``"Dice"``."""

from __future__ import annotations

import ast
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.errors import ConfigError, did_you_mean
from tzrec.modules.batch_norm import BatchNorm
from tzrec.registry import load_by_path

_NAMES = "ReLU LeakyReLU PReLU ELU SELU GELU SiLU Mish Sigmoid Tanh Softplus Identity"
_KNOWN = ["Dice", *(f"nn.{name}" for name in _NAMES.split(" "))]


class Dice(nn.Module):
    """Data-adaptive activation of the Deep Interest Network (arXiv 1706.06978, section 5.3).

    ``alpha (1 - p) x + p x`` with ``p = sigmoid(BN(x))``, BN without scale and shift, alpha
    starting at 0.

    Args:
        hidden_size: C, size of the last axis.
        dim: number of axes of the input, 2 for (B, C) or 3 for (B, T, C).
        device: where the parameter lives.

    Raises:
        ConfigError: ``dim`` is neither 2 nor 3.
    """

    def __init__(
        self, hidden_size: int, dim: int = 2, *, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        if dim not in (2, 3):
            raise ConfigError(f"Dice works on inputs of 2 or 3 axes, not {dim}")
        self._dim = dim
        self.bn = BatchNorm(hidden_size, affine=False, device=device)
        self.alpha = nn.Parameter(torch.zeros(hidden_size, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the activated ``x``, (B, C) or (B, T, C)."""
        if self._dim == 3:
            p = torch.sigmoid(self.bn(x.transpose(1, 2)).transpose(1, 2))
        else:
            p = torch.sigmoid(self.bn(x))
        return self.alpha * (1 - p) * x + p * x


def get_activation(
    text: str, hidden_size: int = 0, dim: int = 2, *, device: torch.device | str | None = None
) -> nn.Module | None:
    """Returns the activation that a config names, None for ``""``.

    Args:
        text: a class path, with constants as arguments if it wants some. ``nn.`` stands for
            ``torch.nn.``.
        hidden_size: size of the last axis, for activations that have weights per column (Dice).
        dim: number of axes of the input.
        device: where weights live.

    Raises:
        ConfigError: the text is no class path with constants, the class is unknown, no module,
            or refuses the arguments.
    """
    if not text.strip():
        return None
    path, args, kwargs = _parse(text)
    if path == "Dice" and not args and not kwargs:
        return Dice(hidden_size, dim, device=device)
    cls = _resolve(path)
    if "device" in getattr(cls.__init__, "__annotations__", {}) or cls is nn.PReLU:
        kwargs = {"device": device, **kwargs}
    try:
        return cls(*args, **kwargs)
    except TypeError as error:
        raise ConfigError(f"activation {text!r}: {error}") from error


def _parse(text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Splits ``a.b.C(1, x=2)`` into path, arguments and keyword arguments; evaluates nothing."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        if isinstance(node, ast.Call):
            args = [ast.literal_eval(arg) for arg in node.args]
            kwargs = {str(k.arg): ast.literal_eval(k.value) for k in node.keywords}
            node = node.func
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.insert(0, node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            raise ValueError
        return ".".join([node.id, *parts]), args, kwargs
    except (SyntaxError, ValueError) as error:
        raise ConfigError(
            f"activation {text!r} is no class path with constant arguments",
            hint="for example nn.ReLU or nn.LeakyReLU(negative_slope=0.1)",
        ) from error


def _resolve(path: str) -> type[nn.Module]:
    module_path, _, name = path.rpartition(".")
    if module_path in ("nn", "torch.nn"):
        cls = getattr(nn, name, None)
    elif module_path:
        cls = load_by_path(path)
    else:
        cls = None
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise ConfigError(
            f"unknown activation {path!r}{did_you_mean(path, _KNOWN)}",
            hint="write a class of torch.nn as nn.NAME, Dice, or the full path of your own module",
        )
    return cls
