"""From a model in Python to a graph of operations on tensors."""

from __future__ import annotations

import contextlib
import logging
import typing
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from torch import fx, nn
from torchrec.fx import Tracer

from tzrec.deploy.unpack import unpack
from tzrec.errors import ExportError
from tzrec.modules.embedding import EmbeddingGroup

# Key of `Node.meta`: which output of the feature groups a node is (``deep``, ``seq.sequence``).
GROUP = "group"


def trace(wrapper: nn.Module) -> fx.GraphModule:
    """Traces a model.

    Args:
        wrapper: `ScriptWrapper` in inference mode: (dict of tensors, device) → dict of tensors.

    Returns:
        The graph, without TorchRec's containers (see `unpack`). TorchRec's collections have
        become lookups in their tables, which TorchScript compiles.

    Raises:
        ExportError: the model does something that cannot be traced.
    """
    with quiet():
        try:
            graph = _GroupTracer().trace(wrapper)
            _resolve_types(graph, wrapper)
            unpack(graph, wrapper)
            return fx.GraphModule(wrapper, graph, model_name(wrapper))
        except Exception as error:
            raise ExportError(
                f"{model_name(wrapper)} cannot be traced: {error}",
                hint="forward must not branch on the values or the number of rows of tensors",
            ) from error


def model_name(wrapper: nn.Module) -> str:
    """Returns the class of the model in a wrapper, for messages."""
    return type(getattr(wrapper, "model", wrapper)).__name__


class _GroupTracer(Tracer):
    """Writes on the outputs of feature groups what they are."""

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        found = super().call_module(m, forward, args, kwargs)
        if isinstance(m, EmbeddingGroup) and isinstance(found, dict):
            for name, value in found.items():
                if isinstance(value, fx.Proxy):
                    value.node.meta[GROUP] = name
        return found


def _resolve_types(graph: fx.Graph, wrapper: nn.Module) -> None:
    """Gives the traced code the types of ``forward``, which may be written as text."""
    hints = typing.get_type_hints(type(wrapper).forward)
    for node in graph.nodes:
        if node.op == "placeholder":
            node.type = hints.get(node.target, node.type)
        elif node.op == "output":
            node.type = hints.get("return", node.type)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences what torch says while it traces, compiles and loads."""
    # torch.jit is deprecated from Python 3.14 on and TorchRec's tracer talks about itself.
    tracer_log = logging.getLogger("torch.fx._symbolic_trace")
    level = tracer_log.level
    tracer_log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        tracer_log.setLevel(level)
