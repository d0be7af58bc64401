"""What compiled code needs of a machine, at the export and where it is loaded."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections.abc import Mapping
from typing import Any

import torch

from tzrec.errors import ServingError
from tzrec.utils.compiler import find_compiler

# What code for a CPU capability of torch is compiled for: a level of the x86-64 ABI, its vector
# width, and what a CPU must be able to (names of torch.cpu.get_capabilities).
_V3 = ("avx2", "bmi", "bmi2", "f16c", "fma3", "lzcnt")
_V4 = (*_V3, "avx512_f", "avx512_bw", "avx512_cd", "avx512_dq", "avx512_vl")
_LEVELS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "AVX512": ("x86-64-v4", 512, _V4),
    "AVX2": ("x86-64-v3", 256, _V3),
}


def compiler_options(*, autotune: bool = False) -> dict[str, Any]:
    """Returns Inductor's options for code that runs on machines like this one.

    Args:
        autotune: time several kernels for each product of matrices.

    Raises:
        MissingDependencyError: there is no C++ compiler.
    """
    what = "an export that is compiled ahead of time"
    options: dict[str, Any] = {
        "cpp.cxx": (None, find_compiler(what, otherwise="export with target torchscript")),
        # The number of threads is that of the process that runs the code.
        "cpp.dynamic_threads": True,
    }
    level = _LEVELS.get(torch.backends.cpu.get_cpu_capability())
    if level is not None and platform.machine() == "x86_64":
        options["cpp.march"], options["cpp.simdlen"], _ = level
    if autotune:
        options["max_autotune"] = True
        options["triton.autotune_with_sample_inputs"] = True
    return options


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Returns what code that was compiled here needs: versions, architecture, capability."""
    capability = torch.backends.cpu.get_cpu_capability()
    needs = _LEVELS[capability][2] if capability in _LEVELS else ()
    found: dict[str, Any] = {
        "torch": importlib.metadata.version("torch"),
        "machine": platform.machine(),
        "capability": capability,
        "needs": list(needs),
    }
    if device.type == "cuda":
        found["cuda"] = list(torch.cuda.get_device_capability(device))
    return found


def check_machine(wanted: Mapping[str, Any], device: torch.device, *, what: str) -> None:
    """Refuses code that this machine cannot run.

    Args:
        wanted: of `describe_machine`.
        device: where it is to run.
        what: its place, for messages.

    Raises:
        ServingError: another version of torch, architecture, or a CPU or GPU that lacks something.
    """
    hint = "export the checkpoint again on a machine like this one, or with target torchscript"
    written, running = str(wanted["torch"]), importlib.metadata.version("torch")
    if _major_minor(written) != _major_minor(running):
        raise ServingError(
            f"{what} was compiled for torch {written}, torch {running} runs; compiled code works "
            "with the version that it was compiled for only",
            hint=hint,
        )
    if wanted["machine"] != platform.machine():
        raise ServingError(
            f"{what} was compiled for {wanted['machine']}, this machine is {platform.machine()}",
            hint=hint,
        )
    able = _abilities()
    lacking = [name for name in wanted["needs"] if not able.get(name)]
    if lacking:
        raise ServingError(
            f"{what} was compiled for CPUs with {wanted['capability']}; this one lacks "
            f"{', '.join(lacking)}",
            hint=hint,
        )
    if device.type == "cuda":
        found = list(torch.cuda.get_device_capability(device))
        if found != wanted.get("cuda"):
            raise ServingError(
                f"{what} was compiled for CUDA capability {wanted.get('cuda')}, this GPU has "
                f"{found}",
                hint=hint,
            )


def _abilities() -> Mapping[str, Any]:
    found: Mapping[str, Any] = torch.cpu.get_capabilities()
    return found


def _major_minor(version: str) -> list[str]:
    return re.split(r"[.+]", version)[:2]
