"""A hash table's map of ids in plain Python: dictionaries and sorted lists."""

from __future__ import annotations

from collections import Counter


class Oracle:
    """Which id has which row, by the words of ``docs/hash_tables.md``."""

    def __init__(self, capacity, policy, *, interval=1, decay=1.0, passes=None, admission=None):
        self.capacity, self.policy, self.interval = capacity, policy, interval
        self.decay, self.passes, self.admission = decay, passes, admission
        self.row, self.count, self.last = {}, {}, {}
        self.waiting = Counter()
        self.step, self.came, self.came_last = 0, Counter(), {}

    def observe(self, ids):
        """Notes the ids of a step."""
        self.step += 1
        self.came.update(ids)
        self.came_last.update(dict.fromkeys(ids, self.step))

    def worth(self, count, last):
        age = self.step - last + 1
        return {
            "lfu": count,
            "lru": 1 / age**self.decay,
            "distance_lfu": count / age**self.decay,
        }[self.policy]

    def change(self):
        """Changes the map if it is time; returns the rows that have another owner."""
        if self.step % self.interval:
            return []
        came, last = dict(self.came), dict(self.came_last)
        self.came, self.came_last = Counter(), {}
        if self.passes is not None:
            came = {i: c for i, c in came.items() if self.passes(c, list(came.values()))}
        new = {}
        for i, c in came.items():
            if i in self.row:
                self.count[i] += c
                self.last[i] = last[i]
            else:
                new[i] = c
        if self.admission is not None:
            new = self._admit(new)
        entries = [(-self.worth(self.count[i], self.last[i]), 0, 0, i) for i in self.row]
        entries += [(-self.worth(c, last[i]), 1, -c, i) for i, c in new.items()]
        kept = {entry[-1] for entry in sorted(entries)[: self.capacity]}
        empty = sorted(set(range(self.capacity)) - set(self.row.values()))
        lost = sorted(self.row[i] for i in self.row if i not in kept)
        for i in [i for i in self.row if i not in kept]:
            del self.row[i], self.count[i], self.last[i]
        taken = sorted(e for e in entries if e[1] and e[-1] in kept)
        if self.admission is not None:
            self._wait({entry[-1] for entry in taken})
        free = [*empty, *lost][: len(taken)]
        for entry, row in zip(taken, free, strict=True):
            i = entry[-1]
            self.row[i], self.count[i], self.last[i] = row, new[i], last[i]
        return free

    def _admit(self, new):
        self.waiting.update(new)
        return {i: self.waiting[i] for i in new if self.waiting[i] >= self.admission[0]}

    def _wait(self, have_a_row):
        waiting = [item for item in self.waiting.items() if item[0] not in have_a_row]
        most = sorted(waiting, key=lambda item: (-item[1], item[0]))[: self.admission[1]]
        self.waiting = Counter(dict(most))
