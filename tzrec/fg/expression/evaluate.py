"""Syntax trees over whole columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tzrec.fg.expression.functions import (
    FUNCTIONS,
    OPERATORS,
    VECTOR_FUNCTIONS,
    Floats,
    Segments,
)
from tzrec.fg.expression.syntax import Call, Node, Number, Variable, error_at, parse

_RANDOM_SEED = 0


class UnequalVectorsError(Exception):
    """A vector function got vectors of different lengths.

    Args:
        what: the function and its vectors.
        cell: where.
    """

    def __init__(self, what: str, cell: int) -> None:
        super().__init__(what)
        self.cell = cell


@dataclass(frozen=True)
class Vector:
    """Values of cells; a scalar per cell where every length is 1.

    Attributes:
        values: float64 (n,).
        lengths: int32 (cells,) values per cell.
    """

    values: Floats
    lengths: NDArray[np.int32]

    @property
    def is_scalar(self) -> bool:
        """One value per cell."""
        return len(self.values) == len(self.lengths) and bool((self.lengths == 1).all())


@dataclass(frozen=True)
class Expression:
    """A parsed expression.

    Attributes:
        text: as written.
        tree: its syntax tree.
    """

    text: str
    tree: Node

    @classmethod
    def parse(cls, text: str) -> Expression:
        """Parses an expression.

        Raises:
            ConfigError: it is none; shows the place.
        """
        return cls(text, parse(text))

    @property
    def variables(self) -> frozenset[str]:
        """Names that must be given."""
        return frozenset(_variables(self.tree))

    def evaluate(self, values: Mapping[str, Any]) -> Floats:
        """Returns the expression of scalars, element by element.

        Args:
            values: variable → float array; shapes broadcast.
        """
        with np.errstate(all="ignore"):
            return np.asarray(self._scalar(self.tree, values), dtype=np.float64)

    def evaluate_cells(
        self, values: Mapping[str, Vector], num_cells: int, fill: float = np.nan
    ) -> Vector:
        """Returns the expression of vectors.

        Vectors of a cell are combined element by element, scalars with each element; shorter
        vectors are filled up.

        Args:
            values: variable → vector of each cell.
            num_cells: cells.
            fill: stands for elements that a shorter vector lacks.

        Raises:
            UnequalVectorsError: a vector function got vectors of different lengths.
        """
        with np.errstate(all="ignore"):
            result = self._vector(self.tree, values, num_cells, fill)
        if result.is_scalar or len(result.lengths) == num_cells:
            return result
        return _spread(result, np.ones(num_cells, np.int32), fill)

    def _scalar(self, node: Node, values: Mapping[str, Any]) -> Any:
        if isinstance(node, Number):
            return np.float64(node.value)
        if isinstance(node, Variable):
            return values[node.name]
        if node.name in VECTOR_FUNCTIONS:
            raise error_at(self.text, node.position, f"{node.name} needs vectors")
        arguments = [self._scalar(argument, values) for argument in node.arguments]
        if node.name == "rnd":
            shapes = [np.shape(value) for value in values.values()]
            return np.random.default_rng(_RANDOM_SEED).random(np.broadcast_shapes(*shapes))
        return _compute(node.name)(*arguments)

    def _vector(
        self, node: Node, values: Mapping[str, Vector], num_cells: int, fill: float
    ) -> Vector:
        if isinstance(node, Number):
            ones = np.ones(num_cells, np.int32)
            return Vector(np.full(num_cells, node.value), ones)
        if isinstance(node, Variable):
            return values[node.name]
        if node.name == "rnd":
            drawn = np.random.default_rng(_RANDOM_SEED).random(num_cells)
            return Vector(drawn, np.ones(num_cells, np.int32))
        found = [self._vector(argument, values, num_cells, fill) for argument in node.arguments]
        if node.name in VECTOR_FUNCTIONS:
            return self._reduce(node, found, num_cells, fill)
        lengths = _longest(found)
        arguments = [_spread(vector, lengths, fill).values for vector in found]
        return Vector(np.asarray(_compute(node.name)(*arguments), dtype=np.float64), lengths)

    def _reduce(self, node: Call, found: list[Vector], num_cells: int, fill: float) -> Vector:
        lengths = found[0].lengths
        for other in found[1:]:
            if not np.array_equal(other.lengths, lengths):
                if np.isnan(fill):
                    cell = int(np.argmax(other.lengths != lengths))
                    raise UnequalVectorsError(
                        f"{node.name} of {lengths[cell]} and {other.lengths[cell]} values", cell
                    )
                lengths = np.maximum(lengths, other.lengths)
        arguments = [_spread(vector, lengths, fill).values for vector in found]
        numbers = VECTOR_FUNCTIONS[node.name].compute(Segments(lengths), *arguments)
        return Vector(np.asarray(numbers), np.ones(num_cells, np.int32))


def _compute(name: str) -> Any:
    return OPERATORS[name] if name in OPERATORS else FUNCTIONS[name].compute


def _longest(vectors: list[Vector]) -> NDArray[np.int32]:
    lengths = vectors[0].lengths
    for vector in vectors[1:]:
        if vector.lengths is not lengths:
            lengths = np.maximum(lengths, vector.lengths)
    return lengths


def _spread(vector: Vector, lengths: NDArray[np.int32], fill: float) -> Vector:
    """Repeats scalars and fills up shorter vectors, so that cells have ``lengths`` values."""
    own = vector.lengths
    if own is lengths or np.array_equal(own, lengths):
        return vector
    owners = np.repeat(np.arange(len(lengths)), lengths)
    ends = np.cumsum(own, dtype=np.int64)
    number = np.arange(len(owners)) - (np.cumsum(lengths, dtype=np.int64) - lengths)[owners]
    number = np.where((own == 1)[owners], 0, number)
    missing = number >= own[owners]
    positions = np.where(missing, 0, (ends - own)[owners] + number)
    values = vector.values[positions] if len(vector.values) else np.zeros(len(owners))
    return Vector(np.where(missing, fill, values), lengths)


def _variables(node: Node) -> list[str]:
    if isinstance(node, Variable):
        return [node.name]
    if isinstance(node, Call):
        return [name for argument in node.arguments for name in _variables(argument)]
    return []
