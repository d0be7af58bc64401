"""Tells models with different weights apart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

_VALUES = 4096
_AT_ONCE = 1 << 24


def fingerprint(parts: Mapping[str, nn.Module]) -> str:
    """Returns 16 hexadecimal digits that are the same for the same weights.

    They are made of name, type and shape of every tensor, its sum, and some thousand of its values,
    evenly spread: quick for any table. A step of training changes layers, or the sum of a table.

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
                digest.update(_sum(flat).to_bytes(8, "little"))
    return digest.hexdigest()[:16]


def _sum(values: Tensor) -> int:
    """Returns the sum of the bytes, in which no order counts, modulo 2^64."""
    total = 0
    for part in values.split(_AT_ONCE):
        total += int(part.contiguous().view(torch.uint8).sum(dtype=torch.int64))
    return total % 2**64
