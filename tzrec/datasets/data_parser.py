"""`DataParser`: Arrow columns → parsed tensors → `Batch`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from tzrec.batch import BASE_DATA_GROUP, SAMPLER_INFOS, Batch, JaggedTensor
from tzrec.datasets.batch_features import add_features
from tzrec.datasets.feature_counts import FEATURE_COUNTS, counts_tensor
from tzrec.datasets.labels import parse_label, parse_sample_weight
from tzrec.datasets.tiling import (
    AFTER_LOOKUP,
    BATCH_SIZE,
    Tiling,
    check_input_tile,
    has_key_lengths,
    num_rows_of,
    own_users,
    parts_of,
    user_features,
)
from tzrec.errors import ConfigError, DataError, did_you_mean
from tzrec.features.generation import GeneratedFeatures
from tzrec.fg.kernels import warm_up

if TYPE_CHECKING:
    from tzrec.features.feature import BaseFeature
    from tzrec.fg.parsed import Parsed
    from tzrec.fg.ragged import Counts

logger = logging.getLogger("tzrec")


class DataParser:
    """Turns columns into what a model reads, with the same code in training and serving.

    Args:
        features: in config order, grouped sequences flattened.
        labels: label columns; none where there is nothing to learn from (prediction, export).
        sample_weights: weight columns.
        is_training: passed on to the features, which only apply masks in training.
        fg_threads: features generated at once (``FG_DAG``).
        force_base_data_group: all features share the base data group; shorter ones are padded
            with empty rows and zeros.
        sampler_type: name of the sampler whose rows are among those of a batch, and which tells
            of them in `Batch.additional_infos`.
        input_tile: of the model that is fed: 0, or how it repeats the features of users, see
            `tzrec.datasets.tiling`.

    Attributes:
        user_features: names of the features of the user; none if the model is not tiled.

    Raises:
        ConfigError: two features have the same name, or there is no such ``input_tile``.
    """

    def __init__(
        self,
        features: Sequence[BaseFeature],
        labels: Sequence[str] | None = None,
        sample_weights: Sequence[str] | None = None,
        is_training: bool = False,
        fg_threads: int = 1,
        force_base_data_group: bool = False,
        sampler_type: str | None = None,
        input_tile: int = 0,
    ) -> None:
        names = [feature.name for feature in features]
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ConfigError(f"two features have the same name: {', '.join(twice)}")
        self.features = [feature for feature in features if not feature.is_stub]
        self.generated = GeneratedFeatures(features, threads=fg_threads, counts=is_training)
        self.labels = list(labels or [])
        self.sample_weights = list(sample_weights or [])
        self.is_training = is_training
        self.fg_threads = fg_threads
        self.force_base_data_group = force_base_data_group
        self.sampler_type = sampler_type or ""
        self.input_tile = check_input_tile(input_tile)
        self.user_features = user_features(features) if input_tile else frozenset[str]()

    @property
    def feature_columns(self) -> list[str]:
        """Columns that features read."""
        own = [feature for feature in self.features if feature.name not in self.generated]
        columns = [name for feature in own for name in feature.inputs]
        return list(dict.fromkeys([*columns, *self.generated.columns]))

    @property
    def input_columns(self) -> list[str]:
        """Columns that `parse` reads: the features', labels, sample weights."""
        return list(dict.fromkeys([*self.feature_columns, *self.labels, *self.sample_weights]))

    def warm_up(self) -> None:
        """Compiles what feature generation needs, where it is not cached; the log says so.

        Called before worker processes start, so that they find it in the cache.
        """
        if any(feature.fg_mode.name != "FG_NONE" for feature in self.features):
            warm_up(logger.info)

    def parse(self, input_data: dict[str, pa.Array]) -> dict[str, Tensor]:
        """Parses the columns of a batch.

        Args:
            input_data: column → array of B rows, those of sampled columns have more; the mask
                columns of `tzrec.features.mask` may be among them, and with a sampler what
                `Batch.additional_infos` is to have.

        Returns:
            Parse key → tensor: ``{feature}.values .lengths .weights .key_lengths``, label and
            weight names, additional infos; in training with feature generation also
            `FEATURE_COUNTS`. For a tiled model every row has a user of its own
            (``batch_size`` 1).

        Raises:
            DataError: a column is missing, has the wrong type, or a value is out of range.
            FeatureError: a value that a feature cannot take.
        """
        parsed, counted = self._parse_features(input_data)
        for label in self.labels:
            parsed |= parse_label(label, _column(input_data, label, "label"))
        for weight in self.sample_weights:
            column = _column(input_data, weight, "sample weight")
            parsed[weight] = parse_sample_weight(weight, column)
        for name in self._infos(input_data):
            parsed[name] = to_tensor(np.asarray(input_data[name]))
        if self.force_base_data_group:
            self._pad_rows(parsed)
        if counted:
            parsed[FEATURE_COUNTS] = counts_tensor(counted)
        return own_users(parsed) if self.input_tile else parsed

    def parse_request(self, input_data: dict[str, pa.Array], num_rows: int) -> dict[str, Tensor]:
        """Parses the columns of one user and its candidates; features alone, no labels.

        Features of columns with one row are made once. For a tiled model those of the user stay
        one row and ``batch_size`` is ``num_rows``; all others are repeated. If a feature of the
        user differs between the candidates, all are, and every row has a user of its own.

        Args:
            input_data: column → array of ``num_rows`` rows, or of one row for all candidates.
            num_rows: candidates, at least 1.

        Returns:
            Parse keys as those of `parse`.

        Raises:
            DataError: as `parse`; or a column has another number of rows.
            FeatureError: a value that a feature cannot take.
        """
        parsed, _ = self._parse_features(input_data)
        sizes = {feature.name: num_rows_of(parsed, feature) for feature in self.features}
        of_user = self.user_features
        if not all(sizes[name] == 1 for name in of_user):
            of_user = frozenset()
        for feature in self.features:
            name = feature.name
            if name in of_user or sizes[name] == num_rows:
                continue
            if sizes[name] != 1:
                raise DataError(
                    f"feature {name!r} has {sizes[name]} rows of columns "
                    f"{', '.join(feature.inputs)}; there are {num_rows} candidates",
                    hint="a column has one row, or one for each candidate",
                )
            for part in parts_of(feature):
                one = parsed[f"{name}.{part}"]
                parsed[f"{name}.{part}"] = one.repeat(num_rows, *[1] * (one.dim() - 1))
        if not self.input_tile:
            return parsed
        return own_users(parsed) | ({BATCH_SIZE: torch.tensor(num_rows)} if of_user else {})

    def failing_columns(self, input_data: dict[str, pa.Array]) -> list[str]:
        """Returns the columns of the first feature, label or weight that cannot be parsed."""
        columns = self.generated.failing_columns(input_data)
        if columns:
            return columns
        for feature in self.features:
            try:
                if feature.name not in self.generated:
                    _tensors(feature, self._parse_feature(feature, input_data))
            except ValueError:
                return list(feature.inputs)
        for name in [*self.labels, *self.sample_weights]:
            try:
                if name in self.labels:
                    parse_label(name, input_data[name])
                else:
                    parse_sample_weight(name, input_data[name])
            except ValueError:
                return [name]
        return []

    def _parse_features(
        self, input_data: dict[str, pa.Array]
    ) -> tuple[dict[str, Tensor], list[Counts]]:
        """Returns the parse keys of the features, and what was counted while making them."""
        parsed: dict[str, Tensor] = {}
        counted: list[Counts] = []
        together = self.generated.parse(input_data, self.is_training)
        for feature in self.features:
            found = together.get(feature.name) or self._parse_feature(feature, input_data)
            parsed |= _tensors(feature, found)
            if found.counts is not None:
                counted.append(found.counts)
        return parsed, counted

    def _parse_feature(self, feature: BaseFeature, input_data: dict[str, pa.Array]) -> Parsed:
        for column in feature.inputs:
            _column(input_data, column, f"feature {feature.name!r}: input")
        found = feature.parse(input_data, is_training=self.is_training)
        if feature.is_sparse:
            _check_range(feature, found)
        return found

    def _infos(self, found: Mapping[str, Any]) -> list[str]:
        """Returns which of the additional infos are there."""
        return [name for name in SAMPLER_INFOS if self.sampler_type and name in found]

    def _pad_rows(self, parsed: dict[str, Tensor]) -> None:
        keys = {
            f.name: f"{f.name}.lengths" if f.is_sparse or f.is_sequence else f"{f.name}.values"
            for f in self.features
        }
        most = max((parsed[key].shape[0] for key in keys.values()), default=0)
        for key in keys.values():
            rows = parsed[key]
            if rows.shape[0] < most:
                filler = rows.new_zeros((most - rows.shape[0], *rows.shape[1:]))
                parsed[key] = torch.cat([rows, filler])

    def to_batch(
        self,
        parsed: Mapping[str, Tensor],
        force_no_tile: bool = False,
    ) -> Batch:
        """Builds the batch of `parse`'s tensors; traceable, as exported models begin with it.

        Args:
            parsed: parse key → tensor; for a tiled model also ``batch_size``.
            force_no_tile: features of users have as many rows as others: each row is a user.
        """
        batch = Batch()
        tiled = None
        if self.user_features and force_no_tile:
            batch.tile_size = 1
        elif self.user_features:
            tiled = Tiling(parsed, self.features, self.user_features, self.input_tile)
            batch.user_rows = tiled.rows if self.input_tile == AFTER_LOOKUP else None
        add_features(batch, self._by_group(), parsed, tiled)
        for label in self.labels:
            if label in parsed:
                batch.labels[label] = parsed[label]
            else:
                batch.jagged_labels[label] = JaggedTensor(
                    values=parsed[f"{label}.values"], lengths=parsed[f"{label}.lengths"]
                )
        for weight in self.sample_weights:
            batch.sample_weights[weight] = parsed[weight]
        for name in self._infos(parsed):
            batch.additional_infos[name] = parsed[name]
        return batch

    def _by_group(self) -> dict[str, list[BaseFeature]]:
        groups: dict[str, list[BaseFeature]] = {}
        for feature in self.features:
            group = BASE_DATA_GROUP if self.force_base_data_group else feature.data_group
            groups.setdefault(group, []).append(feature)
        return groups


