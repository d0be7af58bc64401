"""Makes the directory of a wrong input, runs its command, and tells what came of it."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "config"))
from config_samples import DEEPFM, DIN

ROWS = 64

# What each file holds; a case replaces columns in all of them.
CLICKS = {
    "user_id": pa.array(range(ROWS)),
    "item_id": pa.array([row % 9 for row in range(ROWS)]),
    "price": pa.array([row % 4 for row in range(ROWS)]),
    "age": pa.array([row / 10 for row in range(ROWS)]),
    "clk": pa.array([row % 2 for row in range(ROWS)]),
}
STEPS = {
    "user": pa.array([row % 9 for row in range(ROWS)]),
    "item": pa.array([row % 8 for row in range(ROWS)]),
    "click__item": pa.array(["1;2" for _ in range(ROWS)]),
    "click__price": pa.array(["0.5;1" for _ in range(ROWS)]),
    "clk": pa.array([row % 2 for row in range(ROWS)]),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One mistake and what is said about it.

    Attributes:
        what: the mistake, in a few words.
        first: first line of the message; ``…`` stands for anything, ``{cwd}`` for the directory.
        run: the command, as typed.
        code: exit code.
        edits: (old, new) texts of ``c.config``, each replaced once.
        text: ``c.config`` before the edits.
        columns: columns of the data files that differ; None leaves one out.
        make: makes what else is wrong, given the directory.
        needs: ``run`` (a finished run in ``run``) or ``export`` (that, and ``export``).
        env: environment variables.
        known: by what the mistake can be known: ``flags``, ``config``, ``files`` (schemas and
            what Parquet says of its columns), ``run`` (what lies in the directory) or ``rows``.
        messages: how many there are: one per mistake.
    """

    what: str
    first: str
    run: str = "train c.config"
    code: int = 2
    edits: tuple[tuple[str, str], ...] = ()
    text: str = DEEPFM
    columns: dict[str, Any] | None = None
    make: Callable[[Path], object] | None = None
    needs: str = ""
    env: dict[str, str] = dataclasses.field(default_factory=dict)
    known: str = "config"
    messages: int = 1


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command did.

    Attributes:
        code: exit code.
        out: its standard output.
        err: its standard error; warnings of the log begin with ``warning:``.
    """

    code: int
    out: str
    err: str

    @property
    def first(self) -> str:
        """First line of the message."""
        lines = self.err.splitlines() or self.out.splitlines() or [""]
        return lines[0]


def write_data(root: Path, columns: dict[str, Any], *, steps: bool) -> None:
    """Writes ``data/train.csv`` (sequences), or ``train-0``, ``train-1``, ``eval`` in Parquet."""
    (root / "data").mkdir()
    wanted = {**(STEPS if steps else CLICKS), **columns}
    table = pa.table({name: column for name, column in wanted.items() if column is not None})
    if steps:
        pa_csv.write_csv(table, root / "data" / "train.csv")
        return
    for name in ("train-0", "train-1", "eval"):
        pq.write_table(table, root / "data" / f"{name}.parquet")


def write_case(case: Case, root: Path, finished: Path | None) -> None:
    """Makes the directory of a case.

    Args:
        case: what is wrong.
        root: an empty directory.
        finished: a directory with a finished run, for a case that needs one.
    """
    if case.needs:
        assert finished is not None
        for name in {"run": ["run"], "export": ["run", "export"]}[case.needs]:
            shutil.copytree(finished / name, root / name)
    write_data(root, case.columns or {}, steps=case.text is DIN)
    text = case.text
    for old, new in case.edits:
        assert old in text, f"{case.what}: {old!r} is not in the config"
        text = text.replace(old, new, 1)
    (root / "c.config").write_text(text)
    if case.make:
        case.make(root)


@contextlib.contextmanager
def inside(root: Path, env: dict[str, str]) -> Iterator[None]:
    """Works in a directory with further environment variables; logs errors only."""
    before, old = os.getcwd(), dict(os.environ)  # noqa: TID251
    os.chdir(root)
    os.environ.update({"LOG_LEVEL": "ERROR", **env})  # noqa: TID251
    try:
        yield
    finally:
        os.chdir(before)
        os.environ.clear()  # noqa: TID251
        os.environ.update(old)  # noqa: TID251


def execute(command: str, root: Path, env: dict[str, str] | None = None) -> Outcome:
    """Runs a command in this process: ``check …`` of ``tzrec``, or ``python -m MODULE …``."""
    arguments = shlex.split(command)
    if arguments[:2] == ["python", "-m"]:
        main, arguments = importlib.import_module(arguments[2]).main, arguments[3:]
    else:
        main = importlib.import_module("tzrec.cli").main
    out, err = io.StringIO(), io.StringIO()
    with inside(root, env or {}), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    warned = re.sub(r"^\[[-\d]+ [:\d]+\]\[WARNING\] ", "warning: ", err.getvalue(), flags=re.M)
    return Outcome(code, out.getvalue(), warned)


def expected(first: str, root: Path) -> re.Pattern[str]:
    """Returns the pattern of an expected first line."""
    parts = first.replace("{cwd}", str(root)).split("…")
    return re.compile(".*".join(re.escape(part) for part in parts))


__all__ = ["CLICKS", "DEEPFM", "DIN", "ROWS", "STEPS", "Case", "Outcome", "execute", "expected"]
