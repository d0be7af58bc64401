"""The dense part of a model as ONNX, for a runtime that is not torch.

Lookups stay in TorchScript (or in a store of embeddings of the reader's own): ONNX has neither
jagged batches nor tables that do not fit into one file of 2 GB.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tzrec.deploy import torchscript
from tzrec.deploy.exported import Exported, Tensors, export_graph
from tzrec.deploy.split import split
from tzrec.deploy.trace import quiet, trace
from tzrec.deploy.verify import check_equal, parity_cases
from tzrec.errors import ExportError, MissingDependencyError

logger = logging.getLogger("tzrec")

SPARSE_MODEL = "scripted_sparse_model.pt"
SPARSE_CODE = "gm_sparse.code"
DENSE_MODEL = "dense.onnx"
DESCRIPTION = "dense.json"
# Another library multiplies matrices in another order.
TOLERANCE = 1e-5


def write(wrapper: nn.Module, inputs: Tensors, work: Path) -> dict[str, float]:
    """Writes the two parts of a model, and checks that together they score like it.

    Files: ``scripted_sparse_model.pt`` (parse keys → the inputs of the other), ``dense.onnx``,
    ``dense.json`` (their names, types and shapes; null = any size), ``gm_sparse.code``.

    Args:
        wrapper: `ScriptWrapper` in inference mode, on the CPU.
        inputs: a batch in parse keys.
        work: directory that exists.

    Returns:
        Output → largest difference to the model on ``inputs``.

    Raises:
        MissingDependencyError: onnx, onnxscript or onnxruntime is not installed.
        ExportError: the model cannot be split or exported, or ONNX Runtime scores otherwise.
    """
    runtime = _import_onnx()
    with torch.inference_mode(False), torch.no_grad():
        parts = split(trace(wrapper), inputs)
        sparse = torchscript.compile_graph(parts.sparse)
        exported = export_graph(
            parts.dense, lambda data: parts.sparse(data, torchscript.CPU), inputs
        )
        torchscript.save(
            torchscript.Scripted(sparse, parts.sparse.code),
            work / SPARSE_MODEL,
            work / SPARSE_CODE,
        )
        _convert(exported, work / DENSE_MODEL)
    described = {
        "inputs": [dataclasses.asdict(each) for each in exported.inputs],
        "outputs": exported.outputs,
    }
    (work / DESCRIPTION).write_text(json.dumps(described, indent=2) + "\n")
    session = runtime.InferenceSession(work / DENSE_MODEL, providers=["CPUExecutionProvider"])
    found: dict[str, float] = {}
    with torch.inference_mode():
        for case, batch in reversed(parity_cases(inputs).items()):
            actual = run(session, sparse(batch, torchscript.CPU))
            found = check_equal(
                dict(wrapper(batch, torchscript.CPU)), actual, tolerance=TOLERANCE, case=case
            )
    return found


def run(session: Any, crossing: Tensors) -> Tensors:
    """Scores with ONNX Runtime.

    Args:
        session: of ``dense.onnx``.
        crossing: what the sparse part gives.
    """
    names = [each.name for each in session.get_outputs()]
    given = {each.name: crossing[each.name].numpy() for each in session.get_inputs()}
    outputs: list[Any] = session.run(names, given)
    return {name: torch.from_numpy(value) for name, value in zip(names, outputs, strict=True)}


def _convert(exported: Exported, path: Path) -> None:
    names = [each.name for each in exported.inputs]
    logs = [logging.getLogger(name) for name in ("onnxscript", "torch.onnx")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        with quiet():
            program: Any = torch.onnx.export(
                exported.program,
                (),
                None,
                dynamo=True,
                verbose=False,
                input_names=names,
                output_names=exported.outputs,
            )
            program.save(str(path))
    except Exception as error:
        raise ExportError(f"torch.onnx cannot convert the dense part: {error}") from error
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def _import_onnx() -> Any:
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"ONNX needs more packages: {error}",
            hint="pip install onnx onnxscript onnxruntime (or tzrec[onnx])",
        ) from error
    return onnxruntime
