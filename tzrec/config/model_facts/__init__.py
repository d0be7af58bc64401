"""The models of this version: where they live and what they need of a config."""

from __future__ import annotations

from collections.abc import Mapping

from tzrec.config.model_facts import (
    custom,
    match,
    match_sequence,
    multi_task,
    multi_task_relations,
    rank,
    rank_own,
    tdm,
)
from tzrec.config.model_facts.base import ModelFacts, missing_group

__all__ = ["MODELS", "ModelFacts", "missing_group"]

MODELS: Mapping[str, ModelFacts] = {
    **rank.MODELS,
    **rank_own.MODELS,
    **match.MODELS,
    **match_sequence.MODELS,
    **tdm.MODELS,
    **multi_task.MODELS,
    **multi_task_relations.MODELS,
    **custom.MODELS,
}
