"""From a data config to its sampler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from tzrec.datasets.samplers.base import BaseSampler
from tzrec.protos.data_pb2 import DataConfig
from tzrec.registry import Registry

_NEGATIVE = "tzrec.datasets.samplers.negative"
_HARD = "tzrec.datasets.samplers.hard"

SAMPLERS: Registry[Any] = Registry(
    "sampler",
    {
        "NegativeSampler": _NEGATIVE,
        "NegativeSamplerV2": _NEGATIVE,
        "HardNegativeSampler": _HARD,
        "HardNegativeSamplerV2": _HARD,
        "TDMSampler": "tzrec.datasets.samplers.tdm",
    },
)


def sampler_message(config: DataConfig) -> Any | None:
    """Returns the message of the config's sampler, None without one."""
    chosen = config.WhichOneof("sampler")
    return getattr(config, chosen) if chosen else None


def create_sampler(
    config: DataConfig,
    fields: Mapping[str, pa.DataType],
    *,
    is_training: bool,
    with_log_q: bool = False,
) -> BaseSampler | None:
    """Returns the sampler that a config asks for, not built yet; None without one.

    Args:
        config: has the sampler's message.
        fields: input column → type, lists of candidates without their list.
        is_training: ``num_eval_sample`` counts where it is False.
        with_log_q: tell the probabilities of the draws too.
    """
    message = sampler_message(config)
    if message is None:
        return None
    cls = SAMPLERS.get(type(message).__name__)
    sampler: BaseSampler = cls(message, fields, is_training=is_training, with_log_q=with_log_q)
    return sampler
