"""`BaseFeature`: a feature's name, columns, nature, table and parsing."""

from __future__ import annotations

import enum
from functools import cached_property
from typing import Any

import pyarrow as pa
from torchrec.modules.embedding_configs import (
    DataType,
    EmbeddingBagConfig,
    EmbeddingConfig,
    PoolingType,
)

from tzrec.batch import BASE_DATA_GROUP
from tzrec.config.messages import which_field
from tzrec.errors import ConfigError, FeatureError, Unsupported
from tzrec.features.bucketizer import Bucketizer, create_bucketizer
from tzrec.features.init_fn import InitFn, parse_init_fn
from tzrec.fg.encoded import (
    MULTIVAL_SEP,
    parse_fg_encoded_dense_feature_impl,
    parse_fg_encoded_sequence_dense_feature_impl,
    parse_fg_encoded_sequence_sparse_feature_impl,
    parse_fg_encoded_sparse_feature_impl,
)
from tzrec.fg.parsed import Parsed
from tzrec.registry import Registry
from tzrec.utils.load_class import get_register_class_meta

_FEATURE_CLASS_MAP: dict[str, type] = {}
FEATURES = Registry(
    "feature",
    {
        "IdFeature": "tzrec.features.id_feature",
        "RawFeature": "tzrec.features.raw_feature",
    },
)
_meta_cls = get_register_class_meta(_FEATURE_CLASS_MAP, FEATURES)
_SIDES = ("user", "item", "context", "feature", "const")


class FgMode(enum.Enum):
    """Where feature generation happens."""

    FG_NONE = 1
    FG_NORMAL = 2
    FG_DAG = 3
    FG_BUCKETIZE = 4


