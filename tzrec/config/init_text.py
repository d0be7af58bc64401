"""``init_fn`` texts: the name of an initialiser of torch and its constant arguments."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from tzrec.errors import ConfigError, did_you_mean

EXAMPLE = "for example nn.init.uniform_,a=-0.01,b=0.01"
_PREFIXES = ("torch.nn.init.", "nn.init.")

# The functions of torch.nn.init that fill a matrix, with the arguments after the tensor that a
# text can write, and the one without a default.
_FAN = ("a", "mode", "nonlinearity")
INITIALISERS: Mapping[str, tuple[str, ...]] = {
    "constant_": ("val",),
    "eye_": (),
    "kaiming_normal_": _FAN,
    "kaiming_uniform_": _FAN,
    "normal_": ("mean", "std"),
    "ones_": (),
    "orthogonal_": ("gain",),
    "sparse_": ("sparsity", "std"),
    "trunc_normal_": ("mean", "std", "a", "b"),
    "uniform_": ("a", "b"),
    "xavier_normal_": ("gain",),
    "xavier_uniform_": ("gain",),
    "zeros_": (),
}
REQUIRED: Mapping[str, str] = {"constant_": "val", "sparse_": "sparsity"}


def read_init_fn(text: str) -> tuple[str, dict[str, Any]]:
    """Returns the function of torch.nn.init that a text names, and its arguments by name.

    The text is parsed, never evaluated.

    Args:
        text: ``nn.init.NAME`` (or ``torch.nn.init.NAME``), then constants as ``key=value`` or by
            position after the tensor, separated by commas.

    Raises:
        ConfigError: the text names no such function, an argument is no constant, or the function
            does not take the arguments.
    """
    head, _, tail = text.partition(",")
    name = _function(text, head.strip())
    return name, _arguments(text, name, tail)


def _function(text: str, path: str) -> str:
    prefix = next((prefix for prefix in _PREFIXES if path.startswith(prefix)), None)
    name = path.removeprefix(prefix or "")
    if prefix is None or name not in INITIALISERS:
        near = did_you_mean(path, [f"nn.init.{known}" for known in INITIALISERS])
        raise ConfigError(
            f"init_fn {text!r}: {path!r} is no function of torch.nn.init that fills a table{near}",
            hint=EXAMPLE,
        )
    return name


def _arguments(text: str, name: str, tail: str) -> dict[str, Any]:
    try:
        call = ast.parse(f"f({tail})", mode="eval").body
        if not isinstance(call, ast.Call):
            raise ValueError("not a list of arguments")
        positional = [ast.literal_eval(arg) for arg in call.args]
        named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise ConfigError(
            f"init_fn {text!r}: the arguments {tail.strip()!r} are not constants like "
            "a=-0.01,b=0.01",
            hint=EXAMPLE,
        ) from error
    known = INITIALISERS[name]
    arguments = dict(zip(known, positional, strict=False))
    missing = REQUIRED.get(name, "")
    if len(positional) > len(known):
        what = f"{name} takes at most {len(known)} arguments, not {len(positional)}"
    elif twice := next((key for key in named if key in arguments), ""):
        what = f"{twice} is given twice"
    elif unknown := next((key for key in named if key not in known), ""):
        what = f"{name} has no argument {unknown!r}{did_you_mean(unknown, known)}"
    elif missing and missing not in arguments and missing not in named:
        what = f"{name} needs {missing}"
    else:
        return {**arguments, **named}
    hint = f"its arguments: {', '.join(known)}" if known else "it has no arguments"
    raise ConfigError(f"init_fn {text!r}: {what}", hint=hint)
