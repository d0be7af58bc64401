"""`FgHandler`: columns in, features out."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tzrec.errors import ConfigError, DataError, TzrecError, at, did_you_mean
from tzrec.fg.align import align, as_steps, cut_steps, read_feature, spread
from tzrec.fg.assets import resolve_assets
from tzrec.fg.config_json import create_fg_json
from tzrec.fg.graph import sources, stages
from tzrec.fg.operators.base import Operator, create_operator
from tzrec.fg.operators.generated import GeneratedOperator
from tzrec.fg.parsed import Parsed
from tzrec.fg.ragged import Ragged
from tzrec.fg.reading import Reading, read
from tzrec.fg.spec import READ_SIDES, Input, parse_fg_json
from tzrec.fg.stacked import Stacks
from tzrec.storage import is_directory, open_file

Columns = Mapping[str, Any]
Masks = Mapping[str, NDArray[np.bool_]]
Compute = Callable[[Operator, Sequence[Ragged]], Ragged]

FG_JSON = "fg.json"


def _finish(operator: Operator, inputs: Sequence[Ragged]) -> Ragged:
    return operator.finish(inputs)


class FgHandler:
    """Generates the features of an ``fg.json``.

    Each column is read once per batch, whatever number of features read it. With several
    threads the features of a stage are computed side by side; results do not depend on it.

    Args:
        fg_json: ``{"features": [...]}``, or the `FeatureConfig` messages of a config.
        threads: features computed at once.
        bucketize_only: columns are called like the features and hold values that were
            generated before; only ids are made.
        farm_hash: hash with FarmHash Fingerprint64 instead of MurmurHash64A.

    Raises:
        ConfigError: an entry is wrong, features read each other in a circle.

    Example::

        handler = FgHandler({"features": [{"feature_type": "id_feature", "feature_name": "user",
            "expression": "user:user_id", "hash_bucket_size": 100}]})
        handler.process_arrow({"user_id": pa.array(["a", "b"])})["user"].values
    """

    def __init__(
        self,
        fg_json: Mapping[str, Any] | Sequence[Any],
        threads: int = 1,
        *,
        bucketize_only: bool = False,
        farm_hash: bool = False,
    ) -> None:
        if isinstance(fg_json, Sequence) and fg_json and hasattr(fg_json[0], "DESCRIPTOR"):
            fg_json = create_fg_json(fg_json)
        specs = parse_fg_json(fg_json)
        self.threads = max(int(threads), 1)
        self.bucketize_only = bucketize_only
        self.operators: list[Operator] = []
        for spec in specs:
            if bucketize_only and spec.stub:
                continue
            with at(f"feature {spec.name}"):
                operator = create_operator(spec, farm=farm_hash)
                self.operators.append(GeneratedOperator(operator) if bucketize_only else operator)
        self._stages = stages(self.operators)
        self._stacks = Stacks(self.operators)
        self._sources = {name for operator in self.operators for name in sources(operator)}

    @classmethod
    def load(cls, path: str, threads: int = 1, **options: Any) -> FgHandler:
        """Makes the handler of a written ``fg.json``.

        Args:
            path: the file, or the folder that holds it as ``fg.json``; its assets lie beside it.
            threads: features computed at once.
            options: further arguments of the class.

        Raises:
            ConfigError: the file cannot be read, or what it says is wrong.
        """
        file = posixpath.join(path, FG_JSON) if is_directory(path) else path
        try:
            with open_file(file) as stream:
                fg_json = json.loads(stream.read())
        except (OSError, ValueError) as error:
            raise ConfigError(f"{file} cannot be read: {error}") from error
        with at(file):
            if not isinstance(fg_json, dict):
                raise ConfigError(f"it holds {type(fg_json).__name__}, must be an object")
            resolve_assets(fg_json, posixpath.dirname(file))
            return cls(fg_json, threads, **options)

    @property
    def features(self) -> list[str]:
        """Names of the features that are returned."""
        return [o.spec.name for o in self.operators if not o.spec.stub]

    @property
    def columns(self) -> list[str]:
        """Columns that are read."""
        names = [i.source for o in self.operators for i in o.inputs if i.side in READ_SIDES]
        return list(dict.fromkeys(names))

    def user_features(self) -> list[str]:
        """Returns the features that depend on the user alone; sequences always count as such."""
        of_user: dict[str, bool] = {}
        for stage in self._stages:
            for operator in stage:
                of_user[operator.spec.name] = operator.spec.is_sequence or all(
                    of_user[i.source] if i.side == "feature" else i.side in ("user", "const")
                    for i in operator.inputs
                )
        return [name for name in self.features if of_user[name]]

    def process_arrow(self, columns: Columns, masks: Masks | None = None) -> dict[str, Parsed]:
        """Generates the features of a batch.

        Args:
            columns: column → array of B rows, or of one row that stands for all.
            masks: feature → (B,) rows in which its first input that is no map counts as missing;
                the first one, where all are maps. Features that read it see it without the mask.

        Returns:
            Feature → values, in the order of ``fg.json``, without stubs.

        Raises:
            DataError: a column is missing.
            FeatureError: a column or value cannot be read; names feature, column and row.
        """
        results = self.generate(columns, masks)
        return {
            operator.spec.name: operator.tail.parsed(results[operator.spec.name])
            for operator in self.operators
            if not operator.spec.stub
        }

    def generate(
        self, columns: Columns, masks: Masks | None = None, compute: Compute = _finish
    ) -> dict[str, Ragged]:
        """Like `process_arrow`, but with stubs, and with text where nothing makes ids of it.

        Args:
            columns: as in `process_arrow`.
            masks: as in `process_arrow`.
            compute: makes the feature of its inputs, which have the same cells.
        """
        batch, masks = _Batch(columns), masks or {}
        hidden: dict[str, Ragged] = {}
        if compute is _finish and not masks:
            batch.results = self._stacks.generate(columns)

        def work(operator: Operator) -> None:
            name = operator.spec.name
            if name in batch.results:
                return
            if name not in masks or name in self._sources:
                batch.results[name] = self._run(operator, batch, compute)
            if name in masks:
                hidden[name] = self._run(operator, batch, compute, masks[name])

        if self.threads == 1:
            for stage in self._stages:
                for operator in stage:
                    work(operator)
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                for stage in self._stages:
                    list(pool.map(work, stage))
        return {**batch.results, **hidden}

    def failing_columns(self, columns: Columns) -> list[str]:
        """Returns the columns of the first feature that cannot be generated, [] for none."""
        by_name = {operator.spec.name: operator for operator in self.operators}
        for name, _ in self.failures(columns):
            return [i.source for i in by_name[name].inputs if i.side in READ_SIDES]
        return []

    def failures(self, columns: Columns) -> Iterator[tuple[str, Exception]]:
        """Yields features that cannot be generated, and why; not those that only read these."""
        batch = _Batch(columns)
        for stage in self._stages:
            for operator in stage:
                if not {*sources(operator)} <= {*batch.results}:
                    continue
                try:
                    batch.results[operator.spec.name] = self._run(operator, batch, _finish)
                except ValueError as error:
                    yield operator.spec.name, error

    def _run(
        self,
        operator: Operator,
        batch: _Batch,
        compute: Compute,
        mask: NDArray[np.bool_] | None = None,
    ) -> Ragged:
        spec = operator.spec
        try:
            inputs = [batch.input(*pair) for pair in operator.reads]
            if spec.sequence_length:
                inputs = [cut_steps(column, spec.sequence_length) for column in inputs]
            if mask is not None:
                inputs = _hide(operator, inputs, mask)
            inputs = align(inputs, operator.sources)
            if spec.is_sequence and not inputs[0].is_sequence:
                inputs = as_steps(inputs)  # no input has steps
            return compute(operator, inputs)
        except TzrecError as error:  # `at` would cost more than some features
            read_from = ", ".join(i.source for i in operator.inputs if i.side != "const")
            error.location.insert(0, f"feature {spec.name} of {read_from}")
            raise


class _Batch:
    """The columns of one batch, and what was made of them so far."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self.results: dict[str, Ragged] = {}
        self._read: dict[tuple[str, Reading], Ragged] = {}

    def input(self, wanted: Input, how: Reading) -> Ragged:
        """Returns an input of a feature."""
        if wanted.side == "const":
            return read(pa.array([wanted.source]), how, f"const:{wanted.source}")
        if wanted.side == "feature":
            return read_feature(self.results[wanted.source], how, f"feature:{wanted.source}")
        return self.column(wanted.source, how)

    def column(self, name: str, how: Reading) -> Ragged:
        """Returns a column; each reading of it is made once."""
        key = (name, how)
        found = self._read.get(key)
        if found is None:
            if name not in self.columns:
                raise DataError(
                    f"column {name!r} is missing{did_you_mean(name, self.columns)}",
                    hint=f"there are: {', '.join(self.columns)}",
                )
            found = self._read[key] = read(self.columns[name], how, f"column {name!r}")
        return found


def _hide(operator: Operator, inputs: list[Ragged], mask: NDArray[np.bool_]) -> list[Ragged]:
    """Empties the masked rows of the first input that is no map, or of the first one."""
    varying = [i for i, wanted in enumerate(operator.inputs) if wanted.side != "const"]
    number = next((i for i in varying if inputs[i].keys is None), next(iter(varying), None))
    if number is None:
        return inputs
    column = inputs[number]
    if column.num_rows == 1:
        column = spread(column, operator.inputs[number].source, len(mask))
    if column.num_rows != len(mask):
        raise DataError(f"an input has {column.num_rows} rows, its mask {len(mask)}")
    if column.row_lengths is None:
        hidden = column.take_cells(np.where(mask, -1, np.arange(len(mask))))
    else:
        shown = np.flatnonzero(~np.repeat(mask, column.row_lengths))
        kept = np.where(mask, np.int32(0), column.row_lengths)
        hidden = column.take_cells(shown, kept)
    return [*inputs[:number], hidden, *inputs[number + 1 :]]
