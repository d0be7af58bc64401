"""Where the time of a run goes."""

from __future__ import annotations

import time
from collections.abc import Callable

PARTS = ("data", "forward", "backward", "update", "metrics", "other", "saving", "evaluation")


class PartTimer:
    """Wall-clock seconds by part of a run; everything between two calls belongs to one part.

    Attributes:
        seconds: part (of `PARTS`) → seconds.
        on_lap: told each part when it ends; None = nobody.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.on_lap: Callable[[str], None] | None = None
        self._last = time.perf_counter()

    def start(self) -> None:
        """Forgets the time since the last call."""
        self._last = time.perf_counter()

    def lap(self, part: str) -> None:
        """Gives the time since the last call to ``part``."""
        now = time.perf_counter()
        self.seconds[part] += now - self._last
        self._last = now
        if self.on_lap is not None:
            self.on_lap(part)

    @property
    def training(self) -> float:
        """Seconds of everything but saving and evaluation."""
        return sum(self.seconds.values()) - self.seconds["saving"] - self.seconds["evaluation"]
