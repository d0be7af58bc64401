"""The planted signal: what each feature's values do to the labels."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tzrec.config.messages import which_field

if TYPE_CHECKING:
    from tzrec.features.feature import BaseFeature
    from tzrec.protos.pipeline_pb2 import EasyRecConfig

Floats = NDArray[np.float64]
Values = Mapping[str, NDArray[Any]]

_STRENGTH = 2.0
_OWN = 0.6
_PAIR, _TASTE = 0.5, 1.0
_MOST_IDS, _MOST_NUMBERS, _MOST_SEQUENCES = 3, 2, 2
_KINDS_OF_TASTE = 4
_FLAT = 1e-6


class Signal:
    """The logits of rows: a sum of effects of a few features.

    ::

        logit = 2 * normalised(  effects of up to 3 features of ids and 2 of numbers
                               + the mean effect of the steps of up to 2 sequences
                               + .5 * the product of the first two
                               + how many steps of a sequence are of the candidate's kind)

    The effect of an id depends on its table and the id, that of a number on the feature: all
    rows, whatever their seed, tell the same story. A task or domain with a name of its own shares
    the larger part of its effects with all others.

    Args:
        config: its feature groups say which features the model sees.
        features: the features.
        sample: parsed values of some rows, see `tzrec.datasets.data_parser`.

    Attributes:
        features: names of the features that matter.
    """

    def __init__(
        self, config: EasyRecConfig, features: Sequence[BaseFeature], sample: Values
    ) -> None:
        seen = _seen(config)
        own = {f.name: f for f in features if not f.is_stub and (f.name in seen or not seen)}
        self._scales: dict[tuple[str, str], tuple[float, float]] = {}
        self._numbers = {
            name: _moments(np.nan_to_num(sample[f"{name}.values"]))
            for name, f in own.items()
            if not f.is_sparse
        }
        moving = [f for f in own.values() if _effect(f, sample, self._numbers, "").std() > _FLAT]
        self._chosen = _chosen(moving)
        self._pairs = _same_table(list(own.values()))
        self.features = [f.name for f in self._chosen]
        self._sample = sample

    def logits(self, rows: Values, num_rows: int, task: str = "") -> Floats:
        """Returns the logits of rows (B,).

        Args:
            rows: parsed values.
            num_rows: B.
            task: name of a task or domain; "" is what all have in common.
        """
        parts = self._parts(rows, num_rows, "")
        if task:
            own = self._parts(rows, num_rows, task)
            parts = (1 - _OWN**2) ** 0.5 * parts + _OWN * own
        return _STRENGTH * parts

    def _parts(self, rows: Values, num_rows: int, salt: str) -> Floats:
        total, variance = np.zeros(num_rows), 0.0
        for weight, name, effect in self._terms(rows, salt):
            total += weight * self._standard(effect, name, salt)
            variance += weight**2
        return total / max(variance, 1.0) ** 0.5

    def _terms(self, rows: Values, salt: str) -> list[tuple[float, str, Floats]]:
        """Returns (weight, name, effect on each row)."""
        effects = [(f.name, _effect(f, rows, self._numbers, salt)) for f in self._chosen]
        terms = [(1.0, name, effect) for name, effect in effects]
        if len(effects) > 1 and not any(f.is_sequence for f in self._chosen[:2]):
            terms.append((_PAIR, "two together", effects[0][1] * effects[1][1]))
        for sequence, candidate in self._pairs[:1]:
            terms.append((_TASTE, "taste", _taste(rows, sequence, candidate)))
        return terms

    def _standard(self, effect: Floats, name: str, salt: str) -> Floats:
        """An effect of mean 0 and variance 1 in the sample, where it varies at all."""
        if (name, salt) not in self._scales:
            for _, other, found in self._terms(self._sample, salt):
                self._scales[(other, salt)] = _moments(found)
        mean, deviation = self._scales[(name, salt)]
        return (effect - mean) / deviation


def _seen(config: EasyRecConfig) -> set[str]:
    names: set[str] = set()
    for group in config.model_config.feature_groups:
        names.update(group.feature_names)
        for sequence in group.sequence_groups:
            names.update(sequence.feature_names)
    grouped = {
        f"{wrapper.sequence_feature.sequence_name}__{which.feature_name}"
        for wrapper in config.feature_configs
        if which_field(wrapper, "feature") == "sequence_feature"
        and wrapper.sequence_feature.sequence_name in names
        for sub in wrapper.sequence_feature.features
        for which in [getattr(sub, str(which_field(sub, "feature")))]
    }
    return names | grouped


def _chosen(features: Sequence[BaseFeature]) -> list[BaseFeature]:
    """The first features of ids and of numbers, and the first of each sequence."""
    flat = [f for f in features if not f.is_sequence]
    ids = [f for f in flat if f.is_sparse][:_MOST_IDS]
    numbers = [f for f in flat if not f.is_sparse][:_MOST_NUMBERS]
    sequences: dict[str, BaseFeature] = {}
    for feature in features:
        if feature.is_sequence:
            sequences.setdefault(feature.sequence_name or feature.name, feature)
    return [*ids, *numbers, *list(sequences.values())[:_MOST_SEQUENCES]]


def _same_table(features: Sequence[BaseFeature]) -> list[tuple[BaseFeature, BaseFeature]]:
    """Sequences, each with a feature of one id that shares its table."""
    ids = [f for f in features if f.is_sparse]
    candidates = {f.embedding_name: f for f in reversed(ids) if not f.is_sequence}
    return [
        (f, candidates[f.embedding_name])
        for f in ids
        if f.is_sequence and f.embedding_name in candidates
    ]


def _effect(
    feature: BaseFeature,
    rows: Values,
    numbers: Mapping[str, tuple[float, float]],
    salt: str,
) -> Floats:
    """The mean effect of a feature's values on each row."""
    name = feature.name
    values = rows[f"{name}.values"]
    lengths = rows.get(f"{name}.lengths")
    if not feature.is_sparse:
        mean, deviation = numbers[name]
        effect = np.clip((np.nan_to_num(values) - mean) / deviation, -3, 3)
        effect = effect.reshape(len(values), -1) @ _signs(name + salt, effect[:1].size or 1)
        return effect if lengths is None else _mean(effect, lengths)
    assert lengths is not None
    effect = effects_of_ids(values, feature.embedding_name + salt)
    weights = rows.get(f"{name}.weights")
    if weights is not None:
        effect = effect * weights
    key_lengths = rows.get(f"{name}.key_lengths")
    if key_lengths is not None:
        effect = _mean(effect, key_lengths)
    return _mean(effect, lengths)


def _taste(rows: Values, sequence: BaseFeature, candidate: BaseFeature) -> Floats:
    """The share of a row's steps that are of the kind of its candidate."""
    table = candidate.embedding_name
    lengths, steps = rows[f"{candidate.name}.lengths"], rows[f"{sequence.name}.lengths"]
    kinds = _kinds(rows[f"{candidate.name}.values"], table)
    first = np.cumsum(lengths) - lengths
    wanted = np.append(kinds, -1)[np.where(lengths > 0, first, len(kinds))]
    key_lengths = rows.get(f"{sequence.name}.key_lengths")
    of_step = np.repeat(np.arange(len(steps)), steps)
    of_value = of_step if key_lengths is None else np.repeat(of_step, key_lengths)
    same = _kinds(rows[f"{sequence.name}.values"], table) == wanted[of_value]
    counts = np.bincount(of_value, minlength=len(steps))
    return np.bincount(of_value, same, minlength=len(steps)) / np.maximum(counts, 1)


def _kinds(ids: NDArray[Any], table: str) -> NDArray[np.int64]:
    return (_mixed(ids, "kind of " + table) % np.uint64(_KINDS_OF_TASTE)).astype(np.int64)


def effects_of_ids(ids: NDArray[Any], table: str) -> Floats:
    """Returns an effect of variance 1 for each id of a table, always the same one."""
    uniform = (_mixed(ids, table) >> np.uint64(11)).astype(np.float64) / 2.0**53
    return (uniform - 0.5) * 12**0.5


def _mixed(ids: NDArray[Any], table: str) -> NDArray[np.uint64]:
    """SplitMix64 of id and table."""
    seed = (zlib.crc32(table.encode()) * 0x9E3779B97F4A7C15) % 2**64
    mixed = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return found


def _signs(name: str, count: int) -> Floats:
    """A direction for each number of a vector."""
    return np.sign(effects_of_ids(np.arange(count), name)) / count


def _mean(values: Floats, lengths: NDArray[Any]) -> Floats:
    """Mean of the values of each cell, 0 where there are none."""
    cells = np.repeat(np.arange(len(lengths)), lengths)
    means: Floats = np.bincount(cells, values, minlength=len(lengths)) / np.maximum(lengths, 1)
    return means


def _moments(values: NDArray[Any]) -> tuple[float, float]:
    """Mean and deviation, 1 where nothing varies."""
    if not values.size:
        return 0.0, 1.0
    deviation = float(values.std())
    return float(values.mean()), deviation if deviation > _FLAT else 1.0
