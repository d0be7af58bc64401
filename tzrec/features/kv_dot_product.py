"""Dot products of sparse vectors."""

from __future__ import annotations

from tzrec.features.number_feature import NumberFeature


class KvDotProduct(NumberFeature):
    """The dot product of two columns of ``key:value`` pairs."""
