"""The shipped configs and the commands in their headers."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "tzrec" / "demo" / "demo.config"
CONFIGS = [*sorted((ROOT / "examples").glob("*.config")), DEMO]


def stem(path: Path) -> str:
    """The name of a config, as the id of a test."""
    return path.stem


def commands(path: Path) -> list[list[str]]:
    """Commands in the header of a config, without their comments."""
    header = re.sub(r"\\\n# *", "", path.read_text().split("\n\n")[0])
    lines = [re.sub(r"^#( +[A-Z][a-z ]+:| +or:)? +", "", x) for x in header.split("\n")]
    found = [re.split(r" {2,}\(", line)[0] for line in lines]
    return [shlex.split(c) for c in found if re.match(r"(tzrec|torchrun) ", c)]
