"""Ids: users, items, categories; several per row are pooled."""

from __future__ import annotations

from tzrec.errors import ConfigError
from tzrec.features.base import BaseFeature


class IdLikeFeature(BaseFeature):
    """Rows of an embedding table, any number per row (one per step in a sequence)."""

    @property
    def is_sparse(self) -> bool:
        """Always True."""
        return True

    @property
    def value_dim(self) -> int:
        """Ids per row or step, 0 = any number; one per step unless the config says otherwise."""
        if self.config.HasField("value_dim"):
            return int(self.config.value_dim)
        return 1 if self.is_sequence else 0


class IdFeature(IdLikeFeature):
    """The values of one column as ids."""

    def _check(self) -> None:
        super()._check()
        if not self.is_weighted:
            return
        if self.is_sequence:
            raise ConfigError("weighted is not possible in a sequence", hint="remove weighted")
        if self.pooling != "sum":
            raise ConfigError(
                f"weighted ids are summed, but pooling is {self.pooling}", hint="remove one of them"
            )

    @property
    def is_weighted(self) -> bool:
        """True when each id has a weight (``id:weight``)."""
        return bool(self.config.weighted)
