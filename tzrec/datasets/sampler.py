"""The samplers (import path of the interface)."""

from __future__ import annotations

from tzrec.datasets.samplers.base import BaseSampler
from tzrec.datasets.samplers.hard import HardNegativeSampler, HardNegativeSamplerV2
from tzrec.datasets.samplers.negative import NegativeSampler, NegativeSamplerV2
from tzrec.datasets.samplers.tdm import TDMSampler
from tzrec.datasets.samplers.tdm_predict import TDMPredictSampler

__all__ = [
    "BaseSampler",
    "HardNegativeSampler",
    "HardNegativeSamplerV2",
    "NegativeSampler",
    "NegativeSamplerV2",
    "TDMPredictSampler",
    "TDMSampler",
]
