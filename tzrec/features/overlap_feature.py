"""The overlap of two texts."""

from __future__ import annotations

from tzrec.features.number_feature import NumberFeature


class OverlapFeature(NumberFeature):
    """How much the terms of a query and a title have in common."""
