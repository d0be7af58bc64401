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

from tzrec.config.messages import which_field
from tzrec.constant import BASE_DATA_GROUP
from tzrec.errors import ConfigError, at
from tzrec.features import generation
from tzrec.features.bucketizer import Bucketizer, create_bucketizer
from tzrec.features.defaults import encoded_default
from tzrec.features.encoded import parse_encoded
from tzrec.features.hash_table import HashTableSpec, hash_table_spec
from tzrec.features.init_fn import InitFn, parse_init_fn
from tzrec.features.mask import masks_of
from tzrec.fg.encoded import MULTIVAL_SEP
from tzrec.fg.handler import FgHandler
from tzrec.fg.parsed import Parsed
from tzrec.options import from_environment
from tzrec.registry import Registry
from tzrec.utils.load_class import get_register_class_meta

FEATURES: Registry[Any] = Registry(
    "feature",
    {
        "IdFeature": "tzrec.features.id_feature",
        "RawFeature": "tzrec.features.raw_feature",
        "ComboFeature": "tzrec.features.combo_feature",
        "CombineFeature": "tzrec.features.combine_feature",
        "LookupFeature": "tzrec.features.lookup_feature",
        "MatchFeature": "tzrec.features.match_feature",
        "ExprFeature": "tzrec.features.expr_feature",
        "OverlapFeature": "tzrec.features.overlap_feature",
        "KvDotProduct": "tzrec.features.kv_dot_product",
        "TokenizeFeature": "tzrec.features.tokenize_feature",
        "CustomFeature": "tzrec.features.custom_feature",
        "BoolMaskFeature": "tzrec.features.bool_mask_feature",
    },
)
_FEATURE_CLASS_MAP: dict[str, type] = {}
_meta_cls = get_register_class_meta(_FEATURE_CLASS_MAP, FEATURES)

_SEQUENCE_PREFIX = "sequence_"
_POOLINGS = {"sum": PoolingType.SUM, "mean": PoolingType.MEAN}
_DATA_TYPES = {"FP32": DataType.FP32, "FP16": DataType.FP16}


class FgMode(enum.Enum):
    """Where feature generation happens."""

    FG_NONE = 1
    FG_NORMAL = 2
    FG_DAG = 3
    FG_BUCKETIZE = 4


