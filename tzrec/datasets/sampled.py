"""`RowJoiner`: the rows that a sampler draws, beside those of a batch (reference 03 §3.4)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from tzrec.batch import CAND_POS_LENGTHS, HARD_NEG_INDICES, NEG_LOG_Q, POS_LOG_Q
from tzrec.datasets.candidates import CandidateSequence
from tzrec.datasets.samplers.base import BaseSampler, SampledRows
from tzrec.datasets.samplers.tdm_join import TreeRows, join_tree_rows
from tzrec.features.mask import NEG_SAMPLE_MASK, SAMPLE_MASK

Columns: TypeAlias = Mapping[str, Any]
Stream: TypeAlias = tuple[int, ...]
Drawn: TypeAlias = SampledRows | TreeRows


class RowJoiner:
    """Draws rows for a batch and joins them to its columns.

    The rows depend on the batch and its stream alone, so any process that parses it gets the
    same. Pickles as its sampler does.

    Args:
        sampler: with its tables.
        columns: columns of features; only these are joined.
        labels: label columns, which a tree sampler writes.
        sequence: holds the candidates, None where each row is one.
        mask_probs: probabilities of a row of the batch, and of a sampled one, to be masked.
    """

    def __init__(
        self,
        sampler: BaseSampler,
        columns: Collection[str],
        *,
        labels: Sequence[str] = (),
        sequence: CandidateSequence | None = None,
        mask_probs: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        self.sampler = sampler
        self._columns = frozenset(columns)
        self._labels = tuple(labels)
        self._sequence = sequence
        self._mask_probs = mask_probs

    @property
    def id_columns(self) -> list[str]:
        """Columns that the sampler reads."""
        return [c for c in (self.sampler.item_id_field, self.sampler.user_id_field) if c]

    def draw(self, columns: Columns, stream: Stream) -> Drawn:
        """Returns the rows for a batch.

        Args:
            columns: column → (B,) array.
            stream: of the batch.

        Raises:
            DataError: an id of the batch cannot be one.
        """
        ids = {name: columns[name] for name in self.id_columns}
        if self._sequence is not None:
            item, user = self.sampler.item_id_field, self.sampler.user_id_field
            ids[item], lengths = self._sequence.flatten(item, columns[item])
            if user:
                rows = np.repeat(np.arange(len(lengths)), lengths)
                ids[user] = columns[user].take(pa.array(rows))
        drawn: Drawn = self.sampler.get(ids, np.random.default_rng(stream))
        return drawn

    def join(self, columns: Columns, drawn: Drawn, stream: Stream) -> dict[str, Any]:
        """Returns the columns of a batch with its drawn rows, and what is told of these.

        Args:
            columns: column → (B,) array.
            drawn: for the batch.
            stream: of the batch.
        """
        random = np.random.default_rng(np.random.SeedSequence(stream, spawn_key=(1,)))
        if isinstance(drawn, TreeRows):
            return self._join_tree(columns, drawn, random)
        joined: dict[str, Any] = dict(columns)
        if self._sequence is not None:
            self._append_candidates(joined, drawn, self._sequence)
        else:
            for name, values in drawn.columns.items():
                if name in self._columns:
                    joined[name] = pa.concat_arrays([columns[name], values])
            self._mask(joined, len(columns[self.id_columns[0]]), drawn, random)
        infos = {
            HARD_NEG_INDICES: drawn.hard_neg_indices,
            NEG_LOG_Q: drawn.log_q,
            POS_LOG_Q: drawn.positive_log_q,
        }
        return joined | {name: array for name, array in infos.items() if array is not None}

    def _append_candidates(
        self, joined: dict[str, Any], drawn: SampledRows, sequence: CandidateSequence
    ) -> None:
        item = self.sampler.item_id_field
        _, joined[CAND_POS_LENGTHS] = sequence.flatten(item, joined[item])
        for attribute, values in drawn.columns.items():
            name = sequence.column(attribute)
            if name in self._columns and len(joined[name]):
                joined[name] = sequence.append(name, joined[name], values)

    def _mask(
        self, joined: dict[str, Any], num_rows: int, drawn: SampledRows, random: np.random.Generator
    ) -> None:
        if not any(self._mask_probs):
            return
        of_batch = joined.get(SAMPLE_MASK, pa.array(np.zeros(num_rows, dtype=bool)))
        hidden = random.random(num_drawn(drawn)) < self._mask_probs[1]
        joined[NEG_SAMPLE_MASK] = pa.concat_arrays([of_batch, pa.array(hidden)])

    def _join_tree(
        self, columns: Columns, drawn: TreeRows, random: np.random.Generator
    ) -> dict[str, Any]:
        joined: dict[str, Any] = join_tree_rows(columns, drawn, self._labels)
        if any(self._mask_probs):
            probs = np.where(drawn.is_negative(), self._mask_probs[1], self._mask_probs[0])
            joined[SAMPLE_MASK] = pa.array(random.random(len(probs)) < probs)
        return joined


def num_drawn(drawn: SampledRows) -> int:
    """Returns N + H."""
    hard = drawn.hard_neg_indices
    return drawn.num_negatives + (0 if hard is None else len(hard))


def without_batch(drawn: SampledRows, start: int, stop: int) -> SampledRows:
    """Returns rows ``start`` to ``stop`` (exclusive) of those that were drawn, for no batch."""
    columns = {name: values.slice(start, stop - start) for name, values in drawn.columns.items()}
    return SampledRows(columns, stop - start)
