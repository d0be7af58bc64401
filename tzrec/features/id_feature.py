"""Ids: users, items, categories; several per row are pooled."""

from __future__ import annotations

from tzrec.features.base import BaseFeature


class IdFeature(BaseFeature):
    """Rows of an embedding table, any number per row (one per step in a sequence)."""

    @property
    def is_sparse(self) -> bool:
        """Always True."""
        return True

    @property
    def is_weighted(self) -> bool:
        """True when each id has a weight (``id:weight``)."""
        return self.config.weighted

    @property
    def value_dim(self) -> int:
        """Ids per row or step, 0 = any number; one per step unless the config says otherwise."""
        if self.config.HasField("value_dim"):
            return self.config.value_dim
        return 1 if self.is_sequence else 0
