"""Expressions of columns."""

from __future__ import annotations

from tzrec.features.number_feature import NumberFeature


class ExprFeature(NumberFeature):
    """An arithmetic expression of columns."""
