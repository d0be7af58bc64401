"""What a client may send, and gets: columns with types, sides and an example, and outputs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import types

from tzrec.constant import TARGET_REPEAT_INTERLEAVE_KEY
from tzrec.datasets.schema import accepted_type, input_fields
from tzrec.datasets.tiling import user_features
from tzrec.deploy.predictor import Predictor
from tzrec.errors import TzrecError
from tzrec.features.feature import FgMode
from tzrec.fg.columns import is_list
from tzrec.serving.json_cells import CellReader

_NUM_EXAMPLES = 5
USER_SIDE, ITEM_SIDE, CONTEXT_SIDE = "user", "item", "context"
_SIDES = {USER_SIDE, ITEM_SIDE, CONTEXT_SIDE}
_GENERATED = (FgMode.FG_NORMAL, FgMode.FG_DAG)


@dataclasses.dataclass(frozen=True)
class Column:
    """A raw column that a model reads.

    Attributes:
        name: of the column.
        type: Arrow type that values become; None where nothing tells it: any scalar or list.
        side: ``user``, ``item`` or ``context``; "" where features read it for several.
        nullable: rows may leave it null.
        example: value of the example row, as JSON has it.
    """

    name: str
    type: pa.DataType | None
    side: str = ""
    nullable: bool = True
    example: Any = None

    def describe(self) -> dict[str, Any]:
        """Returns the entry of ``/v1/schema``."""
        return {
            "name": self.name,
            "type": "any" if self.type is None else str(self.type),
            "side": self.side,
            "nullable": self.nullable,
            "example": self.example,
        }


@dataclasses.dataclass(frozen=True)
class Output:
    """A named result: one entry a row.

    Attributes:
        name: of the output.
        dtype: NumPy name, e.g. ``float32``.
        shape: dimensions after the rows.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Returns the entry of ``/v1/schema``."""
        return {"name": self.name, "type": self.dtype, "shape": list(self.shape)}


@dataclasses.dataclass(frozen=True)
class Signature:
    """Inputs and outputs of one thing that a servable can do.

    Attributes:
        inputs: columns of its rows.
        outputs: what it gives for each row.
        examples: rows of the export, column → value as JSON has it; the first has the fewest
            missing values.
        columns_of_features: feature → column, of the features that read one, to name the column
            when the model refuses a value of the feature.
    """

    inputs: tuple[Column, ...]
    outputs: tuple[Output, ...]
    examples: tuple[dict[str, Any], ...] = ()
    columns_of_features: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def example(self) -> dict[str, Any]:
        """An example row; of nulls where the export has none."""
        return next(iter(self.examples), {column.name: None for column in self.inputs})

    @functools.cached_property
    def cells(self) -> CellReader:
        """Reads rows of JSON quickly; made once, as it is only about types and names."""
        return CellReader(self.inputs)

    def describe(self) -> dict[str, Any]:
        """Returns ``inputs``, ``outputs``, ``example`` and ``examples`` as JSON has them."""
        return {
            "inputs": [column.describe() for column in self.inputs],
            "outputs": [output.describe() for output in self.outputs],
            "example": self.example,
            "examples": list(self.examples),
        }


def columns_of(predictor: Predictor, rows: pa.Table | None) -> tuple[Column, ...]:
    """Returns the columns of a model.

    Args:
        predictor: the model.
        rows: its golden rows, for types and the example; None for an export without.
    """
    wanted = predictor.input_columns
    declared = input_fields(predictor.config.data_config)
    trained = {} if rows is None else {field.name: field.type for field in rows.schema}
    side_of = column_sides(predictor)
    example = next(iter(example_rows(rows, wanted)), {})
    needed = set() if rows is None or not rows.num_rows else _columns_without_null(predictor, rows)
    return tuple(
        Column(
            name,
            _wire_type(declared.get(name) or trained.get(name)),
            side_of.get(name, ""),
            name not in needed,
            example.get(name),
        )
        for name in wanted
    )


def _wire_type(found: pa.DataType | None) -> pa.DataType | None:
    """Returns the type as a reader of files takes it; None where it is not known."""
    accepted = None if found is None else accepted_type(found)
    return None if accepted is None or _has_null(accepted) else accepted


def _has_null(found: pa.DataType) -> bool:
    if is_list(found):
        return _has_null(found.value_type)
    return bool(types.is_null(found))


def column_sides(predictor: Predictor) -> dict[str, str]:
    """Returns column → side, from the expressions of the features; "" where they differ.

    Steps of a sequence are of the user's history, whatever side their values are of.
    """
    from tzrec.features.generation import create_handler

    found: dict[str, set[str]] = {}
    users = user_features(predictor.features)
    if all(feature.fg_mode in _GENERATED for feature in predictor.features):
        for operator in create_handler(predictor.features).operators:
            for source in operator.inputs:
                if source.side in _SIDES:
                    side = USER_SIDE if operator.spec.name in users else source.side
                    found.setdefault(source.source, set()).add(side)
    else:
        for feature in predictor.features:
            # Encoded columns are called like the feature; its expression tells the side.
            side = USER_SIDE if feature.name in users else _expression_side(feature)
            for name in feature.inputs:
                found.setdefault(name, set()).add(side)
    return {name: sides.pop() if len(sides) == 1 else "" for name, sides in found.items()}


def _expression_side(feature: Any) -> str:
    expression = getattr(feature.config, "expression", "")
    parts = [expression] if isinstance(expression, str) else list(expression)
    sides = {str(part).partition(":")[0] for part in parts}
    return sides.pop() if len(sides) == 1 and sides <= _SIDES else ""


def example_rows(rows: pa.Table | None, names: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """Returns a few of the rows as JSON has them, those with the fewest missing values first."""
    if rows is None:
        return ()
    missing = np.zeros(rows.num_rows, np.int64)
    for name in names:
        missing += rows[name].is_null().to_numpy()
    best = np.argsort(missing, kind="stable")[:_NUM_EXAMPLES]
    return tuple({name: json_value(rows[name][int(i)]) for name in names} for i in best)


def json_value(scalar: pa.Scalar) -> Any:
    """Returns an Arrow value as JSON has it: short floats, maps as objects, no NaN."""
    value = scalar.as_py()
    if value is None:
        return None
    if types.is_float32(scalar.type) or types.is_float16(scalar.type):
        value = float(str(np.float32(value)))
    if types.is_floating(scalar.type):
        return value if np.isfinite(value) else None
    if types.is_map(scalar.type):
        key_value = zip(scalar.values.field(0), scalar.values.field(1), strict=True)
        return {str(key.as_py()): json_value(item) for key, item in key_value}
    if is_list(scalar.type):
        return [json_value(one) for one in scalar.values]
    return value if isinstance(value, (bool, int, str)) else str(value)


def _columns_without_null(predictor: Predictor, rows: pa.Table) -> set[str]:
    """Returns the columns that the model's parser does not take a null of, by trying each."""
    row = {name: rows[name].combine_chunks().slice(0, 1) for name in predictor.input_columns}
    needed = set()
    for name, column in row.items():
        try:
            predictor.parse(row | {name: pa.nulls(1, column.type)})
        except TzrecError:
            needed.add(name)
    return needed


def outputs_of(predictor: Predictor) -> tuple[Output, ...]:
    """Returns the outputs of a model, sorted by name."""
    specs: Mapping[str, Any] = predictor.manifest.outputs
    return tuple(
        Output(name, specs[name].dtype, tuple(specs[name].shape))
        for name in predictor.output_names
        if name != TARGET_REPEAT_INTERLEAVE_KEY
    )


def signature_of(predictor: Predictor, rows: pa.Table | None) -> Signature:
    """Returns what a model reads and gives.

    Args:
        predictor: the model.
        rows: its golden rows, None for an export without.
    """
    return Signature(
        columns_of(predictor, rows),
        outputs_of(predictor),
        example_rows(rows, predictor.input_columns),
        {f.name: f.inputs[0] for f in predictor.features if len(f.inputs) == 1},
    )
