"""`FeatureStatistics`: how often features are missing or unknown, and what they hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tzrec.fg.distinct import DistinctCount
from tzrec.fg.handler import FgHandler
from tzrec.fg.operators.base import Operator
from tzrec.fg.parsed import Parsed

# Values without a word have an id of their own here; a hash always finds one.
_WITH_UNKNOWN = ("vocab_list", "vocab_dict", "vocab_file", "num_buckets")


@dataclasses.dataclass
class FeatureTally:
    """What one feature was over some batches.

    Attributes:
        name: the feature.
        bucketizer: option that makes ids, "" for numbers and tokens.
        buckets: size of a hash table, 0 for other features.
        is_sequence: rows have steps.
        rows: rows.
        missing: rows without any value, before defaults.
        cells: rows, or steps.
        values: values before defaults.
        unknown: values without an id of their own.
        low: smallest number, defaults included; inf without any.
        high: largest number; -inf without any.
        distinct: ids of a hash table, None for other features.
    """

    name: str
    bucketizer: str = ""
    buckets: int = 0
    is_sequence: bool = False
    rows: int = 0
    missing: int = 0
    cells: int = 0
    values: int = 0
    unknown: int = 0
    low: float = np.inf
    high: float = -np.inf
    distinct: DistinctCount | None = None

    @classmethod
    def of(cls, operator: Operator) -> FeatureTally:
        """Returns an empty tally for a feature."""
        bucketize, spec = operator.tail.bucketize, operator.spec
        tally = cls(spec.name, bucketize.kind if bucketize else "", is_sequence=spec.is_sequence)
        if bucketize is not None and bucketize.kind == "hash_bucket_size":
            tally.buckets = bucketize.buckets
            tally.distinct = DistinctCount(bucketize.buckets)
        return tally

    def add(self, parsed: Parsed) -> None:
        """Adds a batch."""
        counts = parsed.counts
        if counts is None:
            raise ValueError(f"the handler of {self.name} does not count: make statistics first")
        self.rows += counts.rows
        self.missing += counts.missing
        self.cells += counts.cells
        self.values += counts.values
        self.unknown += counts.unknown
        if self.distinct is not None:
            self.distinct.add(parsed.values)
        if parsed.values.dtype == np.float32 and parsed.values.size:
            # fmin and fmax pass over nan.
            self.low = min(self.low, float(np.fmin.reduce(parsed.values, axis=None)))
            self.high = max(self.high, float(np.fmax.reduce(parsed.values, axis=None)))

    def merge(self, other: FeatureTally) -> None:
        """Adds what another tally of the same feature has."""
        for name in ("rows", "missing", "cells", "values", "unknown"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        if self.distinct is not None and other.distinct is not None:
            self.distinct.merge(other.distinct)

    @property
    def missing_rate(self) -> float:
        """Share of rows without any value."""
        return self.missing / max(self.rows, 1)

    @property
    def unknown_rate(self) -> float | None:
        """Share of values without an id of their own; None where every value has one."""
        if self.bucketizer not in _WITH_UNKNOWN:
            return None
        return self.unknown / max(self.values, 1)

    @property
    def mean_length(self) -> float:
        """Values per row, or steps per row of a sequence."""
        return (self.cells if self.is_sequence else self.values) / max(self.rows, 1)

    @property
    def load(self) -> float | None:
        """Share of the hash table's rows that are used, estimated; None without a hash."""
        return None if self.distinct is None else self.distinct.estimate / self.buckets


class FeatureStatistics:
    """Counts what a handler generates.

    Making it turns the handler's counting on, which costs one look at the values of a batch.
    Statistics of several processes can be sent and merged.

    Args:
        handlers: feature generation whose results are counted.

    Example::

        statistics = FeatureStatistics([handler])
        statistics.update(handler.process_arrow(columns))
        statistics.tallies["user_id"].missing_rate
    """

    def __init__(self, handlers: Iterable[FgHandler]) -> None:
        self.tallies: dict[str, FeatureTally] = {}
        for handler in handlers:
            for operator in handler.operators:
                if not operator.spec.stub:
                    operator.tail.counts = True
                    self.tallies[operator.spec.name] = FeatureTally.of(operator)

    def update(self, results: Mapping[str, Parsed]) -> None:
        """Adds a batch of generated features."""
        for name, parsed in results.items():
            self.tallies[name].add(parsed)

    def merge(self, other: FeatureStatistics) -> None:
        """Adds the statistics of other batches of the same features."""
        for name, tally in self.tallies.items():
            tally.merge(other.tallies[name])

    def lines(self) -> list[str]:
        """Returns a table as text, a line per feature."""
        rows = [_cells(tally) for tally in self.tallies.values()]
        return _aligned([_HEADER, *rows])


_HEADER = ("feature", "rows", "missing", "oov", "length", "distinct", "load", "min", "max")


def _cells(tally: FeatureTally) -> tuple[str, ...]:
    distinct = tally.distinct
    has_numbers = tally.low <= tally.high
    return (
        tally.name,
        f"{tally.rows:,}",
        _percent(tally.missing_rate),
        _percent(tally.unknown_rate),
        f"{tally.mean_length:.2f}",
        "" if distinct is None else f"{distinct.estimate:,.0f}",
        _percent(tally.load),
        f"{tally.low:.6g}" if has_numbers else "",
        f"{tally.high:.6g}" if has_numbers else "",
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}%"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        numbers = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *numbers]).rstrip())
    return lines
