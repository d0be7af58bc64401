"""`World`: items and users as columns, and rows in which users take items."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tzrec.demo.shape.columns import MOST_STEPS, Column
from tzrec.demo.shape.domains import Codes, Domain, Ids, Words, settle
from tzrec.demo.shape.draw import Cells, draw, taken
from tzrec.demo.shape.roles import Roles
from tzrec.demo.shape.tastes import Tastes
from tzrec.protos.data_pb2 import DataConfig

Ints = NDArray[np.int64]

_SEED = 20240102
_MOST_CANDIDATES = 3
_VALUES_OF_STEPS = 2
# Shares of values that say something about an item's kind and look, and a user's.
_TELLING_OF_ITEMS, _TELLING_OF_USERS = 0.9, 0.5


@dataclasses.dataclass(frozen=True)
class Size:
    """How much there is, where the ids of the config suffice for it.

    Attributes:
        items: that are taken.
        users: who take them.
    """

    items: int
    users: int


class World:
    """Items and users whose columns tell what they are, and who takes what.

    Args:
        columns: all columns of the config.
        roles: what they are about.
        size: items and users at most.

    Attributes:
        tastes: who takes what.
        item_columns: what the columns of items hold, by the names that a table of items has.
        user_column: what the column of users holds.
    """

    def __init__(self, columns: Sequence[Column], roles: Roles, size: Size) -> None:
        known = {column.name: column for column in columns}
        self.roles = roles
        self.item_columns = _columns_of_items(known, roles)
        self.user_column = None if roles.user_id is None else _alone(known[roles.user_id])
        num_items = min(size.items, _size(self.item_columns[roles.item_id].domain, size.items))
        num_users = size.users
        if self.user_column is not None:
            num_users = min(num_users, _size(self.user_column.domain, num_users))
        self.tastes = Tastes(num_items, num_users)
        rng = np.random.default_rng(_SEED)
        self.items = self._about_items(rng)
        self._users = self._about_users(known, rng)
        own = {roles.column(name) for name in roles.items}
        self._past = {name: known[name] for name in roles.past}
        self._steps_of_items = str(known[roles.column(roles.item_id)].steps)
        self._rest = [c for c in columns if c.name not in {*own, *self._past, *self._users}]

    def columns(self, columns: Sequence[Column]) -> list[Column]:
        """Returns the columns, each with the values that it has here."""
        found = []
        for column in columns:
            item = self.roles.past.get(column.name)
            for name in self.roles.items:
                item = name if column.name == self.roles.column(name) else item
            domain = column.domain if item is None else self.item_columns[item].domain
            several = item is None or item != self.roles.item_id
            found.append(
                dataclasses.replace(column, domain=domain)
                if several
                else dataclasses.replace(column, domain=domain, many=False, dim=1, weighted=False)
            )
        return found

    def draw(self, num_rows: int, rng: np.random.Generator) -> dict[str, Cells]:
        """Returns the values of all columns in rows in which a user takes an item.

        Args:
            num_rows: B.
            rng: decides.
        """
        users = rng.integers(0, len(self.tastes.interests), num_rows)
        found = {name: taken(cells, users) for name, cells in self._users.items()}
        steps: dict[str, Ints] = {}
        last = np.full(num_rows, -1)
        for key in dict.fromkeys(c.steps for c in self._past.values()):
            of_key = [c for c in self._past.values() if c.steps == key]
            most = min([MOST_STEPS, *(c.most_steps for c in of_key)])
            lengths = rng.integers(0, most + 1, num_rows)
            past = self.tastes.past(users, lengths, rng)
            steps[str(key)] = lengths
            if past.size and (last < 0).all():
                last = past[:, -1]
            for column in of_key:
                cells = taken(self.items[self.roles.past[column.name]], past[past >= 0])
                found[column.name] = dataclasses.replace(cells, steps=lengths)
        found |= self._taken(users, last, rng, steps)
        return found | draw(self._rest, num_rows, rng, given=found, steps=steps)

    def labels(self, data: DataConfig, columns: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
        """Returns label columns: 1 for everything that is taken.

        Args:
            data: says which there are.
            columns: the other columns.
        """
        items = columns[self.roles.column(self.roles.item_id)]
        ones = pa.array(np.ones(len(items), np.int64))
        if pa.types.is_list(items.type):
            values = pa.array(np.ones(len(items.flatten()), np.int64))
            ones = pa.ListArray.from_arrays(items.offsets, values)
        return dict.fromkeys(data.label_fields, ones)

    def _taken(
        self, users: Ints, last: Ints, rng: np.random.Generator, steps: dict[str, Ints]
    ) -> dict[str, Cells]:
        """Returns the columns of what is taken: an item, or some as steps of a sequence."""
        if not self.roles.sequence:
            items = self.tastes.next(users, last, rng)
            return {name: taken(cells, items) for name, cells in self.items.items()}
        counts = rng.integers(1, _MOST_CANDIDATES + 1, len(users))
        items = self.tastes.next(np.repeat(users, counts), np.repeat(last, counts), rng)
        steps[self._steps_of_items] = counts
        return {
            self.roles.column(name): dataclasses.replace(taken(cells, items), steps=counts)
            for name, cells in self.items.items()
        }

    def _about_items(self, rng: np.random.Generator) -> dict[str, Cells]:
        """Returns the columns of items: ids, and values of which most tell kind or look."""
        facets = self.tastes.facets.T
        own = {self.roles.item_id: Cells(np.arange(len(facets)))}
        columns = list(self.item_columns.values())
        return self._about(columns, own, facets, share=_TELLING_OF_ITEMS, rng=rng)

    def _about_users(self, known: dict[str, Column], rng: np.random.Generator) -> dict[str, Cells]:
        """Returns the columns of users: ids, and values of which some tell their interest."""
        interests = self.tastes.interests[:, 0]
        own = {}
        if self.user_column is not None:
            own[self.user_column.name] = Cells(np.arange(len(interests)))
        columns = [_within(known[name], {*self.roles.users, *own}) for name in self.roles.users]
        return self._about(columns, own, interests, share=_TELLING_OF_USERS, rng=rng)

    def _about(
        self,
        columns: Sequence[Column],
        ids: dict[str, Cells],
        facets: Ints,
        *,
        share: float,
        rng: np.random.Generator,
    ) -> dict[str, Cells]:
        """Returns columns with values that tell a facet, kind and look in turn, and ids.

        Args:
            columns: the columns.
            ids: those that are known.
            facets: kind and look of each row (rows, 2).
            share: of values that tell something.
            rng: decides.
        """
        plain = [column for column in columns if column.is_plain and column.name not in ids]
        found = ids | draw(plain, len(facets), rng)
        for number, column in enumerate(plain):
            before = found[column.name]
            facet = facets[:, number % 2][before.row_of_value()]
            told = _telling(column.domain, before.codes, facet, self.tastes.kinds)
            codes = np.where(rng.random(len(told)) < share, told, before.codes)
            found[column.name] = dataclasses.replace(before, codes=codes)
        others = [column for column in columns if not column.is_plain]
        return found | draw(others, len(facets), rng, given=found)


def _columns_of_items(known: dict[str, Column], roles: Roles) -> dict[str, Column]:
    """Returns the columns of a table of items, with values that histories can hold as well."""
    found = {}
    for name in roles.items:
        column = known[roles.column(name)]
        claims = [known[past].domain for past, item in roles.past.items() if item == name]
        column = dataclasses.replace(column, domain=settle([column.domain, *claims]), name=name)
        if roles.sequence:
            column = dataclasses.replace(column, steps=None)
        if claims:
            # Steps have a value: an empty step would be the default's.
            dim = _VALUES_OF_STEPS if column.many else column.dim
            column = dataclasses.replace(column, missing=0.0, many=False, dim=dim)
        found[name] = _within(column, {*roles.items})
    found[roles.item_id] = _alone(found[roles.item_id])
    return found


def _alone(column: Column) -> Column:
    """Returns a column of one value, always there."""
    return dataclasses.replace(
        column, many=False, dim=1, weighted=False, missing=0.0, together=False, steps=None
    )


def _within(column: Column, names: set[str]) -> Column:
    """Returns a column that refers to some others only."""
    entries, nested = column.entries, column.nested
    if entries is not None:
        entries = dataclasses.replace(entries, keys=_kept(entries.keys, names))
    if nested is not None:
        nested = dataclasses.replace(
            nested,
            primary=_kept(nested.primary, names),
            secondary=_kept(nested.secondary, names),
        )
    masks = column.masks if column.masks in names else None
    return dataclasses.replace(column, entries=entries, nested=nested, masks=masks)


def _kept(found: tuple[str, ...], names: set[str]) -> tuple[str, ...]:
    return tuple(name for name in found if name in names)


def _size(domain: Domain, most: int) -> int:
    """Returns how many distinct values there are, ``most`` where that is not known."""
    if isinstance(domain, Ids):
        return domain.size
    return len(domain.words) if isinstance(domain, Words) else most


def _telling(domain: Domain, codes: Codes, facet: Ints, kinds: int) -> Codes:
    """Returns values near the given ones whose remainder is the facet; numbers tell nothing."""
    if not isinstance(domain, (Ids, Words)):
        return codes
    size = _size(domain, 0)
    if size <= kinds:
        return facet % size
    told = codes - codes % kinds + facet
    told = np.where(told < size, told, told - kinds)
    return np.where(codes < size, told, codes)
