"""``expr_feature``: an expression of columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tzrec.errors import ConfigError, FeatureError, did_you_mean
from tzrec.fg.checks import number, texts
from tzrec.fg.expression import Expression
from tzrec.fg.expression.evaluate import UnequalVectorsError, Vector
from tzrec.fg.operators.base import Operator
from tzrec.fg.ragged import Ragged


class ExprOperator(Operator):
    """The expression, computed in float64; missing where any of its variables is.

    Variables are named by their columns. Vectors are combined element by element, scalars with
    each element, and a shorter vector is filled up with ``fill_missing`` (nan).
    """

    kind = "expr_feature"
    numeric = True

    def expressions(self) -> list[str]:
        """Returns the variables."""
        return texts("variables", self.option("variables"))

    def setup(self) -> None:
        """Parses the expression.

        Raises:
            ConfigError: it is wrong, or has a variable that is no input.
        """
        self._expression = Expression.parse(str(self.option("expression")))
        self._names = [i.name for i in self.inputs]
        for name in sorted(self._expression.variables - set(self._names)):
            raise ConfigError(
                f"expression {self._expression.text!r} has the variable {name!r}, which is not "
                f"in variables: {', '.join(self._names)}{did_you_mean(name, self._names)}"
            )
        self._fill = number("fill_missing", self.spec.options.get("fill_missing", np.nan))

    def run(self, columns: Sequence[Ragged]) -> Ragged:
        """Returns the expression of each cell."""
        return evaluate(self._expression, self._names, columns, self._fill)


def evaluate(
    expression: Expression, names: Sequence[str], columns: Sequence[Ragged], fill: float = np.nan
) -> Ragged:
    """Returns an expression of the cells in which no variable is missing.

    Args:
        expression: what is computed, in float64.
        names: its variables.
        columns: their values, all with the same cells.
        fill: stands for elements that a shorter vector lacks.

    Raises:
        FeatureError: a vector function got vectors of different lengths.
    """
    first = columns[0]
    present = np.ones(first.num_cells, dtype=bool)
    for column in columns:
        if not column.single:
            present &= column.lengths > 0
    cells = np.flatnonzero(present)
    if len(cells) < len(present):
        columns = [column.take_cells(cells) for column in columns]
    vectors = {
        name: Vector(column.values.astype(np.float64, copy=False), column.lengths)
        for name, column in zip(names, columns, strict=True)
    }
    try:
        found = expression.evaluate_cells(vectors, len(cells), fill)
    except UnequalVectorsError as error:
        row = first.row_of_cell(int(cells[error.cell]))
        raise FeatureError(
            f"{error} in row {row} of the batch: both vectors must be of the same length",
            hint="set fill_missing to fill the shorter one up",
        ) from error
    lengths = np.zeros(len(present), np.int32)
    lengths[cells] = found.lengths
    return Ragged(found.values, lengths, first.row_lengths)
