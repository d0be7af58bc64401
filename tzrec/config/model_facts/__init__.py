"""The models of this version: where they live and what they need of a config."""

from __future__ import annotations

from collections.abc import Mapping

from tzrec.config.model_facts import custom, multi_task, multi_task_relations, rank, rank_own
from tzrec.config.model_facts.base import ModelFacts, missing_group

__all__ = ["MODELS", "ModelFacts", "missing_group"]

MODELS: Mapping[str, ModelFacts] = {
    **rank.MODELS,
    **rank_own.MODELS,
    **multi_task.MODELS,
    **multi_task_relations.MODELS,
    **custom.MODELS,
}
