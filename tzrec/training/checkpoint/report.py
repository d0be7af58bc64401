"""What a restore did, for a person."""

from __future__ import annotations

from dataclasses import dataclass, field

_LISTED = 10
_WIDTH = 12


@dataclass
class RestoreReport:
    """What a restore did, by state-dict key of the model or the optimizer.

    Attributes:
        matched: restored.
        missing: in the model, not in the checkpoint; left as initialised.
        unexpected: in the checkpoint, not in the model; ignored.
        renamed: restored from another key: key → key in the checkpoint.
        resized: of a table that is not as it was: key → what became of it.
        skipped: why nothing at all was restored.
    """

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    resized: dict[str, str] = field(default_factory=dict)
    skipped: str = ""

    @property
    def exact(self) -> bool:
        """True when the checkpoint and the model hold the same keys and sizes."""
        return not (self.missing or self.unexpected or self.resized or self.skipped)

    def __str__(self) -> str:
        if self.skipped:
            return f"nothing restored: {self.skipped}"
        lines = [f"{len(self.matched)} restored"]
        lines += [
            f"{len(items)} {label}: {', '.join(items[:_LISTED])}{_rest(items)}"
            for label, items in self._sections()
            if label != "matched"
        ]
        return "; ".join(lines)

    def table(self) -> str:
        """Returns one line per kind with its count, and below it the names, unless all is exact."""
        if self.skipped:
            return f"  {'nothing':<{_WIDTH}}{self.skipped}"
        lines = [f"  {'matched':<{_WIDTH}}{len(self.matched):>6}"]
        for label, items in self._sections():
            if label == "matched":
                continue
            lines.append(f"  {label:<{_WIDTH}}{len(items):>6}  {_MEANING[label]}")
            lines += [f"    {item}" for item in items[:_LISTED]]
            if len(items) > _LISTED:
                lines.append(f"   {_rest(items)}")
        return "\n".join(lines)

    def _sections(self) -> list[tuple[str, list[str]]]:
        sections = {
            "matched": self.matched,
            "missing": self.missing,
            "unexpected": self.unexpected,
            "renamed": [f"{new} from {old}" for new, old in self.renamed.items()],
            "resized": [f"{key}: {what}" for key, what in self.resized.items()],
        }
        return [(label, items) for label, items in sections.items() if items]


_MEANING = {
    "missing": "not in the checkpoint, as initialised",
    "unexpected": "only in the checkpoint, ignored",
    "renamed": "under another name in the checkpoint",
    "resized": "tables that are not as they were",
}


def _rest(items: list[str]) -> str:
    return f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
