"""Crosses: products of the values of several columns."""

from __future__ import annotations

from tzrec.features.id_feature import IdLikeFeature


class ComboFeature(IdLikeFeature):
    """Ids of ``a_b`` for every pair of a value of one column and of another."""
