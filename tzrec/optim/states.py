"""States that optimizers of `torch.optim` make in their first step."""

from __future__ import annotations

import torch
from torch import Tensor


def create_states(optimizer: torch.optim.Optimizer) -> None:
    """Runs a step that changes nothing for the parameters that have no state yet."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    fresh = [parameter for parameter in parameters if not optimizer.state.get(parameter)]
    gradients = [parameter.grad for parameter in parameters]
    settings = [dict(group) for group in optimizer.param_groups]
    for parameter in parameters:
        parameter.grad = None
    for parameter in fresh:
        parameter.grad = torch.zeros_like(parameter)
    for group in optimizer.param_groups:
        group["lr"] = group["weight_decay"] = 0.0
    optimizer.step()
    for parameter in fresh:
        step = optimizer.state.get(parameter, {}).get("step")
        if isinstance(step, Tensor):
            step.zero_()
    for group, setting in zip(optimizer.param_groups, settings, strict=True):
        group.update(setting)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
