"""A whole traced model for torch.export: sizes that depend on data become symbols of its own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from tzrec.batch import JaggedTensor, KeyedJaggedTensor, KeyedTensor
from tzrec.deploy import exportable
from tzrec.deploy.split import EXPORTABLE, LOOKUPS, index_jagged, kinds_of
from tzrec.errors import ExportError
from tzrec.modules import causal_transformer, jagged
from tzrec.ops import tiling

# What torch.export cannot look into → what does the same.
_SAME = {
    **EXPORTABLE,
    torch.ops.fbgemm.asynchronous_complete_cumsum: exportable.complete_cumsum,
    causal_transformer.num_padded: exportable.num_padded,
    jagged.cat_steps: exportable.cat_steps,
    jagged.cut_windows: exportable.cut_windows,
    jagged.max_length: exportable.max_length,
    jagged.pool: exportable.pool,
}


def unify(traced: fx.GraphModule, data: Mapping[str, Tensor]) -> fx.GraphModule:
    """Returns a traced model as a function of the parse keys alone, for `export_graph`.

    Args:
        traced: of `trace`; not changed. Its second argument, the device, is dropped: a program is
            compiled for one.
        data: a batch in parse keys.

    Raises:
        ExportError: the model has operators that only FBGEMM has.
    """
    graph = copy.deepcopy(traced.graph)
    index_jagged(graph, kinds_of(traced, data))
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    device = inputs[1]
    repeated: dict[tuple[Any, ...], tuple[fx.Node, fx.Node]] = {}
    for node in list(graph.nodes):
        if node.target is tiling.repeat_jagged:
            _repeat_by_index(graph, node, repeated)
        elif node.op == "call_function" and node.target in _SAME:
            node.target = _SAME[node.target]
        elif node.target == "to" and device in node.args:
            source: Any = node.args[0]
            node.replace_all_uses_with(source)
    graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
    _refuse_fbgemm(graph, type(traced).__name__)
    if not device.users:
        graph.erase_node(device)
    inputs[0].type = dict[str, Tensor]
    return fx.GraphModule(traced, graph, type(traced).__name__)


def _repeat_by_index(
    graph: fx.Graph, node: fx.Node, made: dict[tuple[Any, ...], tuple[fx.Node, fx.Node]]
) -> None:
    """Repeats all parts of a feature by one index, which shows that they have one size."""
    values, lengths, rows = node.args
    if (lengths, rows) not in made:
        with graph.inserting_before(node):
            made[lengths, rows] = (
                graph.call_function(exportable.places_of, (lengths, rows)),
                graph.call_method("index_select", (lengths, 0, rows)),
            )
    node.target = exportable.repeat_jagged
    node.args = (values, *made[lengths, rows])


def _refuse_fbgemm(graph: fx.Graph, name: str) -> None:
    of_fbgemm = {*LOOKUPS, JaggedTensor, KeyedJaggedTensor, KeyedTensor}
    for node in graph.nodes:
        if str(node.target).startswith("fbgemm") or node.target in of_fbgemm:
            raise ExportError(
                f"{name} cannot be exported as one compiled program: it needs kernels of FBGEMM "
                f"({node.format_node()})",
                hint="use target aoti: lookups stay in TorchScript, all else is compiled; "
                "quantised tables need it",
            )
