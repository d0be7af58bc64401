"""Cuts a traced model: batch and lookups in one part, dense arithmetic in the other.

The sparse part reads parse keys and has all that depends on the values of ids and lengths. The
dense part is a function of tensors whose sizes are those of its inputs; torch.export, Inductor
and ONNX take it.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import operator
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from tzrec.batch import JaggedTensor, KeyedJaggedTensor
from tzrec.deploy import exportable, jagged_index, quantised
from tzrec.deploy.quantised import look_up
from tzrec.deploy.trace import GROUP
from tzrec.errors import ExportError
from tzrec.modules import causal_transformer, jagged
from tzrec.ops import tiling
from tzrec.ops.outer_linear import outer_linear

# Functions whose result depends on the values of lengths.
_OF_DATA = frozenset(
    {
        causal_transformer.latest_steps,
        causal_transformer.num_padded,
        jagged.cat_steps,
        jagged.cut_windows,
        jagged.max_length,
        jagged.pad,
        jagged.pool,
        jagged_index.rows_of,
        jagged_index.starts_of,
        jagged_index.steps_of,
        tiling.counts_of,
        tiling.fill_up,
        tiling.owners,
        tiling.repeat_jagged,
    }
)
# What torch.export cannot look into behind the cut → what does the same.
EXPORTABLE: dict[Any, Any] = {outer_linear: exportable.outer_linear}
# Functions that take rows of tables.
LOOKUPS: frozenset[Any] = frozenset({look_up})
# Methods that give Python a value of a tensor.
_OF_VALUES = frozenset({"item", "tolist"})
# Values that are made again of a tensor behind the cut.
_OF_SHAPE = frozenset({"size", "dim", "numel"})
_CONSTANTS = (int, float, bool, str, torch.dtype, torch.Size, type(None))


@dataclasses.dataclass(frozen=True)
class Split:
    """A model in two parts: ``dense(sparse(data, device))``.

    Attributes:
        sparse: (parse keys → tensors, device) → name → tensor.
        dense: name → tensor to output → tensor. Names are those of the feature groups
            (``deep``, ``click.sequence``) where a whole group crosses.
    """

    sparse: fx.GraphModule
    dense: fx.GraphModule


def split(traced: fx.GraphModule, data: Mapping[str, Tensor]) -> Split:
    """Cuts a model.

    Args:
        traced: of `trace`; not changed.
        data: a batch in parse keys, to learn what the values of the graph are.

    Raises:
        ExportError: a value that is no tensor would have to cross the cut.
    """
    kinds = kinds_of(traced, data)
    graph = copy.deepcopy(traced.graph)
    computed = {node for node in graph.nodes if _is_computed(node, kinds)}
    index_jagged(graph, kinds, computed=computed)
    _join_columns(graph, kinds)
    sparse = _sparse_nodes(graph, kinds)
    return _Cut(traced, graph, sparse, kinds).parts()


def index_jagged(
    graph: fx.Graph, kinds: Mapping[str, Any], *, computed: set[fx.Node] | None = None
) -> None:
    """Replaces operators on jagged rows by lookups with an index (see `jagged_index`).

    Args:
        graph: changed in place.
        kinds: of `kinds_of`.
        computed: nodes whose padding is replaced; None = all.
    """
    index = _Index(graph)
    for node in list(graph.nodes):
        new = None
        with graph.inserting_before(node):
            if node.target is jagged.unpad:
                padded, lengths = node.args
                new = graph.call_function(
                    jagged_index.unpad, (padded, index.rows(lengths), index.steps(lengths))
                )
            elif _repeats_rows(node):
                values, numbers = node.args[:2]
                if isinstance(numbers, fx.Node) and _is_tensor(numbers, kinds):
                    rows = index.rows(numbers)
                    new = graph.call_function(jagged_index.repeat, (values, rows))
                else:
                    new = graph.call_function(jagged_index.repeat_each, (values, numbers))
            elif node.target is jagged.pad and (computed is None or node.args[0] in computed):
                values, lengths, num_steps = node.args
                arguments = (values, index.starts(lengths), lengths, num_steps)
                new = graph.call_function(jagged_index.pad, arguments)
        if new is not None:
            node.replace_all_uses_with(new)
            graph.erase_node(node)


class _Index:
    """Makes each index of a graph once."""

    def __init__(self, graph: fx.Graph) -> None:
        self._graph = graph
        self._made: dict[tuple[Any, fx.Node], fx.Node] = {}

    def rows(self, lengths: fx.Node) -> fx.Node:
        return self._of(jagged_index.rows_of, lengths, (lengths,))

    def starts(self, lengths: fx.Node) -> fx.Node:
        return self._of(jagged_index.starts_of, lengths, (lengths,))

    def steps(self, lengths: fx.Node) -> fx.Node:
        return self._of(jagged_index.steps_of, lengths, (lengths, self.rows(lengths)))

    def _of(self, function: Any, lengths: fx.Node, arguments: tuple[fx.Node, ...]) -> fx.Node:
        key = function, lengths
        if key not in self._made:
            with self._graph.inserting_after(arguments[-1]):
                made = self._graph.call_function(function, arguments)
            group = str(lengths.meta.get(GROUP, lengths.name)).removesuffix(".sequence_length")
            made.meta[GROUP] = f"{group}.{function.__name__.removesuffix('_of')}"
            self._made[key] = made
        return self._made[key]


def _join_columns(graph: fx.Graph, kinds: Mapping[str, Any]) -> None:
    """Makes neighbours in a group that need no dense layer cross the cut together."""
    for node in list(graph.nodes):
        if node.target is not torch.cat or GROUP not in node.meta:
            continue
        joined: list[fx.Node] = []
        for computed, run in itertools.groupby(node.args[0], lambda n: _is_computed(n, kinds)):
            parts = list(run)
            if not computed and len(parts) > 1:
                with graph.inserting_before(node):
                    parts = [graph.call_function(torch.cat, (parts,), dict(node.kwargs))]
                parts[0].meta[GROUP] = f"{node.meta[GROUP]}.features"
            joined += parts
        if len(joined) > 1:
            node.args = (joined,)


def _repeats_rows(node: fx.Node) -> bool:
    if node.op != "call_method" or node.target != "repeat_interleave" or len(node.args) < 2:
        return False
    dim = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim")
    return bool(dim == 0)


def kinds_of(traced: fx.GraphModule, data: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns node name → dtype of a tensor, or class of another value.

    Args:
        traced: of `trace`.
        data: a batch in parse keys.
    """
    found: dict[str, Any] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            found[n.name] = value.dtype if isinstance(value, Tensor) else type(value)
            return value

    Recorder(traced).run(dict(data), torch.device("cpu"))
    return found


