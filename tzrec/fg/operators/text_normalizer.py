"""``text_normalizer``: the step before a tokenizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tzrec.fg.operators.base import Operator
from tzrec.fg.ragged import Ragged
from tzrec.fg.reading import Reading, as_text
from tzrec.fg.tail import Tail
from tzrec.fg.text_normalize import TextNormalize
from tzrec.fg.texts import map_texts


class TextNormalizerOperator(Operator):
    """Texts in one writing, see `tzrec.fg.text_normalize.TextNormalize`."""

    kind = "text_normalizer"
    num_inputs = 1

    def setup(self) -> None:
        """Reads the options."""
        options = self.spec.options
        self._normalize = TextNormalize(
            int(options.get("parameter", 0)),
            remove_space=bool(options.get("remove_space", False)),
            max_length=options.get("max_length"),
            stop_char_file=str(options.get("stop_char_file") or ""),
        )

    def make_tail(self) -> Tail:
        """Leaves missing cells to the feature that reads this one."""
        return Tail(
            self.spec,
            numeric=False,
            bucketize=None,
            truncates=False,
            fills=not self.spec.stub,
        )

    def reading(self, number: int) -> Reading:
        """Reads a cell as one text."""
        return dataclasses.replace(super().reading(number), separator="")

    def run(self, columns: Sequence[Ragged]) -> Ragged:
        """Returns the normalised texts."""
        (column,) = columns
        return column.with_values(map_texts(as_text(column.values), self._normalize))
