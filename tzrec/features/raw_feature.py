"""Numbers: prices, counts, vectors; with boundaries they become ids."""

from __future__ import annotations

from tzrec.config.messages import which_field
from tzrec.errors import ConfigError
from tzrec.features.base import BaseFeature


class RawFeature(BaseFeature):
    """A vector of ``value_dim`` numbers; sparse when ``boundaries`` are set.

    In FG_NONE the column of a feature with boundaries already holds bucket ids.
    """

    def _check(self) -> None:
        super()._check()
        chosen = which_field(self.config, "dense_emb")
        if self.is_sparse:
            if chosen is not None:
                raise ConfigError(f"{chosen} and boundaries exclude each other", hint="remove one")
        elif self.value_dim == 0:
            raise ConfigError("value_dim is 0, but a vector needs at least one number")
        elif chosen == "autodis" and self.value_dim > 1:
            raise ConfigError(
                f"autodis embeds one number, but value_dim is {self.value_dim}",
                hint="use mlp {} instead",
            )

    def encode_default(self, text: str) -> list[int] | list[float]:
        """Returns the numbers of the default or their buckets; one number stands for all."""
        tokens = text.split(self.config.separator) if self.config.separator else [text]
        if len(tokens) == 1:
            tokens *= max(self.value_dim, 1)
        if self.bucketizer is not None:
            return [self.bucketizer.id_of(token) for token in tokens]
        if len(tokens) != self.value_dim:
            raise ConfigError(f"it holds {len(tokens)} numbers, but value_dim is {self.value_dim}")
        return [float(token) for token in tokens]