def _is_tensor(node: fx.Node, kinds: Mapping[str, Any]) -> bool:
    # Nodes that are not in the trace are indexes: tensors.
    return isinstance(kinds.get(node.name, torch.int64), torch.dtype)


def _is_computed(node: fx.Node, kinds: Mapping[str, Any]) -> bool:
    """Whether weights that are no table go into a node."""
    seen, waiting = {node}, [node]
    while waiting:
        found = waiting.pop()
        if _looks_up(found, kinds):
            continue
        if found.op in ("get_attr", "call_module"):
            return True
        waiting += [before for before in found.all_input_nodes if before not in seen]
        seen.update(found.all_input_nodes)
    return False


def _looks_up(node: fx.Node, kinds: Mapping[str, Any]) -> bool:
    """Whether a module is called with ids, or anything with a container of ids."""
    if node.target in LOOKUPS:
        return True
    types = [kinds.get(before.name) for before in node.all_input_nodes]
    if node.op == "call_module" and any(kind in (torch.int64, torch.int32) for kind in types):
        return True
    if node.target is quantised.look_up:
        return True
    return any(kind in (KeyedJaggedTensor, JaggedTensor) for kind in types)


def _sparse_nodes(graph: fx.Graph, kinds: Mapping[str, Any]) -> set[fx.Node]:
    """Returns what must not be behind the cut, and all that this is made of."""
    sparse: set[fx.Node] = set()
    for node in graph.nodes:
        # Whole feature groups cross under their name.
        whole = GROUP in node.meta and not _is_computed(node, kinds)
        if whole or (node.op != "output" and _must_be_sparse(node, kinds)):
            waiting = [node]
            while waiting:
                found = waiting.pop()
                if found not in sparse:
                    sparse.add(found)
                    waiting += found.all_input_nodes
    return sparse


