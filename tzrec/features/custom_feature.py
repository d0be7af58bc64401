"""Operators of users."""

from __future__ import annotations

from tzrec.features.number_feature import NumberFeature


class CustomFeature(NumberFeature):
    """What an operator makes of some columns, see `tzrec.fg.custom`."""
