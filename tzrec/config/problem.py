"""What is wrong, and where: problems with their place in the config and in its file."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import Literal

from tzrec.errors import ConfigError, TzrecError, Unsupported

Severity = Literal["error", "unsupported", "warning"]


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing wrong with a config.

    Attributes:
        where: config path, ``feature_configs[0].id_feature.num_buckets``; "" = the whole config.
        what: what was received and what would be right.
        hint: the cure, where it is not obvious.
        severity: ``unsupported`` is an error about a part that this version does not have;
            ``warning`` does not stop anything.
    """

    where: str
    what: str
    hint: str = ""
    severity: Severity = "error"

    @property
    def fatal(self) -> bool:
        """Whether nothing may start with it."""
        return self.severity != "warning"


def unsupported(where: str, what: str, hint: str = "") -> Problem:
    """Returns a problem about a part that this version does not have."""
    return Problem(where, what, hint, "unsupported")


def warning(where: str, what: str, hint: str = "") -> Problem:
    """Returns a problem that does not stop anything."""
    return Problem(where, what, hint, "warning")


@dataclasses.dataclass
class SourceMap:
    """Config path → where it was written.

    Attributes:
        file: the config file, as the user named it.
        lines: config path → line in that file, counted from 1.
        flags: config path → the command line flag that set it, which wins over the file.
    """

    file: str = ""
    lines: dict[str, int] = dataclasses.field(default_factory=dict)
    flags: dict[str, str] = dataclasses.field(default_factory=dict)

    def line(self, where: str) -> int:
        """Returns the line of a path, or of the nearest part around it, or 0."""
        for prefix in (*_prefixes(where), ""):
            if prefix in self.lines:
                return self.lines[prefix]
        return 1 if self.file else 0

    def position(self, where: str) -> str:
        """Returns ``file:line`` of a path, or the flag that set it, or ""."""
        if where in self.flags:
            return self.flags[where]
        for prefix in _prefixes(where):
            if prefix in self.flags:
                return self.flags[prefix]
            if prefix in self.lines:
                break
        return f"{self.file}:{self.line(where)}" if self.file else ""

    def mark(self, where: str, flag: str) -> None:
        """Notes that a flag set a path; what the file said about it and its inside is void."""
        inside = re.compile(re.escape(where) + r"(?=$|[.\[])")
        for old in [path for path in self.lines if inside.match(path)]:
            del self.lines[old]
        self.flags[where] = flag


def _prefixes(where: str) -> Iterable[str]:
    while where:
        yield where
        cut = max(where.rfind("."), where.rfind("["))
        where = where[:cut] if cut > 0 else ""


def render(problem: Problem, source: SourceMap | None = None) -> str:
    """Returns ``file:line: path: what`` and the hint on a second line."""
    position = source.position(problem.where) if source else ""
    where = "" if position == f"--{problem.where}" else problem.where
    parts = [part for part in (position, where) if part]
    mark = "warning: " if problem.severity == "warning" else ""
    text = mark + ": ".join([*parts, problem.what])
    return f"{text}\n  hint: {problem.hint}" if problem.hint else text


def in_file_order(problems: Iterable[Problem], source: SourceMap | None) -> list[Problem]:
    """Returns the problems in the order of the file's lines, equal ones once."""
    unique = list(dict.fromkeys(problems))
    return unique if source is None else sorted(unique, key=lambda p: source.line(p.where))


def as_error(problems: Sequence[Problem], source: SourceMap | None = None) -> TzrecError:
    """Returns the error that shows all ``problems``.

    It is an `Unsupported` when every one is about a part that this version does not have,
    else a `ConfigError`.
    """
    text = "\n".join(render(problem, source) for problem in in_file_order(problems, source))
    if problems and all(problem.severity == "unsupported" for problem in problems):
        return Unsupported(text)
    return ConfigError(text)
