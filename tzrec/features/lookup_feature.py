"""Values of a map."""

from __future__ import annotations

from tzrec.features.number_feature import NumberFeature


class LookupFeature(NumberFeature):
    """What a map of the user has for a key of the item."""