def _must_be_sparse(node: fx.Node, kinds: Mapping[str, Any]) -> bool:
    if node.op == "placeholder" or _looks_up(node, kinds):
        return True
    if node.op == "call_function" and (node.target in _OF_DATA or _is_fbgemm(node.target)):
        return True
    if node.op == "call_method" and node.target in _OF_VALUES:
        return True
    # Lists, dictionaries and the like cannot cross, so what reads them stays with them.
    return any(
        not _is_tensor(before, kinds)
        and not issubclass(kinds[before.name], _CONSTANTS)
        and not _is_computed(before, kinds)
        for before in node.all_input_nodes
    )


def _is_fbgemm(target: Any) -> bool:
    return str(target).startswith("fbgemm")


class _Cut:
    """Builds the two parts."""

    def __init__(
        self,
        traced: fx.GraphModule,
        graph: fx.Graph,
        sparse: set[fx.Node],
        kinds: Mapping[str, Any],
    ) -> None:
        self._traced = traced
        self._graph = graph
        self._sparse = sparse
        self._kinds = kinds
        self._dense_graph = fx.Graph()
        self._input = self._dense_graph.placeholder("data", type_expr=dict[str, Tensor])
        self._behind: dict[fx.Node, fx.Node] = {}
        self._names: dict[fx.Node, str] = {}

    def parts(self) -> Split:
        output: Any = None
        for node in self._graph.nodes:
            if node.op == "output":
                output = fx.node.map_arg(node.args[0], self._cross)
            elif node not in self._sparse:
                behind = self._dense_graph.node_copy(node, self._cross)
                behind.target = EXPORTABLE.get(behind.target, behind.target)
                self._behind[node] = behind
        self._dense_graph.output(output, dict[str, Tensor])
        name = type(self._traced).__name__
        return Split(
            fx.GraphModule(self._traced, self._sparse_graph(), f"{name}Sparse"),
            fx.GraphModule(self._traced, self._dense_graph, f"{name}Dense"),
        )

    def _cross(self, node: fx.Node) -> fx.Node:
        """Returns what a node is behind the cut."""
        if node not in self._behind:
            self._behind[node] = self._received(node)
        return self._behind[node]

    def _received(self, node: fx.Node) -> fx.Node:
        graph = self._dense_graph
        if _is_tensor(node, self._kinds):
            name = self._name(node)
            self._names[node] = name
            return graph.call_function(operator.getitem, (self._input, name))
        if node.target in _OF_SHAPE or node.target is getattr:
            return graph.node_copy(node, self._cross)
        if self._kinds[node.name] is int:
            name = self._name(node)
            self._names[node] = name
            sized = graph.call_function(operator.getitem, (self._input, name))
            return graph.call_method("size", (sized, 0))
        raise ExportError(
            f"{type(self._traced).__name__} cannot be split: its dense layers read "
            f"{node.format_node()}, a {self._kinds[node.name].__name__}",
            hint="tensors and integers can go from lookups to dense layers",
        )

    def _name(self, node: fx.Node) -> str:
        # Names with a dot are none of ONNX's own.
        wanted = str(node.meta.get(GROUP) or _parse_key(node) or f"node.{node.name}")
        name, taken = wanted, set(self._names.values())
        for number in range(2, len(taken) + 3):
            if name not in taken:
                break
            name = f"{wanted}_{number}"
        return name

    def _sparse_graph(self) -> fx.Graph:
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        for node in self._graph.nodes:
            if node in self._sparse:
                copies[node] = graph.node_copy(node, copies.__getitem__)
        device = next(copies[node] for node in _placeholders(self._graph) if node.target != "data")
        crossing: dict[str, fx.Node] = {}
        for node, name in sorted(self._names.items(), key=lambda item: item[1]):
            if _is_tensor(node, self._kinds):
                # Compiled code takes the strides of its inputs for granted.
                crossing[name] = graph.call_method("contiguous", (copies[node],))
            else:
                arguments = (copies[node], device)
                crossing[name] = graph.call_function(jagged_index.as_size, arguments)
        graph.output(crossing, dict[str, Tensor])
        return graph


def _placeholders(graph: fx.Graph) -> Iterator[fx.Node]:
    return (node for node in graph.nodes if node.op == "placeholder")


def _parse_key(node: fx.Node) -> str | None:
    """Returns the parse key that a node is the tensor of."""
    source = node.args[0] if node.target == "to" and node.args else None
    if not isinstance(source, fx.Node) or source.target is not operator.getitem:
        return None
    return str(source.args[1])
