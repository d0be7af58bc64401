"""Takes TorchRec's containers out of a traced model: tensors go straight to who reads them.

A batch is built by concatenating features into keyed tensors, which the lookups split again.
A traced graph knows all keys, so both can go: what is left are operations on tensors, which
compile faster, run faster, and which torch.export takes. The numbers stay the same bit by bit.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx, nn
from torchrec.modules.embedding_modules import process_pooled_embeddings
from torchrec.sparse.jagged_tensor import JaggedTensor, KeyedJaggedTensor, KeyedTensor

from tzrec.modules import columns


@dataclasses.dataclass
class _Keyed:
    """A `KeyedJaggedTensor` of known parts."""

    keys: list[str]
    values: list[fx.Node]
    lengths: list[fx.Node]
    weights: list[fx.Node] | None
    offsets: fx.Node | None = None  # of all keys, unbound


@dataclasses.dataclass
class _Jagged:
    """A `JaggedTensor` of known parts; ``of`` is the keyed one and the key that it is from."""

    values: fx.Node
    lengths: fx.Node | None
    weights: fx.Node | None
    of: tuple[_Keyed, int] | None = None


@dataclasses.dataclass
class _Columns:
    """A `KeyedTensor`: columns by key, either apart or in one tensor."""

    keys: list[str]
    widths: list[int]
    values: fx.Node
    parts: list[fx.Node] | None


def unpack(graph: fx.Graph, root: nn.Module) -> None:
    """Replaces the containers of a traced graph; those that it does not know stay.

    Args:
        graph: of ``torchrec.fx.Tracer``; changed in place.
        root: the module that was traced.
    """
    _Unpacker(graph, root).run()


class _Unpacker:
    def __init__(self, graph: fx.Graph, root: nn.Module) -> None:
        self.graph = graph
        self.root = root
        self.known: dict[fx.Node, Any] = {}

    def run(self) -> None:
        for node in list(self.graph.nodes):
            with self.graph.inserting_before(node):
                new = self._replacement(node)
            if new is not None:
                new.meta.update({k: v for k, v in node.meta.items() if k == "group"})
                node.replace_all_uses_with(new)
        # A container may have been asked for things that are not needed any more.
        self.graph.eliminate_dead_code(_is_impure)

    def _known(self, node: Any) -> Any:
        return self.known.get(node) if isinstance(node, fx.Node) else None

    def _replacement(self, node: fx.Node) -> fx.Node | None:
        """Returns what stands for ``node`` from now on, or remembers what it is made of."""
        if node.op == "call_function":
            build = _BUILDERS.get(node.target)
            if build is not None:
                self.known[node] = build(node)
            elif node.target is process_pooled_embeddings:
                return self._concatenated(node)
            elif node.target is columns.regroup:
                self._regroup(node)
            elif node.target is operator.getitem:
                return self._item(node)
        elif node.op == "call_method":
            return self._method(node)
        return None

    def _concatenated(self, node: fx.Node) -> fx.Node | None:
        """A pooled collection's concatenation; one whose rows were deduplicated stays."""
        inverse = _argument(node, "inverse_indices", 1)
        found = inverse.args[0] if inverse.args else inverse.kwargs.get("inverse_indices")
        batch = self._known(found.args[0]) if isinstance(found, fx.Node) else None
        if not isinstance(batch, _Keyed):
            return None
        return self.graph.call_function(
            torch.cat, (_argument(node, "pooled_embeddings", 0),), {"dim": 1}
        )

    def _method(self, node: fx.Node) -> fx.Node | None:
        found, name = self._known(node.args[0]), node.target
        if name == "float":
            return _float_already(node, self.root)
        if found is None or len(node.args) > 1 or node.kwargs:
            return None
        if name == "to_dict":
            self.known[node] = found
            return None
        if isinstance(found, _Columns):
            return found.values if name == "values" else None
        if isinstance(found, _Jagged):
            return self._of_jagged(found, str(name))
        return None

    def _of_jagged(self, found: _Jagged, name: str) -> fx.Node | None:
        if name == "offsets" and found.of is not None:
            keyed, position = found.of
            return self.graph.call_function(operator.getitem, (self._all_offsets(keyed), position))
        if name in ("values", "lengths", "weights"):
            part: fx.Node | None = getattr(found, name)
            return part
        return None

    def _all_offsets(self, keyed: _Keyed) -> fx.Node:
        """Returns the offsets of all keys, which cost one call instead of one each."""
        if keyed.offsets is None:
            stacked = self.graph.call_function(torch.stack, (keyed.lengths,))
            sums = self.graph.call_function(
                torch.ops.fbgemm.asynchronous_complete_cumsum, (stacked,)
            )
            keyed.offsets = self.graph.call_method("unbind", (sums, 0))
        return keyed.offsets

    def _item(self, node: fx.Node) -> fx.Node | None:
        found, key = self._known(node.args[0]), node.args[1]
        if isinstance(found, dict):
            part: fx.Node | None = found.get(key) if isinstance(key, int) else None
            return part
        if found is None or not isinstance(key, str) or key not in found.keys:
            return None
        position = found.keys.index(key)
        if isinstance(found, _Columns):
            return self._column(found, position)
        if isinstance(found, _Keyed):
            weights = found.weights[position] if found.weights else None
            self.known[node] = _Jagged(
                found.values[position], found.lengths[position], weights, (found, position)
            )
        return None

    def _column(self, found: _Columns, position: int) -> fx.Node:
        if found.parts is not None:
            return found.parts[position]
        start = sum(found.widths[:position])
        return self.graph.call_method("narrow", (found.values, 1, start, found.widths[position]))

    def _regroup(self, node: fx.Node) -> None:
        """Makes each group by one concatenation; pieces of several groups are made once."""
        arguments: Any = node.args
        pooled, extras, keys, groups = arguments[:4]
        found = self._known(pooled)
        if not isinstance(found, _Columns) or not set(keys) <= set(found.keys):
            return
        place = [found.keys.index(key) for key in keys]
        codes = [[place[code] if code >= 0 else code for code in group] for group in groups]
        widths, pieces = columns.merge_runs(found.widths, codes)
        slabs = self._slabs(found, widths, pieces)
        result: dict[int, fx.Node] = {}
        for i, group in enumerate(pieces):
            parts: list[fx.Node] = []
            for code in group:
                parts += slabs[code] if code >= 0 else [extras[-1 - code]]
            result[i] = parts[0]
            if len(parts) > 1:
                result[i] = self.graph.call_function(torch.cat, (parts,), {"dim": 1})
        self.known[node] = result

    def _slabs(
        self, found: _Columns, widths: Sequence[int], pieces: Sequence[Sequence[int]]
    ) -> list[list[fx.Node]]:
        """Returns the nodes whose columns are each piece."""
        uses = [sum(group.count(i) for group in pieces) for i in range(len(widths))]
        if found.parts is None:
            split = self.graph.call_method("split", (found.values, list(widths)), {"dim": 1})
            get = operator.getitem
            return [[self.graph.call_function(get, (split, i))] for i in range(len(widths))]
        slabs, start = [], 0
        for i, width in enumerate(widths):
            stop, total = start, 0
            while total < width:
                total += found.widths[stop]
                stop += 1
            parts = found.parts[start:stop]
            if uses[i] > 1 and len(parts) > 1:
                parts = [self.graph.call_function(torch.cat, (parts,), {"dim": 1})]
            slabs.append(parts)
            start = stop
        return slabs


