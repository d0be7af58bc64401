"""Values of a map of maps."""

from __future__ import annotations

from tzrec.features.number_feature import NumberFeature


class MatchFeature(NumberFeature):
    """What a map of maps of the user has for two keys of the item."""
