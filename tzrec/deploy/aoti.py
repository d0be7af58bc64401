"""Ahead-of-time compiled models: written by torch.export and Inductor, run without Python.

Target ``aoti``: ``scripted_sparse_model.pt`` (batch and embeddings, TorchScript) and
``aoti/aoti_model.pt2`` (all behind them, compiled). Target ``aoti_unified``: the whole model in
``aoti/aoti_model.pt2``. ``aoti/target.json`` says which inputs and outputs the package has, and
which machine it was compiled for.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tzrec.deploy import torchscript
from tzrec.deploy.exported import Exported, export_graph
from tzrec.deploy.machine import check_machine, compiler_options, describe_machine
from tzrec.deploy.package import Package, foreign_operators
from tzrec.deploy.split import Split, split
from tzrec.deploy.trace import model_name, quiet, trace
from tzrec.deploy.unify import unify
from tzrec.errors import ExportError, ServingError
from tzrec.models.wrappers import CombinedModelWrapper

logger = logging.getLogger("tzrec")

SPARSE_MODEL = "scripted_sparse_model.pt"
SPARSE_CODE = "gm_sparse.code"
CODE = "gm.code"
PACKAGE = "aoti/aoti_model.pt2"
TARGET = "aoti/target.json"
GRAPHS = "graph"


def write(
    wrapper: nn.Module,
    inputs: dict[str, Tensor],
    work: Path,
    *,
    unified: bool = False,
    mixed_precision: str = "",
    autotune: bool = False,
) -> None:
    """Compiles a model into a directory; the manifest is the caller's.

    Writes for ``unified=False``: ``scripted_sparse_model.pt``, ``gm_sparse.code``, ``gm.code``,
    ``aoti/aoti_model.pt2``, ``aoti/target.json``, ``graph/{full,sparse,dense}.graph``; for
    ``unified=True``: ``gm.code``, ``aoti/aoti_model.pt2``, ``aoti/target.json``,
    ``graph/full.graph``. There is no ``scripted_model.pt``.

    Args:
        wrapper: `ScriptWrapper` (tables quantised already, where asked for) in inference mode:
            (dict of tensors, device) → dict of tensors.
        inputs: the golden batch in parse keys, without labels.
        work: directory of the part that is being exported.
        unified: one package instead of the split pair.
        mixed_precision: autocast of the compiled model, ``BF16`` or ``FP16``.
        autotune: let Inductor time its kernels on tensors of the golden batch's sizes.

    Raises:
        MissingDependencyError: there is no C++ compiler; said before anything is compiled.
        ExportError: the model cannot be traced, split, exported or compiled; says why.
    """
    options = compiler_options(autotune=autotune)
    with torch.inference_mode(False), torch.no_grad():
        traced = trace(wrapper)
        device = next(iter(inputs.values())).device
        for folder in (work / GRAPHS, (work / PACKAGE).parent):
            folder.mkdir(exist_ok=True)
        (work / CODE).write_text(traced.code)
        _write_graph(work, "full", traced)
        if unified:
            whole = unify(traced, inputs)
            exported = export_graph(whole, dict, inputs, mixed_precision=mixed_precision)
        else:
            parts = _write_sparse(traced, inputs, work, mixed_precision)
            exported = export_graph(
                parts.dense,
                lambda data: parts.sparse(data, device),
                inputs,
                mixed_precision=mixed_precision,
            )
        _compile(exported, work / PACKAGE, options, name=model_name(wrapper))
    target = Target(
        unified,
        device.type,
        [dataclasses.asdict(each) for each in exported.inputs],
        exported.outputs,
        describe_machine(device),
    )
    (work / TARGET).write_text(json.dumps(dataclasses.asdict(target), indent=2) + "\n")


def _write_sparse(
    traced: torch.fx.GraphModule, inputs: dict[str, Tensor], work: Path, mixed_precision: str
) -> Split:
    """Splits a model, and writes its sparse part and the graphs of both."""
    parts = split(traced, inputs)
    sparse = torchscript.compile_graph(parts.sparse, mixed_precision)
    scripted = torchscript.Scripted(sparse, parts.sparse.code)
    torchscript.save(scripted, work / SPARSE_MODEL, work / SPARSE_CODE)
    _write_graph(work, "sparse", parts.sparse)
    _write_graph(work, "dense", parts.dense)
    return parts


@dataclasses.dataclass(frozen=True)
class Target:
    """What ``aoti/target.json`` says.

    Attributes:
        unified: the package is the whole model.
        device: type of the device that it was compiled for.
        inputs: name, dtype and shape (None = any size) of the package's inputs, in its order.
        outputs: names, in its order.
        machine: what it was compiled for, see `describe_machine`.
    """

    unified: bool
    device: str
    inputs: list[dict[str, Any]]
    outputs: list[str]
    machine: dict[str, Any]


def load(directory: Path, device: torch.device) -> Any:
    """Loads what `write` wrote, split or unified, for `torchscript.run`.

    The package is machine code: load none that you would not run.

    Args:
        directory: an artefact with ``aoti/target.json``.
        device: where it runs.

    Returns:
        A module: (parse keys → tensors, device) → output → tensor (B, ...); several threads may
        call it.

    Raises:
        ServingError: it was compiled for another device, architecture, CPU capability or
            version of torch, or a file is broken.
    """
    target = _read_target(directory / TARGET)
    if device.type != target.device:
        raise ServingError(
            f"{directory} was compiled for {target.device}, it cannot run on {device.type}",
            hint="export the checkpoint again on a machine with that device",
        )
    check_machine(target.machine, device, what=str(directory))
    package = Package(directory / PACKAGE, target.inputs, target.outputs, device=device)
    if target.unified:
        return _Unified(package)
    sparse = torchscript.load(directory / SPARSE_MODEL, device)
    return CombinedModelWrapper(sparse, package)


class _Unified(nn.Module):
    """A package of a whole model, called like a `ScriptWrapper`."""

    def __init__(self, package: nn.Module) -> None:
        super().__init__()
        self.package = package

    def forward(self, data: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = self.package(data)
        return outputs


def _read_target(path: Path) -> Target:
    try:
        return Target(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ServingError(
            f"{path} cannot be read: {error}", hint="export the checkpoint again"
        ) from error


def _write_graph(work: Path, name: str, module: Any) -> None:
    (work / GRAPHS / f"{name}.graph").write_text(f"{module.graph}\n")


def _compile(exported: Exported, path: Path, options: dict[str, Any], *, name: str) -> None:
    import torch._inductor
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    start = time.monotonic()
    logger.info("export: compiling %s with %s", name, options["cpp.cxx"][1])
    # Inductor names a library by its code, not by its weights: exports of equal models that run
    # at the same time would write into each other's.
    own = f"tzrec_{uuid.uuid4().hex}"
    try:
        with quiet():
            torch._inductor.aoti_compile_and_package(
                exported.program,
                package_path=str(path),
                inductor_configs=options | {"aot_inductor.model_name_for_generated_files": own},
            )
    except Exception as error:
        raise ExportError(
            f"Inductor cannot compile {name}: {error}", hint="export it with target torchscript"
        ) from error
    finally:
        for left in Path(cache_dir()).glob(f"*/{own}*"):
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()
    foreign = foreign_operators(path)
    if foreign:
        raise ExportError(
            f"{name} calls operators that compiled code cannot: {', '.join(foreign)}",
            hint="export it with target torchscript",
        )
    logger.info("export: compiled %s in %.0f s", name, time.monotonic() - start)
