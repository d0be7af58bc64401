"""Tells models with different weights apart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

_VALUES = 4096


def fingerprint(parts: Mapping[str, nn.Module]) -> str:
    """Returns 16 hexadecimal digits that are the same for the same weights.

    They are made of name, type and shape of every tensor, and of some thousand of its values,
    evenly spread: quick for any table, and any step of training changes them.

    Args:
        parts: name → module, as of `BaseModel.export_parts`; all of a model together, so that the
            parts of one model have one fingerprint.
    """
    digest = hashlib.sha256()
    for part, module in sorted(parts.items()):
        for name, value in sorted(module.state_dict().items()):
            if isinstance(value, Tensor):
                digest.update(f"{part}/{name} {value.dtype} {tuple(value.shape)} ".encode())
                flat = value.detach().reshape(-1)
                some = flat[:: max(1, flat.numel() // _VALUES)].contiguous().cpu()
                digest.update(some.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