def _tensors(feature: BaseFeature, found: Parsed) -> dict[str, Tensor]:
    """Returns the tensors of a feature by parse key."""
    name = feature.name
    tensors = {f"{name}.values": to_tensor(found.values)}
    if found.lengths is not None:
        tensors[f"{name}.lengths"] = to_tensor(found.lengths)
    if found.weights is not None:
        tensors[f"{name}.weights"] = to_tensor(found.weights)
    if has_key_lengths(feature):
        key_lengths = found.key_lengths
        if key_lengths is None:
            key_lengths = np.ones(len(found.values), dtype=np.int32)
        tensors[f"{name}.key_lengths"] = to_tensor(key_lengths)
    elif found.key_lengths is not None and (found.key_lengths != 1).any():
        step = int((found.key_lengths != 1).argmax())
        raise DataError(
            f"feature {name!r}: step {step} of the batch has {found.key_lengths[step]} ids, "
            "value_dim is 1",
            hint="set value_dim: 0 for steps with any number of ids",
        )
    return tensors


def _column(input_data: Mapping[str, pa.Array], name: str, what: str) -> pa.Array:
    if name not in input_data:
        raise DataError(
            f"{what} column {name!r} is missing{did_you_mean(name, input_data)}",
            hint=f"there are: {', '.join(input_data)}",
        )
    return input_data[name]


def _check_range(feature: BaseFeature, found: Parsed) -> None:
    """Raises a DataError if an id does not lie in its table."""
    rows, ids = feature.id_limit, found.values
    if not feature.has_embedding or not rows or ids.size == 0:
        return
    if ids.min() >= 0 and ids.max() < rows:
        return
    first = int(np.argmax((ids < 0) | (ids >= rows)))
    assert found.lengths is not None
    steps = np.arange(len(ids))
    if found.key_lengths is not None:
        steps = np.repeat(np.arange(len(found.key_lengths)), found.key_lengths)
    row = int(np.searchsorted(np.cumsum(found.lengths), steps[first], side="right"))
    raise DataError(
        f"feature {feature.name!r}: id {int(ids[first])} in row {row} of the batch is outside "
        f"0 … {rows - 1}, the {'rows' if rows == feature.num_embeddings else 'ids'} of its table",
        hint="raise num_buckets (hash_bucket_size …) of the feature, or correct the data",
    )


def to_tensor(array: NDArray[Any]) -> Tensor:
    """Returns the array as a tensor; memory that is not ours to write (Arrow's) is copied."""
    if not array.flags.writeable or not array.flags.c_contiguous:
        array = array.copy()
    return torch.from_numpy(array)
