"""`Shape`: the rows that fit a config."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tzrec.demo.shape.columns import Column
from tzrec.demo.shape.domains import Ids
from tzrec.demo.shape.draw import Cells, draw
from tzrec.demo.shape.encoded import encoded_columns
from tzrec.demo.shape.labels import Labels, other_columns
from tzrec.demo.shape.raw import raw_columns
from tzrec.demo.shape.render import render
from tzrec.demo.shape.roles import id_columns, roles_of
from tzrec.demo.shape.signal import Floats, Signal, Values
from tzrec.demo.shape.tasks import Task, tasks_of
from tzrec.demo.shape.world import Size, World
from tzrec.errors import FeatureError
from tzrec.protos.pipeline_pb2 import EasyRecConfig

if TYPE_CHECKING:
    from torch import Tensor

PROBABILITY = "probability"
_SAMPLE_ROWS = 4096
_SAMPLE_SEED = 20240101
_ENCODED = ("FG_NONE", "FG_BUCKETIZE")
_SOME_SIZE = Size(items=2_000, users=1_000)


class Shape:
    """Makes rows with all columns that a config reads.

    Args:
        config: a checked config.
        as_text: all columns that hold several values are text, as in CSV files.
        size: items and users, where the config is one of matching.

    Attributes:
        tasks: what the config's model learns; nothing in matching, where all labels are 1.
        world: who takes which items, None where the config is not one of matching.

    Raises:
        ConfigError: the features contradict each other.
    """

    def __init__(
        self, config: EasyRecConfig, *, as_text: bool = False, size: Size = _SOME_SIZE
    ) -> None:
        from tzrec.datasets.data_parser import DataParser
        from tzrec.datasets.schema import input_fields
        from tzrec.training.build import build_features

        self._config = config
        self._features = build_features(config.data_config, config.feature_configs)
        self._parser = DataParser(self._features)
        self._types = input_fields(config.data_config)
        self._as_text = as_text
        self.tasks = tasks_of(config)
        encoded = any(f.fg_mode.name in _ENCODED for f in self._features)
        plan = (encoded_columns if encoded else raw_columns)(self._features)
        plan += id_columns(config, plan)
        roles = roles_of(config, self._features, plan)
        self.world = None if roles is None else World(plan, roles, size)
        if self.world is not None:
            self.tasks = dataclasses.replace(self.tasks, tasks=())
            plan = self.world.columns(plan)
        self._columns = self._with_tasks(plan)

    @property
    def signal_features(self) -> list[str]:
        """Features that the labels depend on; in matching, columns of items."""
        if self.world is not None:
            return [self.world.roles.column(name) for name in self.world.roles.items]
        return list(self._signal.features)

    def table(self, num_rows: int, *, seed: int | list[int] = 0, start: int = 0) -> pa.Table:
        """Returns rows.

        Beside the config's columns there is ``probability``, or ``probability_{label}`` where
        several labels are binary: the true probabilities, which no model can know better.

        Args:
            num_rows: B.
            seed: makes the same rows every time; all seeds tell the same story.
            start: rows before these, for their times.
        """
        rng = np.random.default_rng(seed)
        columns, rows, domains = self._draw(num_rows, rng, start)
        probabilities: dict[str, Floats] = {}
        if self.world is not None:
            labels = self.world.labels(self._config.data_config, columns)
        else:
            labels, probabilities = self._labels.draw(
                lambda task: self._logits(rows, num_rows, task, domains), rng
            )
        for name, values in labels.items():
            columns.setdefault(name, values)
        columns = {name: self._declared(name, values) for name, values in columns.items()}
        for label, values in probabilities.items():
            name = PROBABILITY if len(probabilities) == 1 else f"{PROBABILITY}_{label}"
            columns.setdefault(name, pa.array(values))
        return pa.table(columns)

    def item_columns(self) -> dict[str, pa.Array]:
        """Returns the columns of all items in a config of matching; rows have the same values."""
        assert self.world is not None
        roles = self.world.roles
        found = {}
        for name, column in self.world.item_columns.items():
            wanted = self._type(roles.column(name))
            if roles.sequence and wanted is not None and pa.types.is_list(wanted):
                wanted = wanted.value_type
            found[name] = render(column, self.world.items[name], wanted)
        return found

    def positives(self, rows: pa.Table) -> pa.Table:
        """Returns (user, item) of rows in a config of matching; (item) without a user id."""
        assert self.world is not None
        roles = self.world.roles
        items = rows[roles.column(roles.item_id)]
        users = {} if roles.user_id is None else {"user": rows[roles.user_id]}
        if pa.types.is_list(items.type):
            owners = pc.list_parent_indices(items)
            users = {name: column.take(owners) for name, column in users.items()}
            items = pc.list_flatten(items)
        return pa.table({**users, "item": items})

    def user_ids(self) -> pa.Array:
        """Returns the ids of all users in a config of matching."""
        assert self.world is not None
        column = self.world.user_column
        assert column is not None
        codes = np.arange(len(self.world.tastes.interests))
        return render(column, Cells(codes), self._type(column.name))

    def _draw(
        self, num_rows: int, rng: np.random.Generator, start: int = 0
    ) -> tuple[dict[str, pa.Array], Values, NDArray[np.int64] | None]:
        """Returns columns without labels, parsed values, and the domain of rows."""
        if self.world is not None:
            cells = self.world.draw(num_rows, rng)
        else:
            cells = draw(self._columns, num_rows, rng)
        columns = {
            column.name: render(column, cells[column.name], self._type(column.name))
            for column in self._columns
        }
        columns |= other_columns(self._config.data_config, num_rows, start, rng)
        parsed = self._parse({name: columns[name] for name in self._parser.input_columns})
        rows = {key: tensor.numpy() for key, tensor in parsed.items()}
        domain = self.tasks.domain
        return columns, rows, cells[domain].codes if domain in cells else None

    def _parse(self, columns: dict[str, pa.Array]) -> dict[str, Tensor]:
        try:
            return self._parser.parse(columns)
        except FeatureError as error:
            if self._as_text and not error.hint:
                error.hint = "try Parquet: text has no place for what this feature reads"
            raise

    def _type(self, name: str) -> pa.DataType | None:
        """Returns the declared type of a column; of text files what holds several values."""
        wanted = self._types.get(name)
        if wanted is None and self._as_text:
            column = next(c for c in self._columns if c.name == name)
            several = column.many or column.dim > 1 or column.weighted or not column.is_plain
            return pa.string() if several or column.steps is not None else None
        return wanted

    def _declared(self, name: str, values: pa.Array) -> pa.Array:
        wanted = self._types.get(name)
        return values if wanted is None else values.cast(wanted)

    @cached_property
    def _sample(self) -> tuple[Values, NDArray[np.int64] | None]:
        """Some rows, always the same: they say how large effects are."""
        _, rows, domains = self._draw(_SAMPLE_ROWS, np.random.default_rng(_SAMPLE_SEED))
        return rows, domains

    @cached_property
    def _signal(self) -> Signal:
        return Signal(self._config, self._features, self._sample[0])

    @cached_property
    def _labels(self) -> Labels:
        rows, domains = self._sample
        return Labels(self.tasks, lambda task: self._logits(rows, _SAMPLE_ROWS, task, domains))

    def _logits(
        self, rows: Values, num_rows: int, task: Task, domains: NDArray[np.int64] | None
    ) -> Floats:
        """Returns the logits of a task; each has effects of its own, and in each domain."""
        own = task.label if len(self.tasks.tasks) > 1 else ""
        if domains is None:
            return self._signal.logits(rows, num_rows, own)
        found = np.zeros(num_rows)
        for domain in range(self.tasks.num_domains):
            here = domains == domain
            found[here] = self._signal.logits(rows, num_rows, f"{own}/{domain}")[here]
        return found

    def _with_tasks(self, plan: list[Column]) -> list[Column]:
        """Returns the columns with what losses and metrics want of them, and the domain's."""
        tasks = self.tasks
        shared = {c for f in self._features if f.name in tasks.sessions for c in f.inputs}
        labels = {task.label: task.classes for task in tasks.tasks}
        found = []
        for column in plan:
            if column.name in shared and column.is_plain and column.steps is None:
                column = dataclasses.replace(column, together=True, many=False, dim=1)
            size = tasks.num_domains if column.name == tasks.domain else labels.get(column.name)
            if size is not None:
                known = column.domain.size if isinstance(column.domain, Ids) else size
                domain = Ids(min(size, known), strict=True)
                column = Column(column.name, domain)
            found.append(column)
        if tasks.domain is not None and tasks.domain not in {c.name for c in found}:
            found.append(Column(tasks.domain, Ids(tasks.num_domains, strict=True)))
        return found
