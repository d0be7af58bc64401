"""Generated FG_NONE rows in the shape of any config, with a signal that its model can learn.

Tests train every shipped config on such rows, whatever real data it was written for.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tzrec.features.feature import BaseFeature
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.training.build import build_features

Floats = NDArray[np.float64]

_MAX_VALUES, _MAX_STEPS = 4, 6
_STRENGTH = 2.0


def shape_table(
    config: EasyRecConfig,
    num_rows: int,
    *,
    seed: int = 0,
    signal: list[str] | None = None,
) -> pa.Table:
    """Returns rows with all columns that a config reads, plus ``row`` and ``probability``.

    Ids are below the rows of their table, small ones more frequent. An id feature has several
    values (none in some rows) when it writes ``pooling``, ``separator`` or ``weighted`` and its
    ``value_dim`` is not 1; features of one sequence have the same steps. A row is positive with
    ``probability`` = sigmoid of the mean effects of its values in the ``signal`` columns. The
    effect of a value depends on its table and the value only: every seed tells the same story.

    Args:
        config: checked config of FG_NONE.
        num_rows: B.
        seed: of the rows.
        signal: columns that the label depends on; None takes the first three and, of each
            sequence, the first feature.
    """
    rng = np.random.default_rng(seed)
    separator = config.data_config.fg_encoded_multival_sep or "\x03"
    steps: dict[str, NDArray[np.int64]] = {}
    columns: dict[str, pa.Array] = {"row": pa.array(np.arange(num_rows))}
    effects: dict[str, Floats] = {}
    for feature in build_features(config.data_config, config.feature_configs):
        if feature.is_sequence:
            name = feature.sequence_name or feature.name
            if name not in steps:
                steps[name] = rng.integers(0, _MAX_STEPS, num_rows)
            columns[feature.name], effect = _sequence(feature, steps[name], rng, separator)
        else:
            columns[feature.name], effect = _scalar(feature, num_rows, rng, separator)
        effects[feature.name] = effect
    chosen = signal if signal is not None else _default_signal(effects, set(steps))
    logit = sum((_standard(effects[name]) for name in chosen), np.zeros(num_rows))
    logit *= _STRENGTH / max(len(chosen), 1) ** 0.5
    columns["probability"] = pa.array(1 / (1 + np.exp(-logit)))
    columns.update(_labels(config, logit, rng))
    return pa.table(columns)


def _default_signal(effects: dict[str, Floats], sequences: set[str]) -> list[str]:
    steps = [name for name in effects if name in sequences or name.split("__")[0] in sequences]
    firsts = {name.split("__")[0]: name for name in reversed(steps)}
    return [name for name in effects if name not in steps][:3] + sorted(firsts.values())


def _standard(effect: Floats) -> Floats:
    """An effect of variance 1, where it varies at all."""
    return (effect - effect.mean()) / (effect.std() or 1.0)


def _labels(config: EasyRecConfig, logit: Floats, rng: np.random.Generator) -> dict[str, pa.Array]:
    """Labels (classes by rank of the logit, with noise, where there are more than two), weights."""
    rows, classes = len(logit), config.model_config.num_class
    columns = {}
    for name in config.data_config.label_fields:
        noisy = logit + rng.logistic(size=rows)
        ranks = noisy.argsort().argsort() * classes // rows
        label = ranks if classes > 2 else (noisy > 0).astype(np.int64)
        columns[name] = pa.array(label)
    for name in config.data_config.sample_weight_fields:
        columns[name] = pa.array(rng.uniform(0.5, 1.5, rows).astype(np.float32))
    return columns


def _scalar(
    feature: BaseFeature, num_rows: int, rng: np.random.Generator, separator: str
) -> tuple[pa.Array, Floats]:
    """A column of a feature that is no sequence, and the effect of its values on each row."""
    if not feature.is_sparse:
        values, effect = _numbers(feature, num_rows, rng)
        return (_lists(values) if feature.value_dim > 1 else pa.array(values[:, 0])), effect
    if not _is_tag(feature):
        ids = _ids(feature, num_rows, rng)
        return pa.array(ids), _effects(feature)[ids]
    lengths = rng.integers(0, _MAX_VALUES, num_rows)
    ids = _ids(feature, int(lengths.sum()), rng)
    effect = _mean(_effects(feature)[ids], lengths)
    if feature.is_weighted:
        words = [f"{i}:{w:.2f}" for i, w in zip(ids, rng.uniform(0.5, 2, len(ids)), strict=True)]
        return pa.array([separator.join(row) for row in _split(words, lengths)]), effect
    return _jagged(ids, lengths), effect


def _sequence(
    feature: BaseFeature, steps: NDArray[np.int64], rng: np.random.Generator, separator: str
) -> tuple[pa.Array, Floats]:
    """A column of a sequence with given steps per row: lists, or text where steps are jagged."""
    total = int(steps.sum())
    if feature.is_sparse:
        lengths = np.ones(total, np.int64)
        if _is_tag(feature):
            lengths = rng.integers(1, _MAX_VALUES, total)
        ids = _ids(feature, int(lengths.sum()), rng)
        effect = _mean(_mean(_effects(feature)[ids], lengths), steps)
        if not _is_tag(feature):
            return _jagged(ids, steps), effect
        parts = [[str(i) for i in row] for row in _split(list(ids), lengths)]
    else:
        values, numbers_effect = _numbers(feature, total, rng)
        effect = _mean(numbers_effect, steps)
        if feature.value_dim == 1:
            return _jagged(values[:, 0], steps), effect
        parts = [[f"{v:.4f}" for v in row] for row in values]
    words = [separator.join(part) for part in parts]
    delim = feature.sequence_delim or ";"
    return pa.array([delim.join(row) for row in _split(words, steps)]), effect


def _is_tag(feature: BaseFeature) -> bool:
    """Tells whether rows hold any number of ids."""
    config = feature.config
    written = ("pooling", "separator", "weighted")
    fields = config.DESCRIPTOR.fields_by_name
    return feature.value_dim != 1 and any(f in fields and config.HasField(f) for f in written)


def _ids(feature: BaseFeature, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Ids below the table's rows; the density falls with the id."""
    return (feature.num_embeddings * rng.random(count) ** 2).astype(np.int64)


def _numbers(
    feature: BaseFeature, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], Floats]:
    values = rng.normal(size=(count, max(feature.value_dim, 1))).astype(np.float32)
    sign = 1.0 if _rng_of(feature.name).random() < 0.5 else -1.0
    return values, sign * values.mean(axis=1, dtype=np.float64)


def _effects(feature: BaseFeature) -> Floats:
    """Effect of every id of the feature's table."""
    return _rng_of(feature.embedding_name).normal(size=feature.num_embeddings)


def _rng_of(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def _mean(values: Floats, lengths: NDArray[np.int64]) -> Floats:
    """Mean of the values of each row, 0 where there are none."""
    rows = np.repeat(np.arange(len(lengths)), lengths)
    return np.bincount(rows, values, minlength=len(lengths)) / np.maximum(lengths, 1)


def _split(values: list[Any], lengths: NDArray[np.int64]) -> list[list[Any]]:
    ends = lengths.cumsum()
    return [values[end - n : end] for end, n in zip(ends, lengths, strict=True)]


def _jagged(values: NDArray[Any], lengths: NDArray[np.int64]) -> pa.Array:
    offsets = np.concatenate([[0], lengths.cumsum()]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def _lists(values: NDArray[Any]) -> pa.Array:
    return _jagged(values.reshape(-1), np.full(len(values), values.shape[1]))
