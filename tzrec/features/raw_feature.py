"""Numbers: prices, counts, vectors; with boundaries they become ids."""

from __future__ import annotations

from tzrec.features.number_feature import NumberFeature


class RawFeature(NumberFeature):
    """A vector of ``value_dim`` numbers.

    In FG_NONE the column of a feature with boundaries already holds bucket ids.
    """
