"""What samplers have in common: the tables, where they live, and the rows that are drawn."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tzrec.datasets.samplers.memory import Handle, SharedArrays
from tzrec.options import from_environment


@dataclass(frozen=True)
class SampledRows:
    """Item rows drawn for a batch: N shared negatives, then H hard ones.

    Attributes:
        columns: attribute → (N + H) values. Attributes that are no input column are left out.
        num_negatives: N.
        hard_neg_indices: (H, 2) row of the batch and running number within that row; None where
            the batch has no hard negatives.
        log_q: (N,) log of the probability that one draw gives this item.
        positive_log_q: (P,) the same of the batch's positives.
    """

    columns: dict[str, pa.Array]
    num_negatives: int
    hard_neg_indices: NDArray[np.int32] | None = None
    log_q: NDArray[np.float32] | None = None
    positive_log_q: NDArray[np.float32] | None = None


class BaseSampler(abc.ABC):
    """Draws rows of a table for each batch.

    The tables are read by `build`, once for each host, or taken over from the process that has
    read them by `attach`. A sampler pickles without copying them: the process that loads it
    attaches, so the one that has built them must live until then.

    Args:
        config: message of the sampler.
        fields: input column → type, lists of candidates without their list.
        is_training: ``num_eval_sample`` counts where it is False.
        with_log_q: tell the probabilities of the draws too.

    Attributes:
        item_id_field: column with the item's id.
        user_id_field: column with the user's id, None where the sampler knows no users.
        attr_fields: attributes of an item, as configured.
        string_ids: ids are text of any form.
        num_sample: N.
    """

    has_users: ClassVar[bool] = False

    def __init__(
        self,
        config: Any,
        fields: Mapping[str, pa.DataType],
        *,
        is_training: bool,
        with_log_q: bool = False,
    ) -> None:
        self.config = config
        self.fields = dict(fields)
        self.is_training = is_training
        self.with_log_q = with_log_q
        self.item_id_field: str = config.item_id_field
        self.user_id_field: str | None = config.user_id_field if self.has_users else None
        self.attr_fields: tuple[str, ...] = tuple(config.attr_fields)
        self.string_ids: bool = config.string_ids or from_environment().string_ids
        self._arrays: SharedArrays | None = None

    @property
    def num_sample(self) -> int:
        """Negatives of a batch: ``num_eval_sample`` outside training, where it is written."""
        if not self.is_training and self.config.HasField("num_eval_sample"):
            return int(self.config.num_eval_sample)
        return int(self.config.num_sample)

    def build(self) -> None:
        """Reads the tables, shows progress, and shares them. Does nothing when they are there.

        Raises:
            DataError: a table is missing or has something that cannot be read.
            ConfigError: the config does not fit the tables.
        """
        if self._arrays is None:
            arrays = SharedArrays()
            self._build(arrays)
            arrays.freeze()
            self._open(arrays)

    def handle(self) -> Handle | None:
        """Returns what another process of this host needs to `attach`.

        None where memory cannot be shared (no Linux): every process builds its own.
        """
        return self.arrays.handle()

    def attach(self, handle: Handle) -> None:
        """Takes over the tables that another process of this host has built.

        Raises:
            DistributedError: that process is gone, or its memory cannot be opened from here.
        """
        self._open(SharedArrays.attach(handle))

    @property
    def arrays(self) -> SharedArrays:
        """The tables, once they are built."""
        assert self._arrays is not None, "build() or attach() comes first"
        return self._arrays

    @abc.abstractmethod
    def _build(self, arrays: SharedArrays) -> None:
        """Reads the tables into shared arrays."""

    def _open(self, arrays: SharedArrays) -> None:
        """Makes what `get` needs from the shared arrays; called in every process."""
        self._arrays = arrays

    @abc.abstractmethod
    def estimated_sample_num(self, batch_size: int) -> int:
        """Returns about how many rows `get` adds to a batch."""

    @abc.abstractmethod
    def get(self, columns: Mapping[str, pa.Array], rng: np.random.Generator) -> Any:
        """Returns `SampledRows` (the tree sampler: ``TreeRows``) for a batch.

        Args:
            columns: the id columns of the batch, P rows.
            rng: decides all draws.

        Raises:
            DataError: a column cannot be the id.
        """

    def __getstate__(self) -> dict[str, Any]:
        kept = ("config", "fields", "is_training", "with_log_q", "string_ids", "_arrays")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        arrays = state.pop("_arrays")
        BaseSampler.__init__(
            self,
            state["config"],
            state["fields"],
            is_training=state["is_training"],
            with_log_q=state["with_log_q"],
        )
        self.string_ids = state["string_ids"]
        if arrays is not None:
            self._open(arrays)
