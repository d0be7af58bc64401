"""What the runtime tells of itself, for metrics."""

from __future__ import annotations


class Observer:
    """Does nothing; metrics override what they count. Called from several threads."""

    def on_batch(self, *, requests: int, rows: int, seconds: float, waited: float) -> None:
        """A model call ended.

        Args:
            requests: merged into it.
            rows: of all of them.
            seconds: that it ran.
            waited: seconds that its oldest request stood in the queue.
        """

    def on_state(self, *, version: str, is_ready: bool, queued_rows: int) -> None:
        """How the engine is; told again and again."""

    def on_fault(self, code: str) -> None:
        """A request got a `tzrec.serving.faults.Fault` of this code."""

    def on_reload(self, version: str, *, is_loaded: bool, seconds: float) -> None:
        """A version was loaded and answers from now on, or failed and never answered."""
