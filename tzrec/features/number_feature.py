"""`NumberFeature`: what numbers, whatever they are made of, have in common."""

from __future__ import annotations

from tzrec.config.messages import which_field
from tzrec.errors import ConfigError
from tzrec.features.base import BaseFeature


class NumberFeature(BaseFeature):
    """Numbers, plain or embedded; ids where ``boundaries`` or another bucketiser is set."""

    def _check(self) -> None:
        super()._check()
        chosen = which_field(self.config, "dense_emb")
        if self.is_sparse:
            if chosen is not None:
                raise ConfigError(
                    f"{chosen} and {self._maker} exclude each other", hint="remove one"
                )
        elif self.value_dim == 0:
            raise ConfigError("value_dim is 0, but a vector needs at least one number")
        elif chosen == "autodis" and self.value_dim > 1:
            raise ConfigError(
                f"autodis embeds one number, but value_dim is {self.value_dim}",
                hint="use mlp {} instead",
            )

    @property
    def _maker(self) -> str:
        return self.bucketizer.kind if self.bucketizer is not None else "boundaries"

    @property
    def value_dim(self) -> int:
        """Numbers per row or step: those written, else 1."""
        known = self.config.DESCRIPTOR.fields_by_name
        if "value_dim" in known and self.config.HasField("value_dim"):
            return int(self.config.value_dim)
        return 1
