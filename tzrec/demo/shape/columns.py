"""`Column`: what one input column holds, and what it has in common with others."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from tzrec.demo.shape.domains import Domain
from tzrec.fg.spec import MULTIVAL_SEP

# Steps of a row at most, where a sequence may be longer.
MOST_STEPS = 20


@dataclasses.dataclass(frozen=True)
class Entries:
    """The entries of a map.

    Attributes:
        keys: columns whose values of the same row are keys more often than not.
        values: what the entries hold.
        dim: numbers of an entry.
        between: separates these.
    """

    keys: tuple[str, ...]
    values: Domain
    dim: int = 1
    between: str = ","


@dataclasses.dataclass(frozen=True)
class Nested:
    """The entries of a map of maps, ``pk^sk:v,sk:v|pk^sk:v``.

    Attributes:
        skeys: what secondary keys can be.
        primary: columns of primary keys.
        secondary: columns of secondary keys.
        values: what the entries hold.
        alone: a row has one entry.
    """

    skeys: Domain
    primary: tuple[str, ...]
    secondary: tuple[str, ...]
    values: Domain
    alone: bool = False


@dataclasses.dataclass(frozen=True)
class Column:
    """One input column.

    Attributes:
        name: of the column.
        domain: its values; of a map its (primary) keys, of a mask what it masks.
        many: a cell has any number of values.
        dim: values of a cell, where it has not any number.
        steps: columns with the same text here have the same number of steps in a row; None = a
            row is one cell.
        most_steps: steps of a row at most.
        weighted: each value has a weight, ``value:weight``.
        masks: column of which this says which values count.
        entries: it is a map.
        nested: it is a map of maps.
        separator: between values in text.
        delim: between steps in text.
        pair: between value and weight, key and entry.
        as_text: cells are one text even where the file could hold lists.
        missing: share of rows without a value.
        together: neighbouring rows have the same value.
    """

    name: str
    domain: Domain
    many: bool = False
    dim: int = 1
    steps: str | None = None
    most_steps: int = MOST_STEPS
    weighted: bool = False
    masks: str | None = None
    entries: Entries | None = None
    nested: Nested | None = None
    separator: str = MULTIVAL_SEP
    delim: str = ";"
    pair: str = ":"
    as_text: bool = False
    missing: float = 0.0
    together: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether it holds values of its own, not what other columns' values lead to."""
        return self.masks is None and self.entries is None and self.nested is None


class Links:
    """Names that belong together, directly or through others."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, name: str) -> str:
        """Returns the name that stands for all that belong to ``name``."""
        parent = self._parent.get(name, name)
        return name if parent == name else self.find(parent)

    def join(self, *names: str) -> None:
        """Notes that names belong together."""
        for name in names[1:]:
            self._parent[self.find(name)] = self.find(names[0])

    def fellows(self, name: str, names: Iterator[str]) -> list[str]:
        """Returns those of ``names`` that belong to ``name``."""
        root = self.find(name)
        return [other for other in names if self.find(other) == root]
