"""Facts of models outside this package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tzrec.config.model_facts.base import ModelFacts
from tzrec.config.problem import Problem

if TYPE_CHECKING:
    from tzrec.config.validate.frame import Context


def _custom_model(context: Context) -> Iterator[Problem]:
    path = context.model.class_path
    parts = path.split(".")
    if path and (len(parts) < 2 or not all(part.isidentifier() for part in parts)):
        yield Problem(
            f"{context.model_path}.class_path",
            f"is {path!r}, must be package.module.Class",
            'for example "shop.models.TwoHead"',
        )


MODELS: Mapping[str, ModelFacts] = {
    "CustomModel": ModelFacts(
        "tzrec.models.factory", reads_all_groups=True, check=_custom_model, needs_loss=False
    ),
}