class BaseFeature(metaclass=_meta_cls):
    """One feature of a config.

    Args:
        feature_config: the `FeatureConfig`, or for a sub-feature its `SeqFeatureConfig`.
        fg_mode: where feature generation happens.
        fg_encoded_multival_sep: separator of several values in FG_NONE text.
        is_sequence: the values of a row are steps.
        sequence_name: name of the grouped sequence that the feature belongs to.
        sequence_delim: separator of steps in text.
        sequence_length: steps that are kept; feature generation cuts, FG_NONE does not.
        sequence_pk: primary key of a grouped sequence.

    Raises:
        FeatureError: the bucketiser's parts disagree.
        Unsupported: ``fg_mode`` is not FG_NONE.
    """

    def __init__(
        self,
        feature_config: Any,
        fg_mode: FgMode = FgMode.FG_NONE,
        fg_encoded_multival_sep: str | None = None,
        *,
        is_sequence: bool = False,
        sequence_name: str | None = None,
        sequence_delim: str | None = None,
        sequence_length: int | None = None,
        sequence_pk: str | None = None,
    ) -> None:
        if fg_mode is not FgMode.FG_NONE:
            raise Unsupported(
                f"fg_mode {fg_mode.name} comes with feature generation",
                hint="generate features beforehand and use fg_mode: FG_NONE",
            )
        self.feature_config = feature_config
        self.config = getattr(feature_config, which_field(feature_config, "feature") or "")
        self.fg_mode = fg_mode
        self.fg_encoded_multival_sep = fg_encoded_multival_sep or MULTIVAL_SEP
        self.is_sequence = is_sequence
        self.sequence_name = sequence_name
        self.sequence_delim = sequence_delim or ";"
        self.sequence_length = sequence_length or 0
        self.sequence_pk = sequence_pk
        self.data_group = BASE_DATA_GROUP
        self.bucketizer: Bucketizer | None = create_bucketizer(self.config)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    def name(self) -> str:
        """Name, of a sub-feature ``{sequence_name}__{feature_name}``."""
        own = self.config.feature_name
        return f"{self.sequence_name}__{own}" if self.is_grouped_sequence else own

    @property
    def feature_name(self) -> str:
        """Name as written in the config."""
        return self.config.feature_name

    @property
    def is_grouped_sequence(self) -> bool:
        """True for a sub-feature of a ``sequence_feature``."""
        return self.sequence_name is not None

    @property
    def inputs(self) -> list[str]:
        """Columns that the feature reads."""
        return [self.name]

    @cached_property
    def side_inputs(self) -> list[tuple[str, str]]:
        """(side, column) of each expression; empty where the config has none.

        Raises:
            ConfigError: an expression is not ``side:column``.
        """
        return [self._side_input(text) for text in self._expressions() if text]

    def _expressions(self) -> list[str]:
        value = getattr(self.config, "expression", "")
        return [value] if isinstance(value, str) else list(value)

    def _side_input(self, text: str) -> tuple[str, str]:
        side, separator, column = text.partition(":")
        if not separator or side not in _SIDES or not column:
            raise ConfigError(
                f"feature {self.name!r}: expression {text!r} is not side:column with a side of "
                + ", ".join(_SIDES)
            )
        return side, column

    @property
    def is_sparse(self) -> bool:
        """True when values are ids of table rows."""
        return self.bucketizer is not None

    @property
    def is_weighted(self) -> bool:
        """True when each id has a weight."""
        return False

    @property
    def value_dim(self) -> int:
        """Values per row or step; 0 = any number of ids."""
        return self.config.value_dim if self.config.HasField("value_dim") else 1

    @property
    def embedding_dim(self) -> int:
        """Size of the embedding, 0 = none."""
        return self.config.embedding_dim

    @property
    def output_dim(self) -> int:
        """Columns that the feature adds to a group."""
        if self.is_sparse or self.dense_emb_config is not None:
            return self.embedding_dim
        return max(self.value_dim, 1)

    @property
    def has_embedding(self) -> bool:
        """True when a table or a dense-value embedding belongs to the feature."""
        return self.is_sparse or self.dense_emb_config is not None

    @property
    def num_embeddings(self) -> int:
        """Rows of the table; every id is below it.

        Raises:
            FeatureError: nothing in the config gives the table a size.
        """
        if self.bucketizer is None:
            raise FeatureError(
                f"{type(self).__name__}[{self.name}] needs hash_bucket_size, num_buckets, "
                "vocab_list, vocab_dict or vocab_file: they give its table a size"
            )
        return self.bucketizer.rows

    @property
    def embedding_name(self) -> str:
        """Name of the table; features with equal names share it."""
        return self.config.embedding_name or f"{self.name}_emb"

    @property
    def pooling(self) -> str:
        """``sum`` or ``mean``.

        Raises:
            ConfigError: the config names another pooling.
        """
        pooling = self.config.pooling.lower()
        if pooling not in ("sum", "mean"):
            raise ConfigError(
                f"feature {self.name!r}: pooling is {self.config.pooling!r}; sum or mean"
            )
        return pooling

    @property
    def trainable(self) -> bool:
        """False freezes the table."""
        return self.config.trainable

    @property
    def use_mask(self) -> bool:
        """True when training hides the value in masked rows."""
        return self.config.use_mask

    @cached_property
    def init_fn(self) -> InitFn | None:
        """Initialiser of the table; None = uniform ± 1/sqrt(rows)."""
        return parse_init_fn(self.config.init_fn)

    @property
    def data_type(self) -> DataType:
        """Element type of the table.

        Raises:
            ConfigError: neither FP32 nor FP16.
        """
        if self.config.data_type not in ("FP32", "FP16"):
            raise ConfigError(
                f"feature {self.name!r}: data_type is {self.config.data_type!r}; FP32 or FP16"
            )
        return DataType[self.config.data_type]

    @property
    def parameter_constraints(self) -> Any:
        """The config's ``embedding_constraints``, or None."""
        has = self.config.HasField("embedding_constraints")
        return self.config.embedding_constraints if has else None

    @property
    def emb_bag_config(self) -> EmbeddingBagConfig | None:
        """The table for pooled look-ups; None for a dense feature."""
        if not self.is_sparse:
            return None
        pooling = PoolingType.MEAN if self.pooling == "mean" else PoolingType.SUM
        return self._table(EmbeddingBagConfig, pooling=pooling)

    @property
    def emb_config(self) -> EmbeddingConfig | None:
        """The table for un-pooled look-ups; None for a dense feature."""
        return self._table(EmbeddingConfig) if self.is_sparse else None

    @property
    def dense_emb_config(self) -> Any:
        """The config's ``autodis`` or ``mlp``; None for others and for sequences."""
        if self.is_sparse or self.is_sequence or "dense_emb" not in _oneofs(self.config):
            return None
        kind = which_field(self.config, "dense_emb")
        return getattr(self.config, kind) if kind else None

    def _table(self, cls: type, **more: Any) -> Any:
        if self.embedding_dim <= 0:
            raise ConfigError(f"feature {self.name!r} has a table and needs embedding_dim above 0")
        table = cls(
            num_embeddings=self.num_embeddings,
            embedding_dim=self.embedding_dim,
            name=self.embedding_name,
            feature_names=[self.name],
            init_fn=self.init_fn,
            data_type=self.data_type,
            **more,
        )
        table.trainable = self.trainable
        return table

    @cached_property
    def fg_encoded_default(self) -> list[int] | list[float] | None:
        """Values of a missing row in FG_NONE; None = a missing row stays empty.

        Raises:
            ConfigError: the text is no list of numbers, or an id is outside the table.
        """
        text = self.config.fg_encoded_default_value
        if not text:
            return self._mask_default() if self.use_mask else None
        tokens = text.split(self.fg_encoded_multival_sep)
        try:
            if not self.is_sparse:
                return [float(token) for token in tokens]
            ids = [int(token) for token in tokens]
        except ValueError as error:
            raise ConfigError(
                f"feature {self.name!r}: fg_encoded_default_value {text!r} is no list of numbers",
                hint="it is the encoded value: ids of a sparse feature, numbers of a dense one",
            ) from error
        rows = self.num_embeddings
        if any(not 0 <= i < rows for i in ids):
            raise ConfigError(
                f"feature {self.name!r}: fg_encoded_default_value {text!r} is outside the table "
                f"of {rows} rows"
            )
        return ids

    def _mask_default(self) -> list[int] | list[float] | None:
        """What a masked row becomes when the config writes no encoded default."""
        text = self.config.default_value
        if not self.is_sparse:
            numbers = [float(token) for token in text.split(self.config.separator) if token]
            return numbers if len(numbers) == self.value_dim else numbers * self.value_dim
        if not text:
            return None
        assert self.bucketizer is not None
        if self.bucketizer.default_id is not None:
            return [self.bucketizer.default_id]
        if self.bucketizer.kind == "num_buckets" and text.isdigit():
            return [int(text) if int(text) < self.bucketizer.rows else 0]
        raise ConfigError(
            f"feature {self.name!r} has use_mask and its default_value {text!r} is encoded by "
            "feature generation",
            hint="set fg_encoded_default_value to the encoded default",
        )

    def parse(self, input_data: dict[str, pa.Array], is_training: bool = False) -> Parsed:
        """Takes the feature's columns apart.

        Args:
            input_data: column → (B,) array.
            is_training: unused in FG_NONE.

        Raises:
            FeatureError: a column's type or a value does not fit.
        """
        column = input_data[self.inputs[0]]
        separator, default = self.fg_encoded_multival_sep, self.fg_encoded_default
        if self.is_sequence:
            return self._parse_sequence(column, separator, default)
        if self.is_sparse:
            return parse_fg_encoded_sparse_feature_impl(
                self.name, column, separator, default, self.is_weighted
            )
        return parse_fg_encoded_dense_feature_impl(
            self.name, column, separator, default, value_dim=max(self.value_dim, 1)
        )

    def _parse_sequence(self, column: Any, separator: str, default: Any) -> Parsed:
        if not self.is_sparse:
            return parse_fg_encoded_sequence_dense_feature_impl(
                self.name,
                column,
                self.sequence_delim,
                separator,
                default,
                value_dim=max(self.value_dim, 1),
            )
        parsed = parse_fg_encoded_sequence_sparse_feature_impl(
            self.name, column, self.sequence_delim, separator, default
        )
        if (
            self.value_dim == 1
            and parsed.key_lengths is not None
            and (parsed.key_lengths == 1).all()
        ):
            parsed.key_lengths = None
        return parsed


def _oneofs(message: Any) -> set[str]:
    return set(message.DESCRIPTOR.oneofs_by_name)