def _argument(node: fx.Node, name: str, position: int) -> Any:
    return node.kwargs[name] if name in node.kwargs else node.args[position]


def _cat_parts(node: Any, dim: int) -> list[fx.Node] | None:
    """Returns what a concatenation is made of, None for other nodes."""
    if not isinstance(node, fx.Node) or node.target is not torch.cat:
        return None
    tensors = node.args[0] if node.args else node.kwargs["tensors"]
    given = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    return list(tensors) if given == dim and isinstance(tensors, list | tuple) else None


def _keyed(node: fx.Node) -> _Keyed | None:
    given = dict(node.kwargs)
    keys, weights = given.pop("keys", None), given.pop("weights", None)
    values, lengths = (_cat_parts(given.pop(name, None), 0) for name in ("values", "lengths"))
    if node.args or given or not keys or not values or not lengths:
        return None
    weight_parts = _cat_parts(weights, 0)
    if weights is not None and weight_parts is None:
        return None
    sizes = {len(keys), len(values), len(lengths), len(weight_parts or keys)}  # type: ignore[arg-type]
    return _Keyed(list(keys), values, lengths, weight_parts) if len(sizes) == 1 else None  # type: ignore[arg-type]


def _jagged(node: fx.Node) -> _Jagged | None:
    given = dict(node.kwargs)
    values, lengths, weights = (given.pop(n, None) for n in ("values", "lengths", "weights"))
    if node.args or any(value is not None for value in given.values()) or lengths is None:
        return None
    return _Jagged(values, lengths, weights)  # type: ignore[arg-type]


def _columns(node: fx.Node) -> _Columns | None:
    given = dict(node.kwargs)
    keys, widths, values = (given.pop(n, None) for n in ("keys", "length_per_key", "values"))
    if node.args or given or not keys or not widths or values is None:
        return None
    parts = _cat_parts(values, 1)
    if parts is not None and len(parts) != len(keys):  # type: ignore[arg-type]
        parts = None
    return _Columns(list(keys), list(widths), values, parts)  # type: ignore[arg-type]


def _float_already(node: fx.Node, root: nn.Module) -> fx.Node | None:
    """Returns the rows of a table of float32 for a conversion to it."""
    source = node.args[0]
    if not isinstance(source, fx.Node) or source.op != "call_module":
        return None
    module = root.get_submodule(str(source.target))
    if not isinstance(module, nn.EmbeddingBag | nn.Embedding):
        return None
    return source if module.weight.dtype is torch.float32 else None


def _is_impure(node: fx.Node) -> bool:
    # Containers and lookups change nothing; by default calls of modules count as impure.
    return node.op in ("placeholder", "output")


_BUILDERS: dict[Any, Callable[[fx.Node], Any]] = {
    KeyedJaggedTensor: _keyed,
    JaggedTensor: _jagged,
    KeyedTensor: _columns,
}
