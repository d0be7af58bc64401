"""Words that ``zch`` and ``dynamicemb`` messages may hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Policy = Literal["lfu", "lru", "distance_lfu"]

# The eviction policies of ``zch``.
POLICIES: tuple[Policy, ...] = ("lfu", "lru", "distance_lfu")

# ``score_strategy`` of ``dynamicemb`` → the policy that it is here.
STRATEGIES: Mapping[str, Policy] = {"STEP": "lru", "TIMESTAMP": "lru", "LFU": "lfu"}

# ``mode`` of the initial values of a row.
MODES = ("uniform", "normal", "truncated_normal", "constant")
