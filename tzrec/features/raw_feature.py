"""Numbers: prices, counts, vectors; with boundaries they become ids."""

from __future__ import annotations

from tzrec.features.base import BaseFeature


class RawFeature(BaseFeature):
    """A number or a vector of ``value_dim`` numbers; sparse when ``boundaries`` are set.

    In FG_NONE a column of a feature with boundaries already holds bucket ids.
    """
