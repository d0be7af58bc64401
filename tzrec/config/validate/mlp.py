"""Rules for every MLP and every mask block of a config."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from tzrec.config.problem import Problem, warning
from tzrec.config.specs import ACTIVATIONS
from tzrec.config.validate.frame import Context
from tzrec.errors import did_you_mean


def check_mlp(mlp: Any, path: str, context: Context) -> Iterator[Problem]:
    """Layers are given, dropout fits them, the norm and the activation exist."""
    if not mlp.hidden_units and not context.is_broken(path):
        yield Problem(
            f"{path}.hidden_units", "is missing: the MLP has no layers", "hidden_units: [256, 128]"
        )
    ratios, layers = len(mlp.dropout_ratio), len(mlp.hidden_units)
    if layers and ratios not in (0, 1, layers):
        yield Problem(
            f"{path}.dropout_ratio",
            f"has {ratios} values for {layers} layers, must be one for all or one per layer",
        )
    if mlp.use_bn and mlp.use_ln:
        yield Problem(f"{path}.use_ln", "use_bn and use_ln exclude each other", "keep one")
    problem = activation_problem(mlp.activation)
    if problem:
        yield Problem(
            f"{path}.activation", problem, 'for example "nn.ReLU", "nn.PReLU", "Dice", "" for none'
        )


def activation_problem(text: str) -> str:
    """Returns what is wrong with an activation such as ``nn.LeakyReLU(negative_slope=0.1)``."""
    if text in ("", "Dice"):
        return ""
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        return f"is {text!r}, which cannot be read"
    name = ast.unparse(node.func) if isinstance(node, ast.Call) else ast.unparse(node)
    prefix, _, last = name.rpartition(".")
    if prefix in ("nn", "torch.nn") and last not in ACTIVATIONS:
        near = did_you_mean(name, [f"nn.{known}" for known in ACTIVATIONS])
        return f"is {text!r}, torch has no such activation{near}"
    if not prefix:
        options = ["Dice", *(f"nn.{known}" for known in ACTIVATIONS)]
        near = (
            f"; did you mean 'nn.{name}'?" if name in ACTIVATIONS else did_you_mean(name, options)
        )
        return f"is {text!r}, must be a class path{near}"
    return ""


def check_mask_block(block: Any, path: str, context: Context) -> Iterator[Problem]:
    """The mask has hidden units, and what is written about them counts."""
    del context
    if block.reduction_ratio == 0 and not block.aggregation_dim:
        yield Problem(
            f"{path}.aggregation_dim",
            "is missing: reduction_ratio is 0, so it says how many hidden units the mask has",
        )
    elif block.reduction_ratio != 0 and block.aggregation_dim:
        written = "" if block.HasField("reduction_ratio") else " (the default)"
        yield warning(
            f"{path}.aggregation_dim",
            f"has no effect: reduction_ratio {block.reduction_ratio:g}{written} says how many "
            "hidden units the mask has",
            "set reduction_ratio: 0, or remove aggregation_dim",
        )
