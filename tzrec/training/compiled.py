"""``train_config.compile_dense``: the layers behind the lookups, compiled by torch.compile."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

import torch
from torch import nn

from tzrec.errors import Unsupported
from tzrec.models.model import BaseModel
from tzrec.modules.embedding import EmbeddingGroup
from tzrec.modules.linear import RaggedLinear
from tzrec.utils.compiler import find_compiler

logger = logging.getLogger("tzrec")


def compile_dense(model: BaseModel, *, backend: str | Callable = "inductor") -> list[str]:
    """Marks the dense layers of a model to be compiled when they are called first.

    Lookups stay as they are. Batches of any size but one row run the same code, whatever came
    before, so that a run that is resumed computes what the first one would have. Weights, names
    and checkpoints do not change. torch keeps compiled code in ``TORCHINDUCTOR_CACHE_DIR`` for the
    next run.

    Args:
        model: the model, on its device.
        backend: of torch.compile.

    Returns:
        The names of the layers.

    Raises:
        MissingDependencyError: there is no C++ compiler.
        Unsupported: the model has no layers apart from its lookups.
    """
    if backend == "inductor":
        find_compiler("train_config.compile_dense", otherwise="leave compile_dense out")
    blocks = dict(_blocks(model))
    if not blocks:
        raise Unsupported(
            f"train_config.compile_dense: {type(model).__name__} has no layers behind its lookups",
            hint="leave compile_dense out",
        )
    for block in blocks.values():
        # Isolated: layers of a class share a limit otherwise; what is over it runs as written.
        block.compile(backend=backend, dynamic=True, isolate_recompiles=True)
    logger.info("compiling %s in the first step: %s", type(model).__name__, ", ".join(blocks))
    return list(blocks)


@contextlib.contextmanager
def as_written() -> Iterator[None]:
    """Runs compiled layers uncompiled: an evaluation's numbers are those of any other process."""
    with torch.compiler.set_stance("force_eager"):
        yield


def _blocks(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yields the largest submodules that look nothing up, by name."""
    for name, child in module.named_children():
        if name.startswith("_") or name == "group_variational_dropouts":
            continue  # losses, metrics, parts of the lookups
        path = f"{prefix}{name}"
        if isinstance(child, EmbeddingGroup):
            yield from _blocks(child.seq_encoders, f"{path}.seq_encoders.")
        elif _is_container(child):
            yield from _blocks(child, f"{path}.")
        elif not _gains_nothing(child):
            yield path, child


def _is_container(module: nn.Module) -> bool:
    if isinstance(module, (nn.ModuleDict, nn.ModuleList)):
        return True
    return any(isinstance(inner, EmbeddingGroup) for inner in module.modules())


def _gains_nothing(module: nn.Module) -> bool:
    """One operator; or layers over steps, whose number is another in each batch."""
    if type(module).__module__.startswith("torch."):
        return True
    return any(isinstance(inner, RaggedLinear) for inner in module.modules())
