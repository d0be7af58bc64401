"""Writes ``docs/errors.md`` from the corpus: ``python tests/errors/errors_page.py``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[2])]
from corpus import CORPUS  # noqa: E402
from errors_runner import Case  # noqa: E402

PAGE = Path(__file__).resolve().parents[2] / "docs" / "errors.md"

_HEAD = """\
# Errors

What is wrong is said in one message: `file:line: path: what`, and where it helps a hint how to
mend it. Config mistakes come all together, in the order of the file. What the config and the
schemas of the files tell is said before torch is loaded, in the same words by `tzrec check
--data` and `tzrec train`. A traceback means a bug of ours.

| exit code | meaning |
|---|---|
| 0 | fine |
| 1 | a bug, an unreadable export, or the machine's fault (a full disk, no permission) |
| 2 | config, flags, environment; a part that this version does not have; a missing package |
| 3 | data: files, columns, rows; a loss that is not finite |
| 4 | checkpoints: none, damaged, or of another model; a directory that cannot be written |
| 5 | memory |
| 6 | export: exists already, or differs from the trained model |
| 130, 143 | interrupted (Ctrl-C, SIGTERM): saved, `--continue` goes on |

The tables below are made from the corpus of wrong inputs in
[tests/errors/corpus.py](../tests/errors/corpus.py), each of which is tested: the mistake, the
command, the first line of the message, the exit code, and by what the mistake is known: the
*flags*, the *config*, the *files* (their schemas, and what Parquet says of its columns), what lies
in the *run* directory, or only the *rows*. `…` stands for anything; what is odd but works is a
warning. Who adds an error adds a case, and runs `python tests/errors/errors_page.py`.
"""


def page() -> str:
    """Returns the text of the page."""
    parts = [_HEAD]
    for section, cases in CORPUS.items():
        parts.append(f"\n## {section}\n\n| mistake | command | first line | exit | known by |\n")
        parts.append("|---|---|---|---|---|\n")
        parts += [_row(case) for case in cases]
    return "".join(parts)


def _row(case: Case) -> str:
    env = "".join(f"{k}={v} " for k, v in case.env.items() if (k, v) != ("LOG_LEVEL", "WARNING"))
    tool = "" if case.run.startswith("python") else "tzrec "
    command = _code(f"{env}{tool}{case.run}")
    first = _code(case.first.replace("{cwd}/", "").replace("\t", " "))
    return f"| {case.what} | {command} | {first} | {case.code} | {case.known} |\n"


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
