"""Models by the name of their config message; a module is imported when its model is asked for."""

from __future__ import annotations

from typing import Any

from tzrec.config.model_facts import MODELS as FACTS
from tzrec.registry import Registry

MODELS: Registry[Any] = Registry(
    "model", {name: facts.module for name, facts in FACTS.items() if name != "CustomModel"}
)
