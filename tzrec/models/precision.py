"""How wide the numbers of the dense part are: FP32, or autocast to BF16 or FP16."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from tzrec.errors import ConfigError, did_you_mean

FP32 = "FP32"
_TYPES = {"BF16": torch.bfloat16, "FP16": torch.float16}


def check_precision(name: str | None) -> str:
    """Returns ``BF16``, ``FP16``, or ``""`` for FP32.

    Args:
        name: as ``train_config.mixed_precision`` has it; None, ``""`` and ``FP32`` are the same.

    Raises:
        ConfigError: the name is none of these.
    """
    if not name or name == FP32:
        return ""
    if name not in _TYPES:
        raise ConfigError(
            f"mixed_precision is {name!r}, it must be BF16, FP16, FP32 or empty"
            f"{did_you_mean(name, [*_TYPES, FP32])}"
        )
    return name


def has_fast_bfloat16(device: torch.device) -> bool:
    """Returns whether ``device`` is a CPU with instructions for BF16 products.

    These are AVX512-BF16 and AMX. Without them BF16 is slower than FP32.
    """
    if device.type != "cpu":
        return False
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def autocast(device_type: str, mixed_precision: str | None) -> Any:
    """Returns the context of ``BF16`` or ``FP16``; of no autocast for FP32."""
    precision = check_precision(mixed_precision)
    if not precision:
        return contextlib.nullcontext()
    return torch.autocast(device_type, dtype=_TYPES[precision])
