"""``regex_replace_feature``: texts with parts replaced."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from tzrec.errors import ConfigError
from tzrec.fg.operators.base import Operator
from tzrec.fg.ragged import Ragged
from tzrec.fg.reading import as_text
from tzrec.fg.tail import Tail
from tzrec.fg.texts import map_texts


class RegexReplace:
    r"""Replaces matches of RE2 patterns, one pattern after the other.

    Args:
        patterns: regular expressions in the syntax of RE2.
        replacement: with ``\1`` … for groups.
        everywhere: replace every match, not only the first.
        ignore_case: letters match in any case.

    Raises:
        ConfigError: a pattern or the replacement is wrong.
    """

    def __init__(
        self,
        patterns: Sequence[str],
        replacement: str,
        *,
        everywhere: bool = True,
        ignore_case: bool = False,
    ) -> None:
        self._patterns = [f"(?i){pattern}" if ignore_case else pattern for pattern in patterns]
        self._replacement = replacement
        self._most = -1 if everywhere else 1
        try:
            self(["", "a"])
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ConfigError(f"regex {list(patterns)} → {replacement!r}: {error}") from error

    def __call__(self, texts: list[str]) -> list[str]:
        """Returns the texts after all replacements."""
        array = pa.array(texts, pa.large_string())
        for pattern in self._patterns:
            array = pc.replace_substring_regex(
                array, pattern, self._replacement, max_replacements=self._most
            )
        found: list[str] = array.to_pylist()
        return found


class RegexReplaceOperator(Operator):
    """Each value with the matches of ``regex_pattern`` replaced; the default is not touched."""

    kind = "regex_replace_feature"
    num_inputs = 1

    def setup(self) -> None:
        """Compiles the patterns."""
        patterns = self.option("regex_pattern")
        options = self.spec.options
        self._replace = RegexReplace(
            [patterns] if isinstance(patterns, str) else list(patterns),
            str(options.get("replacement", "")),
            everywhere=bool(options.get("replace_all", True)),
            ignore_case=bool(options.get("icase", False)),
        )
        self.spec = dataclasses.replace(self.spec, value_dim=int(options.get("value_dim", 1)))

    def make_tail(self) -> Tail:
        """Returns a tail; a stub leaves missing cells to the feature that reads it."""
        bucketize = self.bucketize()
        fills = bucketize is not None or not self.spec.stub
        return Tail(self.spec, numeric=False, bucketize=bucketize, fills=fills)

    def run(self, columns: Sequence[Ragged]) -> Ragged:
        """Returns the values after all replacements."""
        (column,) = columns
        return column.with_values(map_texts(as_text(column.values), self._replace))
