"""Facts of the multi-task rankers whose tasks know of each other."""

from __future__ import annotations

from collections.abc import Mapping

from tzrec.config.model_facts.base import ModelFacts

MODELS: Mapping[str, ModelFacts] = {}
