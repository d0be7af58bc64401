"""Permutation importance: how much worse a model gets without what one feature knows.

Breiman, "Random Forests" (2001), section 10; Fisher, Rudin and Dominici (arXiv 1801.01489).
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tzrec.batch import Batch
from tzrec.datasets.data_parser import DataParser
from tzrec.errors import DataError
from tzrec.features.feature import BaseFeature

logger = logging.getLogger("tzrec")

_QUIET_SECONDS = 2.0
_BY_STEP = ("values", "key_lengths", "weights")


@dataclasses.dataclass(frozen=True)
class Importance:
    """What one entry, a feature or a whole sequence, is worth.

    Attributes:
        name: of the entry.
        changes: metric → value with the entry shuffled minus the value as it is, per repeat.
    """

    name: str
    changes: Mapping[str, Sequence[float]]


def entries_of(features: Iterable[BaseFeature]) -> dict[str, list[str]]:
    """Returns entry → features: those of one sequence have the same steps, so they are one."""
    found: dict[str, list[str]] = {}
    for feature in features:
        found.setdefault(feature.sequence_name or feature.name, []).append(feature.name)
    return found


class RowPool:
    """Rows of some batches, in which the values of a feature can be dealt out anew.

    Args:
        batches: of one data group per row.
        parser: the one that made them.
        num_rows: rows to take; the last batch may bring more.

    Raises:
        DataError: there is no row.
    """

    def __init__(self, batches: Iterable[Batch], parser: DataParser, num_rows: int) -> None:
        self._parser = parser
        self._flat: list[dict[str, Tensor]] = []
        self._sizes: list[int] = []
        for batch in batches:
            self._flat.append(batch.to_dict())
            self._sizes.append(len(next(iter(batch.labels.values()))))
            if sum(self._sizes) >= num_rows:
                break
        if not self._flat:
            raise DataError("there is no row to measure on")

    @property
    def num_rows(self) -> int:
        """All rows."""
        return sum(self._sizes)

    def batches(
        self, features: Sequence[str] = (), generator: torch.Generator | None = None
    ) -> Iterator[tuple[Batch, Batch]]:
        """Yields each batch as it is, and with the rows of ``features`` exchanged all alike.

        Args:
            features: to shuffle.
            generator: of the order.
        """
        shuffled: list[dict[str, Tensor]] = [{} for _ in self._flat]
        if features:
            order = torch.randperm(self.num_rows, generator=generator)
            for name in features:
                for part, piece in zip(shuffled, self._dealt(name, order), strict=True):
                    part.update(piece)
        for flat, part in zip(self._flat, shuffled, strict=True):
            batch = self._parser.to_batch(flat)
            yield batch, self._parser.to_batch(flat | part) if part else batch

    def _dealt(self, feature: str, order: Tensor) -> Iterator[dict[str, Tensor]]:
        """Yields, per batch, the parsed tensors of a feature with the rows of ``order``."""
        keys = [f"{feature}.{part}" for part in (*_BY_STEP, "lengths")]
        whole = {k: torch.cat([f[k] for f in self._flat]) for k in keys if k in self._flat[0]}
        rows = order.split(self._sizes)
        lengths = whole.get(f"{feature}.lengths")
        if lengths is None:
            yield from ({k: value[part] for k, value in whole.items()} for part in rows)
            return
        of_step = whole.get(f"{feature}.key_lengths")
        for part in rows:
            steps = _ragged_index(lengths, part)
            found = {f"{feature}.lengths": lengths[part]}
            if of_step is not None:
                found[f"{feature}.key_lengths"] = of_step[steps]
                steps = _ragged_index(of_step, steps)
            for key in (f"{feature}.values", f"{feature}.weights"):
                if key in whole:
                    found[key] = whole[key][steps]
            yield found


def _ragged_index(lengths: Tensor, rows: Tensor) -> Tensor:
    """Returns the places of the values of ``rows``, one row after the other."""
    lengths = lengths.long()
    starts = (lengths.cumsum(0) - lengths)[rows]
    counts = lengths[rows]
    before = counts.cumsum(0) - counts
    shift = torch.repeat_interleave(starts - before, counts)
    return torch.arange(len(shift)) + shift


def permutation_importance(
    model: Any,
    pool: RowPool,
    entries: Mapping[str, Sequence[str]],
    *,
    repeats: int,
    seed: int,
    device: torch.device,
) -> tuple[dict[str, float], list[Importance]]:
    """Measures every entry: the metrics with its values shuffled among the rows.

    Features that tell the same are each worth little, since the other one remains.

    Args:
        model: a `TrainWrapper`.
        pool: rows with labels.
        entries: entry → features that are shuffled together.
        repeats: shuffles per entry.
        seed: of the shuffles.
        device: where the model is.

    Returns:
        The metrics as they are, and the entries in their order.
    """
    generator = torch.Generator().manual_seed(seed)
    base = _metrics(model, pool.batches(), device)
    measured, reported = [], time.monotonic()
    for number, (name, features) in enumerate(entries.items(), start=1):
        changes: dict[str, list[float]] = {key: [] for key in base}
        for _ in range(repeats):
            found = _metrics(model, pool.batches(features, generator), device)
            for key, value in base.items():
                changes[key].append(found[key] - value)
        measured.append(Importance(name, changes))
        if time.monotonic() - reported > _QUIET_SECONDS:
            reported = time.monotonic()
            logger.info("measured %d/%d features", number, len(entries))
    return base, measured


def _metrics(
    model: Any, batches: Iterable[tuple[Batch, Batch]], device: torch.device
) -> dict[str, float]:
    """Metrics of predictions for the second batch of each pair.

    Rows are grouped (grouped metrics, sessions) by the first one.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng():
            for batch, shuffled in batches:
                batch = batch.to(device)
                _, (_, predictions, _) = model(shuffled.to(device))
                losses = model.model.loss(predictions, batch)
                model.model.update_metric(predictions, batch, losses)
            found = model.model.compute_metric()
    finally:
        model.train(was_training)
    return {key: float(value) for key, value in found.items()}