class BaseFeature(metaclass=_meta_cls):  # type: ignore[metaclass]
    r"""One feature of a config; a subclass per message type, found by its name.

    Args:
        feature_config: the `FeatureConfig`, or for a sub-feature its `SeqFeatureConfig`.
        fg_mode: where feature generation happens.
        fg_encoded_multival_sep: separator of several values in FG_NONE text; None = ``\x03``.
        is_sequence: the values of a row are steps.
        sequence_name: name of the grouped sequence that the feature belongs to.
        sequence_delim: separator of steps in text; None takes the message's own.
        sequence_length: steps that feature generation keeps (FG_NONE keeps all); None takes the
            message's own, 0 = all.
        sequence_pk: primary key of a grouped sequence; None = ``user:{sequence_name}``.
        farm_hash: hash with FarmHash Fingerprint64; None takes the environment's choice.

    Attributes:
        feature_config: as given.
        config: the message inside ``feature_config``.
        bucketizer: what makes ids and sizes the table; None for plain numbers.
        data_group: the rows that the feature lives on.
        reads_sampled_rows: the sampler adds rows to the feature's column.
        stands_alone: it is written as a feature of rows, whatever ``is_sequence`` says.
        generates_steps: columns of a sequence hold steps; False where they come about later.

    Raises:
        ConfigError: the message contradicts itself.
    """

    generates_steps = True

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
        farm_hash: bool | None = None,
    ) -> None:
        kind = which_field(feature_config, "feature")
        if kind is None:
            raise ConfigError("no feature is set; write for example id_feature { … }")
        self.feature_config = feature_config
        self.config: Any = getattr(feature_config, kind)
        self.kind = kind.removeprefix(_SEQUENCE_PREFIX)
        self.stands_alone = sequence_name is None and kind == self.kind
        self.fg_mode = fg_mode
        self.farm_hash = from_environment().farm_hash if farm_hash is None else farm_hash
        self.is_sequence = is_sequence or kind.startswith(_SEQUENCE_PREFIX)
        self.sequence_name = sequence_name
        if self.is_sequence and sequence_delim is None:
            sequence_delim = str(self.config.sequence_delim)
        self.sequence_delim = sequence_delim
        if self.is_sequence and sequence_length is None:
            sequence_length = int(self.config.sequence_length)
        self.sequence_length = sequence_length
        self.sequence_pk = sequence_pk or (f"user:{sequence_name}" if sequence_name else None)
        if fg_encoded_multival_sep is None:
            fg_encoded_multival_sep = MULTIVAL_SEP
        self.fg_encoded_multival_sep = fg_encoded_multival_sep
        self.data_group = BASE_DATA_GROUP
        self.reads_sampled_rows = False
        with at(f"{type(self).__name__}[{self.name}]"):
            self.bucketizer: Bucketizer | None = self._make_bucketizer()
            self._check()

    def _make_bucketizer(self) -> Bucketizer | None:
        """Returns what makes ids and sizes the table."""
        # Columns of FG_NONE hold ids already, whatever they were hashed with.
        farm_hash = self.farm_hash and self.fg_mode is not FgMode.FG_NONE
        return create_bucketizer(self.config, farm_hash=farm_hash)

    def _check(self) -> None:
        """Raises what is wrong with the config; subclasses add their rules."""
        if self.is_stub and self.fg_mode is FgMode.FG_NORMAL:
            raise ConfigError(
                "stub_type needs FG_DAG: in FG_NORMAL no feature reads another one",
                hint="set data_config.fg_mode: FG_DAG",
            )
        if not self.fg_encoded_multival_sep:
            raise ConfigError("fg_encoded_multival_sep is empty", hint=r'the default is "\x03"')
        if self.is_sequence and not self.sequence_delim:
            raise ConfigError("sequence_delim is empty", hint='the default is ";"')
        if self.config.pooling.lower() not in _POOLINGS:
            raise ConfigError(f"pooling is {self.config.pooling!r}, must be sum or mean")
        if self.config.data_type not in _DATA_TYPES:
            raise ConfigError(f"data_type is {self.config.data_type!r}, must be FP32 or FP16")
        # Computed now, so that what is wrong with them is said before anything starts.
        _ = self.init_fn, self.fg_encoded_default

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the handler, which worker processes make anew."""
        return {key: value for key, value in self.__dict__.items() if key != "handler"}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @cached_property
    def name(self) -> str:
        """Name; of a sub-feature ``{sequence_name}__{feature_name}``."""
        own = str(self.config.feature_name)
        return f"{self.sequence_name}__{own}" if self.is_grouped_sequence else own

    @property
    def is_grouped_sequence(self) -> bool:
        """True for a sub-feature of a ``sequence_feature``."""
        return self.sequence_name is not None

    @property
    def is_stub(self) -> bool:
        """True for a feature that only other features read."""
        return bool(self.config.stub_type)

    @property
    def inputs(self) -> list[str]:
        """Columns that the feature reads; of encoded data the one that is called like it."""
        return self._reads[0]

    @property
    def feature_inputs(self) -> list[str]:
        """Other features that the feature reads."""
        return self._reads[1]

    @cached_property
    def _reads(self) -> tuple[list[str], list[str]]:
        if self.fg_mode in (FgMode.FG_NONE, FgMode.FG_BUCKETIZE):
            return [self.name], []
        return generation.reads(self)

    @property
    def is_sparse(self) -> bool:
        """True when values are ids of table rows, False when they are numbers."""
        return self.bucketizer is not None

    @property
    def is_weighted(self) -> bool:
        """True when each id has a weight."""
        return False

    @property
    def value_dim(self) -> int:
        """Values per row or step; 0 = any number of ids."""
        return int(self.config.value_dim)

    @property
    def embedding_dim(self) -> int:
        """Width of the embedding, 0 = none.

        Raises:
            ConfigError: the feature is embedded, and the config has no width.
        """
        dim = int(self.config.embedding_dim)
        if dim == 0 and self.has_embedding:
            raise ConfigError(f"{self!r}: embedding_dim is missing or 0; the feature is embedded")
        return dim

    @property
    def output_dim(self) -> int:
        """Width that the feature has in a group."""
        return self.embedding_dim if self.has_embedding else self.value_dim

    @property
    def has_embedding(self) -> bool:
        """True when values are embedded: ids by a table, numbers by autodis or mlp."""
        return self.is_sparse or self.dense_emb_config is not None

    @property
    def num_embeddings(self) -> int:
        """Rows of the table, which every id is below; 0 for numbers.

        Raises:
            ConfigError: nothing in the config of an id feature sizes its table.
        """
        if self.bucketizer is not None:
            return self.bucketizer.rows
        if not self.is_sparse:
            return 0
        raise ConfigError(
            f"{type(self).__name__}[{self.name}] does not say how many ids it has",
            hint="set one of hash_bucket_size, num_buckets, vocab_list, vocab_dict, vocab_file",
        )

    @property
    def id_limit(self) -> int:
        """What every id is below: the rows of the table, or 2^63 - 1 of a hash table.

        Raises:
            ConfigError: as `num_embeddings`.
        """
        return self.num_embeddings if self.hash_table is None else (1 << 63) - 1

    @property
    def embedding_name(self) -> str:
        """Name of the table; features with equal names share it."""
        return str(self.config.embedding_name) or f"{self.name}_emb"

    @property
    def pooling(self) -> str:
        """How several ids become one vector: ``sum`` or ``mean``."""
        return str(self.config.pooling).lower()

    @property
    def trainable(self) -> bool:
        """False keeps the table at its initial values."""
        return bool(self.config.trainable)

    @property
    def use_mask(self) -> bool:
        """True when training hides the value in masked rows."""
        return bool(self.config.use_mask)

    @cached_property
    def init_fn(self) -> InitFn | None:
        """Initialiser of the table; None = TorchRec's, uniform ± 1/sqrt(rows)."""
        return parse_init_fn(self.config.init_fn)

    @cached_property
    def hash_table(self) -> HashTableSpec | None:
        """How the table gives rows to ids (``zch``, ``dynamicemb``); None = an id is a row."""
        return hash_table_spec(self.config)

    @property
    def data_type(self) -> DataType:
        """Element type of the table."""
        return _DATA_TYPES[self.config.data_type]

    @property
    def embedding_constraints(self) -> Any:
        """The config's ``embedding_constraints`` (sharding types, kernels), or None."""
        is_set = self.config.HasField("embedding_constraints")
        return self.config.embedding_constraints if is_set else None

    @property
    def emb_bag_config(self) -> EmbeddingBagConfig | None:
        """The table for pooled look-ups, with ``trainable`` as an attribute; None for numbers.

        Raises:
            ConfigError: as `num_embeddings`.
        """
        return self._table(EmbeddingBagConfig, pooling=_POOLINGS[self.pooling])

    @property
    def emb_config(self) -> EmbeddingConfig | None:
        """The table for un-pooled look-ups, with ``trainable`` as an attribute; None for numbers.

        Raises:
            ConfigError: as `num_embeddings`.
        """
        return self._table(EmbeddingConfig)

    def _table(self, cls: type, **more: Any) -> Any:
        if not self.is_sparse:
            return None
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
        table.hash_table = self.hash_table
        return table

    @property
    def dense_emb_config(self) -> Any:
        """The config's ``autodis`` or ``mlp`` message; None without, and for ids and sequences."""
        if self.is_sparse or self.is_sequence:
            return None
        if "dense_emb" not in self.config.DESCRIPTOR.oneofs_by_name:
            return None
        kind = which_field(self.config, "dense_emb")
        return getattr(self.config, kind) if kind else None

    @cached_property
    def fg_encoded_default(self) -> list[int] | list[float] | None:
        """Ids or numbers of a missing value in FG_NONE; None = there is no default.

        That is ``fg_encoded_default_value``; where it is not written and `use_mask` needs one,
        what feature generation makes of ``default_value``.
        """
        return encoded_default(self)

    @cached_property
    def handler(self) -> FgHandler:
        """Feature generation of this feature alone."""
        return generation.create_handler(
            [self],
            bucketize_only=self.fg_mode is FgMode.FG_BUCKETIZE,
            farm_hash=self.farm_hash,
        )

    def fg_json(self) -> list[dict[str, Any]]:
        """Returns the entries of ``fg.json``, without the group of a grouped sequence."""
        return generation.entries(self)

    def parse(self, input_data: dict[str, pa.Array], is_training: bool = False) -> Parsed:
        """Makes the feature's values of its columns.

        Args:
            input_data: column → (B,) array.
            is_training: hides the rows of the mask columns if the feature uses masks.

        Raises:
            DataError: a column is missing.
            FeatureError: a column's type or a value does not fit.
        """
        if self.fg_mode is not FgMode.FG_NONE:
            masks = masks_of([self], input_data) if is_training else {}
            return self.reshape(self.handler.process_arrow(input_data, masks)[self.name])
        return self.reshape(parse_encoded(self, input_data, is_training))

    def reshape(self, parsed: Parsed) -> Parsed:
        """Returns what feature generation gave in the feature's own shape."""
        return parsed

    @property
    def has_steps(self) -> bool:
        """Whether encoded columns come in steps."""
        return self.is_sequence
