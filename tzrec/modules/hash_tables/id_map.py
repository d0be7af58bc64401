"""`IdMap`: which id has which row of a hash table."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tzrec.features.hash_table import HashTableSpec
from tzrec.modules.hash_tables.seen import Counted, SeenIds, passing

# No id: feature generation hashes below it.
EMPTY = torch.iinfo(torch.int64).max


class IdMap(nn.Module):
    """Gives rows 0 … capacity - 1 of a table to ids; all others share a spare row behind them.

    In training every step is observed; each ``interval`` steps the map changes by the ids that
    came since. With t the number of observed steps, the worth of an id that came c times, last at
    step s, is

    * lfu: ``c``
    * lru: ``1 / (t - s + 1)^decay``
    * distance_lfu: ``c / (t - s + 1)^decay``

    A change:

    1. Ids that the threshold does not let through are left out, as if they had not come.
    2. Of ids that have a row c grows by their count and s becomes their last step.
    3. Of ids without a row, c is their count in the interval. With an admission strategy it is
       that over all intervals, and only those go on that have reached the threshold; of the ids
       that have no row afterwards, these too, the ``counter_capacity`` most frequent are
       remembered (of equal ones the smaller id).
    4. New ids are taken by falling worth, then falling c, then rising id. The first get the empty
       rows in rising order. If there are too few, the ``capacity`` ids of the highest worth among
       the old and the new keep or get a row; of equal ones an old id goes before a new one, and
       of the old the smaller id. The rows of ids that lose theirs are given in rising order.

    Rows that were given begin anew: `change` returns them. Lookups outside of `change` change
    nothing.

    Args:
        spec: the table.
        device: where the map lives.

    Attributes:
        spec: the table.
        seen: ids that came on this rank since the last change.
        is_inference: the map will not change again.
    """

    ids: Tensor
    counts: Tensor
    last_steps: Tensor
    steps: Tensor
    counter_ids: Tensor
    counter_counts: Tensor
    sorted_ids: Tensor
    sorted_rows: Tensor

    def __init__(self, spec: HashTableSpec, device: torch.device | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.seen = SeenIds()
        self.is_inference = False
        rows = spec.num_rows
        for name, size in (("ids", rows), ("counts", rows), ("last_steps", rows)):
            self.register_buffer(name, _filled(name, size, device))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64, device=device))
        if spec.admission is not None:
            for name in ("counter_ids", "counter_counts"):
                size = spec.admission.counter_capacity
                self.register_buffer(name, _filled(name, size, device))
        # The map in the order of ids, for lookups: made of `ids`.
        self.register_buffer("sorted_ids", _filled("ids", rows, device), persistent=False)
        self.register_buffer("sorted_rows", _filled("rows", rows, device), persistent=False)
        self._sorted_version = -1

    def reset_parameters(self) -> None:
        """Empties the map."""
        for name, buffer in self.named_buffers():
            buffer.fill_(EMPTY if name.endswith("ids") else 0)

    @property
    def num_used(self) -> int:
        """Ids that have a row."""
        return int((self.ids != EMPTY).sum())

    @property
    def is_due(self) -> bool:
        """Whether the map changes after the step that was observed last."""
        return int(self.steps) % self.spec.interval == 0

    def set_is_inference(self, is_inference: bool) -> None:
        """Says whether the map is only read from now on."""
        self._sort()
        self.is_inference = is_inference

    def forward(self, ids: Tensor) -> Tensor:
        """Returns the rows (n,) int64 of ``ids`` (n,)."""
        if not self.is_inference:
            self._sort()
        places = torch.searchsorted(self.sorted_ids, ids).clamp(max=self.spec.num_rows - 1)
        found = (self.sorted_ids.index_select(0, places) == ids) & (ids != EMPTY)
        # Whether the module trains is part of a traced graph, as it is of any other module.
        spare = self.spec.spare_row(training=self.training)
        return torch.where(found, self.sorted_rows.index_select(0, places), spare)

    def observe(self, ids: Tensor) -> None:
        """Notes the ids (n,) of a training step of this rank; every rank calls it, every step."""
        self.steps += 1
        self.seen.add(ids, int(self.steps))

    def change(self, seen: Counted, generator: torch.Generator) -> Tensor:
        """Changes the map by what came on all ranks since the last change.

        Args:
            seen: of all ranks.
            generator: of probabilities, on the CPU; the same on all ranks.

        Returns:
            The rows (m,) that have another owner now.
        """
        seen = seen.select(seen.ids != EMPTY)
        if self.spec.threshold is not None:
            seen = seen.select(passing(self.spec.threshold, seen.counts, generator))
        rows = self._rows_of(seen.ids)
        known = rows >= 0
        self.counts[rows[known]] += seen.counts[known]
        self.last_steps[rows[known]] = seen.last_steps[known]
        without_row = self._with_waiting(seen.select(~known))
        new = self._admitted(without_row)
        order = _descending(self._worth(new.counts, new.last_steps), new.counts)
        new = new.select(order)
        free = self._free_rows(new)
        new = new.select(slice(0, len(free)))
        self._give(free, new)
        self._remember(without_row, new.ids)
        return free

    def _rows_of(self, ids: Tensor) -> Tensor:
        """Returns the rows of ids, -1 where they have none."""
        self._sort()
        places = torch.searchsorted(self.sorted_ids, ids).clamp(max=self.spec.num_rows - 1)
        found = self.sorted_ids[places] == ids
        return torch.where(found, self.sorted_rows[places], -1)

    def _worth(self, counts: Tensor, last_steps: Tensor) -> Tensor:
        if self.spec.policy == "lfu":
            return counts.to(torch.float64)
        age = (int(self.steps) - last_steps + 1).to(torch.float64)
        if self.spec.decay != 1:
            age = age.pow(self.spec.decay)
        return counts / age if self.spec.policy == "distance_lfu" else 1 / age

    def _with_waiting(self, new: Counted) -> Counted:
        """Returns the new ids and those that wait, counted together; the latter at step 0."""
        if self.spec.admission is None:
            return new
        waiting = self.counter_ids != EMPTY
        before = self.counter_ids[waiting]
        counted = Counted(before, self.counter_counts[waiting], torch.zeros_like(before))
        return Counted.merge([counted, new])

    def _admitted(self, without_row: Counted) -> Counted:
        """Returns the ids of this interval that may have a row; steps count from 1."""
        admission = self.spec.admission
        if admission is None:
            return without_row
        enough = without_row.counts >= admission.threshold
        return without_row.select(enough & (without_row.last_steps > 0))

    def _remember(self, without_row: Counted, given: Tensor) -> None:
        """Keeps the counts of those that were not given a row."""
        if self.spec.admission is None:
            return
        waiting = without_row.select(~torch.isin(without_row.ids, given))
        order = torch.argsort(waiting.counts, descending=True, stable=True)
        kept = waiting.select(order[: self.spec.admission.counter_capacity])
        self.counter_ids.fill_(EMPTY)
        self.counter_counts.zero_()
        self.counter_ids[: len(kept.ids)] = kept.ids
        self.counter_counts[: len(kept.ids)] = kept.counts

    def _free_rows(self, new: Counted) -> Tensor:
        """Returns the rows of the first of the new ids, which come by falling worth."""
        capacity = self.spec.capacity
        owned = self.ids[:capacity] != EMPTY
        empty = torch.nonzero(~owned).flatten()
        excess = len(new.ids) - len(empty)
        if excess <= 0:
            return empty[: len(new.ids)]
        old = self._worth(self.counts[:capacity], self.last_steps[:capacity])
        old[empty] = torch.inf
        worth = torch.cat([old, self._worth(new.counts, new.last_steps)])
        bound = torch.topk(worth, excess, largest=False, sorted=False).values.max()
        evicted = torch.nonzero(old < bound).flatten()
        # Of those on the bound new ids go first, then old ones from the largest id on.
        equal = torch.nonzero(worth == bound).flatten()
        equal_old = equal[equal < capacity]
        lost = excess - int((worth < bound).sum()) - (len(equal) - len(equal_old))
        if lost > 0:
            largest = torch.topk(self.ids[equal_old], lost, sorted=False).indices
            evicted = torch.cat([evicted, equal_old[largest]])
        return torch.cat([empty, evicted.sort().values])

    def _give(self, rows: Tensor, new: Counted) -> None:
        """Gives rows to new ids, and renews what lookups read without sorting it all."""
        owners = self.ids[rows]
        places = torch.searchsorted(self.sorted_ids, owners[owners != EMPTY])
        used = int(torch.searchsorted(self.sorted_ids, EMPTY))
        stays = torch.ones(used, dtype=torch.bool, device=rows.device)
        stays[places] = False
        # Numbers instead of masks: torch's kernels for them are ten times as fast.
        kept = torch.nonzero(stays).flatten()
        old = self.sorted_ids.index_select(0, kept), self.sorted_rows.index_select(0, kept)
        order = torch.argsort(new.ids)
        added = new.ids[order], rows[order]
        # A new id stands behind the old ones below it and the new ones before it.
        at = torch.searchsorted(old[0], added[0])
        at += torch.arange(len(at), device=at.device)
        is_old = torch.ones(len(old[0]) + len(at), dtype=torch.bool, device=rows.device)
        is_old[at] = False
        there = torch.nonzero(is_old).flatten()
        for target, before, fresh in zip(
            (self.sorted_ids, self.sorted_rows), old, added, strict=True
        ):
            target.index_copy_(0, there, before)
            target.index_copy_(0, at, fresh)
        self.ids[rows] = new.ids
        self.counts[rows] = new.counts
        self.last_steps[rows] = new.last_steps
        self._sorted_version = self.ids._version

    def _sort(self) -> None:
        """Renews what lookups read if somebody wrote to the map (a change, a checkpoint)."""
        if self.is_inference or self.ids._version == self._sorted_version:
            return
        ids, rows = torch.sort(self.ids)
        self.sorted_ids.copy_(ids)
        self.sorted_rows.copy_(rows)
        self._sorted_version = self.ids._version


def _descending(first: Tensor, second: Tensor) -> Tensor:
    """Returns the order by falling ``first``, then falling ``second``, then as they stand."""
    order = torch.argsort(second, descending=True, stable=True)
    return order[torch.argsort(first[order], descending=True, stable=True)]


def _filled(name: str, size: int, device: torch.device | None) -> Tensor:
    value = EMPTY if name.endswith("ids") else 0
    return torch.full((size,), value, dtype=torch.int64, device=device)
