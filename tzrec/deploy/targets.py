"""The targets of an export: each writes a model into a directory and loads it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.deploy import artefact, torchscript
from tzrec.deploy.options import ExportOptions


def write_model(
    wrapper: nn.Module, inputs: dict[str, Tensor], work: Path, options: ExportOptions
) -> None:
    """Compiles a model and writes its files.

    Args:
        wrapper: `ScriptWrapper` in inference mode.
        inputs: a batch in parse keys.
        work: directory of the artefact.
        options: say which target.

    Raises:
        ExportError: the model cannot be compiled.
        MissingDependencyError: there is no compiler for the target.
    """
    if options.target == "torchscript":
        scripted = torchscript.script_model(wrapper, options.mixed_precision)
        torchscript.save(scripted, work / artefact.SCRIPTED_MODEL, work / artefact.TRACED_CODE)
        return
    from tzrec.deploy import aoti  # loads Inductor, which TorchScript needs nothing of

    aoti.write(
        wrapper,
        inputs,
        work,
        unified=options.target == "aoti_unified",
        mixed_precision=options.mixed_precision,
        autotune=options.autotune,
    )


def load_model(directory: Path, target: str, device: torch.device) -> Any:
    """Loads what `write_model` wrote, for `torchscript.run`.

    Raises:
        ServingError: a file cannot be read, or was compiled for another machine.
    """
    if target == "torchscript":
        return torchscript.load(directory / artefact.SCRIPTED_MODEL, device)
    from tzrec.deploy import aoti

    return aoti.load(directory, device)
