"""Several values combined into one number."""

from __future__ import annotations

from tzrec.features.number_feature import NumberFeature


class CombineFeature(NumberFeature):
    """The sum, mean, … of the values of a column."""
