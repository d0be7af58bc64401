"""`SamplerInput`: what the sampler of a config needs of the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tzrec.datasets.candidates import CandidateSequence
from tzrec.datasets.data_parser import DataParser
from tzrec.datasets.sampled import RowJoiner
from tzrec.datasets.samplers.factory import create_sampler, sampler_message
from tzrec.protos.data_pb2 import DataConfig

if TYPE_CHECKING:
    from tzrec.features.feature import BaseFeature


@dataclass(frozen=True)
class SamplerInput:
    """The sampler of a config and the columns that it has to do with.

    Attributes:
        message: of the sampler.
        sequence: holds the candidates, None where each row is one.
    """

    message: Any
    sequence: CandidateSequence | None

    @classmethod
    def of(cls, data_config: DataConfig, features: Sequence[BaseFeature]) -> SamplerInput | None:
        """Returns that of a config, None without a sampler.

        Raises:
            ConfigError: the item's id is a sequence that cannot hold candidates.
        """
        message = sampler_message(data_config)
        if message is None:
            return None
        return cls(message, CandidateSequence.of(message.item_id_field, features))

    @property
    def type_name(self) -> str:
        """``NegativeSampler`` …"""
        return str(type(self.message).__name__)

    @property
    def id_columns(self) -> list[str]:
        """Columns with the ids of items and users."""
        return [self.message.item_id_field, *filter(None, [self._user_id_field])]

    @property
    def _user_id_field(self) -> str:
        return str(getattr(self.message, "user_id_field", ""))

    @property
    def sampled_columns(self) -> list[str]:
        """Columns that get rows of the sampler, none where the rows of all columns change."""
        if self.sequence is not None or self.type_name == "TDMSampler":
            return []
        return list(self.message.attr_fields)

    def fields(self, schema: pa.Schema) -> dict[str, pa.DataType]:
        """Returns the types of what the sampler reads, lists of candidates without their list.

        Raises:
            DataError: a column cannot hold several candidates.
        """
        types = dict(zip(schema.names, schema.types, strict=True))
        if self.sequence is None:
            read = {*self.id_columns, *self.message.attr_fields}
            return {name: types[name] for name in types if name in read}
        fields = {self._user_id_field: types[self._user_id_field]} if self._user_id_field else {}
        item = self.message.item_id_field
        fields[item] = self.sequence.item_type(item, types[item])
        for attribute in self.message.attr_fields:
            column = self.sequence.column(attribute)
            if column in types:
                fields[attribute] = self.sequence.item_type(column, types[column])
        return fields

    def joiner(
        self,
        data_config: DataConfig,
        parser: DataParser,
        schema: pa.Schema,
        *,
        is_training: bool,
        with_log_q: bool = False,
    ) -> RowJoiner:
        """Returns what joins the sampler's rows; the sampler is not built yet.

        Args:
            data_config: that of the sampler.
            parser: of the input.
            schema: of the input.
            is_training: mask rows, and take ``num_sample`` of them.
            with_log_q: the sampler tells the probabilities of its draws.

        Raises:
            DataError: a column cannot hold several candidates.
        """
        sampler = create_sampler(
            data_config, self.fields(schema), is_training=is_training, with_log_q=with_log_q
        )
        assert sampler is not None
        probs = (data_config.sample_mask_prob, data_config.negative_sample_mask_prob)
        return RowJoiner(
            sampler,
            parser.feature_columns,
            labels=parser.labels,
            sequence=self.sequence,
            mask_probs=probs if is_training else (0.0, 0.0),
        )
