"""Shows how far a long piece of work is."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("tzrec")

_QUIET_SECONDS = 10.0


class Progress:
    """A bar on a terminal, a line every 10 seconds elsewhere.

    Args:
        what: names the work.
        total: rows in all.
        rows: returns the rows that are done.
        unit: what is counted, if it is not rows.
    """

    def __init__(
        self, what: str, total: int, rows: Callable[[], int], *, unit: str = "row"
    ) -> None:
        self._what, self._total, self._rows, self._unit = what, total, rows, unit
        self._started = self._last = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=self._total,
                unit=self._unit,
                unit_scale=True,
                dynamic_ncols=True,
                desc=self._what,
            )
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self.show()
            self._bar.close()

    def show(self) -> None:
        """Shows how far it is, if it is time."""
        if self._bar is not None:
            self._bar.update(self._rows() - self._bar.n)
            return
        now = time.monotonic()
        if now - self._last < _QUIET_SECONDS:
            return
        self._last, rows = now, self._rows()
        rate = rows / (now - self._started)
        share = 100 * rows / max(self._total, 1)
        logger.info(
            "%s: %s of %s %ss (%.0f%%), %s %ss/s",
            self._what,
            f"{rows:,}",
            f"{self._total:,}",
            self._unit,
            share,
            f"{rate:,.0f}",
            self._unit,
        )
