"""Ids that a mask keeps."""

from __future__ import annotations

from tzrec.features.id_feature import IdLikeFeature


class BoolMaskFeature(IdLikeFeature):
    """Those ids of a column whose mask is true."""
