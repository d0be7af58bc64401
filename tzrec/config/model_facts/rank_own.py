"""Facts of the single-task rankers beyond the interface."""

from __future__ import annotations

from collections.abc import Mapping

from tzrec.config.model_facts.base import ModelFacts

MODELS: Mapping[str, ModelFacts] = {}
