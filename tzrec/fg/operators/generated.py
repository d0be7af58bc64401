"""Features whose columns hold what their operators gave before (``FG_BUCKETIZE``)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tzrec.fg.operators.base import Operator
from tzrec.fg.ragged import Ragged
from tzrec.fg.reading import Reading
from tzrec.fg.spec import Input


class GeneratedOperator(Operator):
    """Reads the column that is called like the feature; what is left to do is the tail's.

    Steps were cut when the column was generated, so all of them are read.

    Args:
        operator: the feature as it was generated.
    """

    def __init__(self, operator: Operator) -> None:
        # Nothing is set up twice: options and files are those of the operator.
        self.kind = operator.kind
        self.numeric = operator.numeric
        self.spec = dataclasses.replace(operator.spec, sequence_length=0)
        self.normalizer = None
        self.tail = operator.generated_tail()
        self._weighted = bool(operator.spec.options.get("weighted"))
        self._run = operator.run if self._weighted else None
        of_user = all(i.side in ("user", "const") for i in operator.inputs)
        side, name = "user" if of_user else "context", operator.spec.name
        self.inputs = (Input(side, name, name, operator.spec.is_sequence),)

    def reading(self, number: int) -> Reading:
        """Reads weighted ids as a map; values of a list stay as they are."""
        how = dataclasses.replace(super().reading(number), keeps_empty=True)
        if not self._weighted:
            return how
        return dataclasses.replace(how, as_map=True, map_separator=self.spec.separator)

    def run(self, columns: Sequence[Ragged]) -> Ragged:
        """Returns the column's values, with weights if weighted."""
        return columns[0] if self._run is None else self._run(columns)
